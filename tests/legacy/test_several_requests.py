"""Requests of one process that bind shared globals at the same time."""

from __future__ import annotations

import collections
import contextvars
import os
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import (
    ConflictError,
    EncodingError,
    SharedCounter,
    SharedValue,
    StoreUnavailableError,
)
from flask_globalstate.legacy import value_name
from tests.support.legacy_modules import CONTAINERS, Worker
from tests.support.threads import run_threads


class Running:
    """A request of a worker that runs beside others of the same worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._context = contextvars.Context()
        self._request = self.do(worker.state.begin_request)

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something in this request."""
        return self._context.run(function, *arguments)

    def publish(self) -> None:
        self.do(self._worker.state.publish_globals)

    def end(self) -> None:
        self.do(self._worker.state.end_request, self._request)


def conflicts_of(worker: Worker) -> Any:
    return worker.state.stats()["conflicts"]


@pytest.mark.parametrize(("on_conflict", "met"), [("raise", 1), ("warn", 1), ("ignore", 0)])
def test_a_conflict_of_what_another_request_has_bound_fails_none_and_is_told(
    start: Callable[..., Worker], caplog: Any, on_conflict: str, met: int
) -> None:
    worker, other = (start(STORE_ON_CONFLICT=on_conflict).share("THEME") for _ in range(2))
    first, second = Running(worker), Running(worker)
    other.request("set_theme", "theirs")
    second.do(worker.legacy.set_theme, "mine")
    first.end()
    second.end()
    # Whoever has bound it is answered as if it was written, and so it must be.
    assert (worker.read("THEME"), other.read("THEME")) == ("mine", "mine")
    assert conflicts_of(worker) == ({"legacy.THEME": 1} if met else {})
    assert caplog.text.count("legacy.THEME") == met


def test_a_conflict_fails_a_request_that_has_run_alone(start: Callable[..., Worker]) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    ended = Running(worker)
    ended.end()
    alone = Running(worker)
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine")
    with pytest.raises(ConflictError):
        alone.end()
    assert worker.read("THEME") == "theirs"
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_a_conflict_fails_no_request_beside_which_another_has_run_and_ended(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    long = Running(worker)
    Running(worker).end()
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine")
    long.end()
    assert other.read("THEME") == "mine"
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_a_conflict_fails_no_request_that_has_found_the_name_bound(
    start: Callable[..., Worker], monkeypatch: Any
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    before = Running(worker)
    with monkeypatch.context() as broken:
        broken.setattr(worker.state.store, "commit", fail)
        worker.legacy.set_theme("mine")
        with pytest.raises(StoreUnavailableError):
            before.end()
    other.request("set_theme", "theirs")
    Running(worker).end()
    assert other.read("THEME") == "mine"
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_what_requests_of_one_process_bind_in_turn_is_no_conflict(
    start: Callable[..., Worker], caplog: Any
) -> None:
    worker = start(STORE_ON_CONFLICT="raise").share(HITS=SharedValue)
    requests = [Running(worker) for _ in range(3)]
    for turn in range(9):
        requests[turn % 3].do(worker.legacy.hit)
        requests[turn % 3].publish()
    for request in requests:
        request.end()
    assert worker.read("HITS") == 9
    assert worker.state.value("legacy.HITS").value == 9
    assert conflicts_of(worker) == {}
    assert not caplog.records


def test_what_a_request_has_written_or_read_itself_is_no_conflict_for_it(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    shared = worker.state.value("legacy.THEME")
    with worker.state.request():
        shared.value = "directly"
        worker.legacy.set_theme("bound")
    with worker.state.request():
        other.request("set_theme", "theirs")
        shared.sync()
        assert shared.value == "theirs"
        worker.legacy.set_theme("after that")
    assert other.read("THEME") == "after that"
    assert conflicts_of(worker) == {}


def test_what_was_made_of_something_older_than_another_request_has_brought_is_told(
    start: Callable[..., Worker], caplog: Any
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    behind = Running(worker)
    older = behind.do(lambda: worker.legacy.THEME)
    other.request("set_theme", "theirs")
    Running(worker).end()
    behind.do(worker.legacy.set_theme, f"{older} and more")
    behind.publish()
    assert other.read("THEME") == "dark and more"
    assert conflicts_of(worker) == {"legacy.THEME": 1}
    assert "legacy.THEME" in caplog.text
    # It is told once.
    worker.request("set_theme", "again")
    behind.end()
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_a_request_that_binds_twice_meets_no_conflict_where_they_are_ignored(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="ignore").share("THEME") for _ in range(2))
    request = Running(worker)
    worker.legacy.set_theme("mine")
    request.publish()
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine again")
    request.end()
    assert other.read("THEME") == "mine again"
    assert conflicts_of(worker) == {}


def test_a_sync_outside_of_requests_hides_no_conflict(start: Callable[..., Worker]) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    request = Running(worker)
    worker.state.sync()
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine")
    with pytest.raises(ConflictError):
        request.end()


@pytest.mark.parametrize(("on_conflict", "met"), [("raise", 1), ("warn", 1), ("ignore", 0)])
def test_a_conflict_of_a_container_that_another_request_has_bound_fails_none_and_is_told(
    start: Callable[..., Worker], caplog: Any, on_conflict: str, met: int
) -> None:
    worker, other = (start(STORE_ON_CONFLICT=on_conflict).share(*CONTAINERS) for _ in range(2))
    first, second = Running(worker), Running(worker)
    found = second.do(lambda: dict(worker.legacy.DATA))
    other.legacy.DATA["n"] = 5
    second.do(worker.legacy.replace, {**found, "n": 7}, worker.legacy.LOG, worker.legacy.TAGS)
    first.end()
    second.end()
    assert other.read("DATA")["n"] == 7
    assert conflicts_of(worker) == ({"legacy.DATA": 1} if met else {})
    assert caplog.text.count("legacy.DATA") == met


@pytest.mark.parametrize(
    ("name", "value", "shared"),
    [
        ("THEME", print, "dark"),
        ("LOG", [lambda: None], ["started"]),
        ("LOG", 5, ["started"]),
        ("HITS", "x", 0),
    ],
)
def test_what_can_never_be_published_fails_none_of_several_requests(
    start: Callable[..., Worker], caplog: Any, name: str, value: Any, shared: Any
) -> None:
    if name == "THEME":
        value = lambda: None  # noqa: E731  A function of a test can't be pickled.
    worker = start().share("THEME", "LOG", HITS=SharedCounter)
    first, second = Running(worker), Running(worker)
    second.do(setattr, worker.legacy, name, value)
    third = Running(worker)
    for request in (first, second, third):
        request.end()
    assert worker.read(name) == shared
    assert [record.levelname for record in caplog.records if f"legacy.{name}" in record.message] == [
        "WARNING"
    ]


def test_a_number_that_is_bound_again_after_something_else_is_counted(start: Callable[..., Worker]) -> None:
    worker = start().share(HITS=SharedCounter)
    first = Running(worker)
    worker.legacy.HITS = None
    second = Running(worker)
    assert worker.legacy.HITS is None
    worker.legacy.HITS = 3
    first.end()
    second.end()
    assert worker.state.counter("legacy.HITS").value == 3


def test_what_nobody_who_runs_has_bound_to_a_counter_is_put_back_before_a_request(
    start: Callable[..., Worker], caplog: Any
) -> None:
    worker = start().share(HITS=SharedCounter)
    worker.request("hit", 2)
    worker.legacy.HITS = None
    worker.request("hit", 1)
    assert worker.read("HITS") == 3
    assert "legacy.HITS is shared as a SharedCounter" in caplog.text


def test_a_name_that_cannot_be_published_keeps_no_other_from_it(start: Callable[..., Worker]) -> None:
    worker, other = (start().share("THEME", "LOG", HITS=SharedCounter) for _ in range(2))
    request = Running(worker)
    worker.legacy.THEME = lambda: None
    worker.legacy.LOG = 5
    worker.legacy.hit(7)
    with pytest.raises(EncodingError, match="THEME"):
        request.publish()
    assert other.read("HITS") == 7
    request.end()
    assert (worker.read("THEME"), worker.read("LOG")) == ("dark", ["started"])


@pytest.mark.usefixtures("threads_are_switched_often")
@pytest.mark.parametrize("on_conflict", ["raise", "warn"])
def test_threads_of_two_workers_that_bind_everything_lose_no_increment_and_fail_none(
    start: Callable[..., Worker], on_conflict: str
) -> None:
    workers = [
        start(STORE_ON_CONFLICT=on_conflict).share("THEME", "DATA", HITS=SharedCounter) for _ in range(2)
    ]
    threads, rounds = 3, 25

    def serve(worker: Worker) -> None:
        # One that runs all the while: no other request is alone.
        for number in range(rounds):
            request = Running(worker)
            request.do(worker.legacy.hit, 2)
            request.do(worker.legacy.set_theme, str(number))
            request.do(worker.legacy.hit, 3)
            request.publish()
            request.do(setattr, worker.legacy, "DATA", {"n": number})
            request.end()

    beside = [Running(worker) for worker in workers]
    run_threads(*[lambda worker=worker: serve(worker) for worker in workers for _ in range(threads)])
    for request in beside:
        request.end()
    assert [worker.read("HITS") for worker in workers] == [2 * threads * rounds * 5] * 2


def test_a_forked_child_knows_nothing_of_the_other_requests_of_its_parent(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    beside, request = Running(worker), Running(worker)
    child = os.fork()
    if child == 0:
        try:
            alone = request.do(worker.state._shared_globals._requests.begin, request._request).others == []
        finally:
            os._exit(0 if alone else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    request.end()
    beside.end()
    other.state.sync()


def test_an_object_that_is_changed_in_place_is_published(start: Callable[..., Worker]) -> None:
    workers = [start().share("WORDS", LIMITS=SharedValue) for _ in range(2)]
    for number, worker in enumerate(workers * 2):
        with worker.state.request():
            worker.legacy.WORDS["a"] += 1
            worker.legacy.LIMITS[1].append(number)
    for worker in workers:
        assert worker.read("WORDS") == {"a": 4}
        assert type(worker.legacy.WORDS) is collections.Counter
        assert worker.read("LIMITS") == (1, [2, 0, 1, 2, 3])
        assert worker.state.stats()["changed_in_place"] == {}


def test_what_is_bound_while_a_refresh_compares_is_not_overwritten(
    start: Callable[..., Worker], monkeypatch: Any
) -> None:
    first, second = (start(STORE_ON_CONFLICT="ignore").share("WORDS") for _ in range(2))
    second.legacy.WORDS = collections.Counter("second")
    second.state.sync()
    fingerprint, mine = value_name.fingerprint, collections.Counter("first")

    def compared(value: Any) -> bytes:
        monkeypatch.undo()
        first.legacy.WORDS = mine
        return fingerprint(value)

    monkeypatch.setattr(value_name, "fingerprint", compared)
    first.state._shared_globals.refresh()
    assert first.legacy.WORDS is mine
    assert (first.read("WORDS"), second.read("WORDS")) == (mine, mine)


def test_a_dict_may_be_shared_as_a_value(start: Callable[..., Worker]) -> None:
    first, second = (start().share(DATA=SharedValue) for _ in range(2))
    first.request("replace", {"a": [1]}, [], set())
    with second.state.request():
        assert isinstance(second.legacy.DATA, dict)
        second.legacy.DATA["a"].append(2)
    assert first.read("DATA") == {"a": [1, 2]}
