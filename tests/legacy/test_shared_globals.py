"""share_globals: globals of modules that know nothing of it, in one process; two states are two workers."""

from __future__ import annotations

import json
import operator
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g
from werkzeug.test import Client, create_environ
from werkzeug.wrappers import Response

from flask_globalstate import (
    ConfigurationError,
    ConflictError,
    GlobalState,
    GlobalStateMiddleware,
    SharedCounter,
    SharedDict,
    SharedList,
    SharedValue,
    StoreUnavailableError,
)
from flask_globalstate.replicas.requests import request_here, running_requests
from tests.support.legacy_modules import CONTAINERS, Worker, module
from tests.support.threads import run_threads

# --- containers that are bound again --------------------------------------------------------------


def test_a_container_that_the_code_binds_again_replaces_the_shared_one(start: Callable[..., Worker]) -> None:
    first, second = (start().share(*CONTAINERS) for _ in range(2))
    proxies = [getattr(first.legacy, name) for name in CONTAINERS]
    before = first.state.store.revision("legacy.DATA").number
    assert second.read("DATA")["n"] == 0
    after = first.state.store.revision("legacy.DATA").number
    first.request("replace", {"n": 5, "new": [1]}, ["x"], set())
    assert [getattr(first.legacy, name) for name in CONTAINERS] == proxies
    assert all(
        a is b for a, b in zip(proxies, [first.legacy.DATA, first.legacy.LOG, first.legacy.TAGS], strict=True)
    )
    assert before <= after
    assert second.read("DATA") == {"n": 5, "new": [1]}
    assert (second.read("LOG"), second.read("TAGS")) == (["x"], set())


def test_binding_a_container_again_is_one_commit(start: Callable[..., Worker]) -> None:
    worker = start().share("DATA")
    assert len(worker.legacy.DATA) == 2
    before = worker.state.store.revision("legacy.DATA").number
    worker.request("replace", {"n": 5, "x": 1, "y": 2}, [], set())
    assert worker.state.store.revision("legacy.DATA").number == before + 1
    worker.request("replace", {}, [], set())
    assert worker.state.store.revision("legacy.DATA").number == before + 2
    assert worker.legacy.DATA == {}


def test_what_another_thread_puts_into_a_container_while_it_is_published_is_published_too(
    state: GlobalState, monkeypatch: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    mine: dict[str, Any] = {"n": 1, "inner": []}
    commit = state.store.commit

    def slow(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        answer = commit(*arguments, **named)
        mine["later"] = 2
        mine["inner"].append(3)
        return answer

    assert legacy.DATA["n"] == 0
    monkeypatch.setattr(state.store, "commit", slow)
    legacy.DATA = mine
    state.publish_globals()
    assert legacy.DATA == {"n": 1, "inner": [3], "later": 2}
    assert type(legacy.DATA) is SharedDict


def test_a_container_of_which_others_have_changed_the_shared_one_is_dropped_if_conflicts_raise(
    start: Callable[..., Worker],
) -> None:
    first, second = (start(STORE_ON_CONFLICT="raise").share("LOG") for _ in range(2))
    first.state.begin_request()
    first.legacy.LOG = [*first.legacy.LOG, "first"]
    second.request("mutate")
    with pytest.raises(ConflictError):
        first.state.publish_globals()
    assert type(first.legacy.LOG) is SharedList
    assert first.read("LOG") == ["started", "mutated"]


def test_what_was_made_of_the_shared_one_may_be_bound_again(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, *CONTAINERS)
    with state.request():
        legacy.replace(dict(legacy.DATA, n=9), operator.add(legacy.LOG, ["x"]), legacy.TAGS | {"z"})
    with state.request():
        legacy.replace(legacy.DATA, legacy.LOG[-1:], {tag for tag in legacy.TAGS if tag > "a"})
    assert legacy.DATA == {"users": {"ann": [{"id": 1}]}, "n": 9}
    assert legacy.LOG == ["x"]
    assert set(legacy.TAGS) == {"z"}
    assert type(legacy.LOG) is SharedList
    legacy.DATA["users"]["ann"].append(1)
    assert legacy.DATA["users"]["ann"] == [{"id": 1}, 1]


BOTH = """
OLD, NEW, LAST = {"old": 1}, {"new": 2}, None
ROWS, ARCHIVE = [1], {}


def swap():
    global OLD, NEW
    OLD, NEW = NEW, OLD


def turn():
    global OLD, LAST
    LAST, OLD = OLD, {}


def archive():
    global NEW, ROWS
    ARCHIVE["rows"], ARCHIVE["new"] = ROWS, NEW
    NEW, ROWS = {}, []


def wrap():
    global OLD
    OLD = {"before": OLD, "rows": [ROWS]}
"""


@pytest.mark.parametrize(
    "calls",
    [["swap"], ["turn"], ["archive"], ["wrap"], ["wrap", "wrap"], ["swap", "turn", "archive", "wrap"]],
)
def test_code_that_binds_one_shared_global_to_the_name_of_another_does_what_it_does_to_plain_ones(
    state: GlobalState, calls: list[str]
) -> None:
    names = ("OLD", "NEW", "LAST", "ROWS", "ARCHIVE")
    plain, shared = module("plain", BOTH), module("shared", BOTH)
    state.share_globals(shared, *names)
    for call in calls:
        getattr(plain, call)()
        with state.request():
            getattr(shared, call)()
    found = {name: vars(shared)[name] for name in names}
    assert json.loads(json.dumps(found, default=lambda proxy: proxy._unwrap())) == {
        name: vars(plain)[name] for name in names
    }


@pytest.mark.parametrize("kinds", [{}, {"OTHER": SharedValue}])
def test_two_names_of_one_container_are_refused(state: GlobalState, kinds: Any) -> None:
    legacy = module(source="DATA = OTHER = {}\nN = M = 1\n")
    names = {"DATA", "OTHER"} - set(kinds)
    with pytest.raises(ConfigurationError, match="is the same object as 'DATA', and is shared with that"):
        state.share_globals(legacy, *sorted(names), "N", "M", **kinds)
    assert legacy.DATA is legacy.OTHER
    state.share_globals(legacy, "DATA", N=SharedCounter, M=SharedCounter)
    legacy.OTHER["a"] = 1
    assert state.dict("legacy.DATA") == {"a": 1}
    assert legacy.DATA is legacy.OTHER


def test_another_shared_container_may_be_bound_to_the_name(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    mine = state.dict("MINE", initial={"a": [1]})
    with state.request():
        legacy.replace(mine, [], set())
    assert legacy.DATA == {"a": [1]}
    assert legacy.DATA is not mine


@pytest.mark.parametrize("other", [None, [1], "text"])
def test_a_container_that_becomes_something_else_is_an_error_and_the_shared_one_comes_back(
    state: GlobalState, other: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    state.begin_request()
    legacy.DATA = other
    with pytest.raises(TypeError, match=r"legacy\.DATA is shared as a SharedDict"):
        state.publish_globals()
    assert type(legacy.DATA) is SharedDict
    assert legacy.DATA["n"] == 0


def test_a_name_that_is_deleted_comes_back(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA", "THEME", HITS=SharedCounter)
    with state.request():
        del legacy.DATA, legacy.THEME, legacy.HITS
    with state.request():
        assert legacy.DATA["n"] == 0
        assert (legacy.THEME, legacy.HITS) == ("dark", 0)


# --- scalars that are counted ---------------------------------------------------------------------


def test_every_workers_increments_count(start: Callable[..., Worker]) -> None:
    workers = [start().share(HITS=SharedCounter) for _ in range(3)]
    for turn in range(10):
        workers[turn % 3].request("hit", turn)
    assert [worker.read("HITS") for worker in workers] == [45, 45, 45]
    assert workers[0].state.counter("legacy.HITS").value == 45


def test_requests_of_two_workers_that_overlap_lose_no_increment(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    with first.state.request():
        first.legacy.hit(1)
        second.request("hit", 10)
        assert first.legacy.HITS == 1
        first.legacy.hit(100)
    assert first.legacy.HITS == 111
    assert second.read("HITS") == 111


def test_a_refresh_adds_what_others_added_and_keeps_what_is_not_published(
    start: Callable[..., Worker],
) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    with first.state.request():
        first.legacy.hit(1)
        second.request("hit", 10)
        # Another request of the same worker begins, and ends.
        first.request("hit", 100)
        assert first.legacy.HITS == 111
    assert second.read("HITS") == 111


def test_setting_it_back_takes_away_what_this_worker_knew_of(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    first.request("hit", 5)
    with second.state.request():
        second.legacy.reset()
        first.request("hit", 2)
    assert (first.read("HITS"), second.read("HITS")) == (2, 2)


@pytest.mark.parametrize("other", [None, "5", 1.5, True])
def test_a_counter_that_becomes_something_else_is_an_error_and_the_number_comes_back(
    state: GlobalState, other: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, HITS=SharedCounter)
    with pytest.raises(TypeError, match=r"legacy\.HITS is shared as a SharedCounter"), state.request():
        legacy.HITS = other
    assert legacy.HITS == 0
    with state.request():
        legacy.hit()
    assert state.counter("legacy.HITS").value == 1


def test_a_request_that_counts_nothing_writes_nothing(start: Callable[..., Worker]) -> None:
    worker = start().share("THEME", "DATA", HITS=SharedCounter)
    worker.request("hit", 1)
    names = [f"legacy.{name}" for name in ("THEME", "DATA", "HITS")]
    before = worker.state.store.revisions(names)
    worker.request("hit", 0)
    worker.request("set_theme", "".join(["da", "rk"]))
    assert worker.state.store.revisions(names) == before


@pytest.mark.usefixtures("threads_are_switched_often")
def test_threads_of_two_workers_lose_no_increment(start: Callable[..., Worker]) -> None:
    workers = [start().share(HITS=SharedCounter) for _ in range(2)]

    def serve(worker: Worker) -> None:
        for _ in range(40):
            worker.request("hit", 50)

    run_threads(*[lambda worker=worker: serve(worker) for worker in workers for _ in range(3)])
    assert [worker.read("HITS") for worker in workers] == [2 * 3 * 40 * 50] * 2


@pytest.mark.usefixtures("threads_are_switched_often")
def test_increments_that_run_during_refreshes_and_publishing_are_not_lost() -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    others = state.counter("legacy.HITS")
    syncing, rounds, counted = 2, 400, 0
    ended: list[bool] = []

    def count() -> None:
        nonlocal counted
        while len(ended) < syncing:
            legacy.hit(100)
            counted += 100

    def sync() -> None:
        try:
            for _ in range(rounds):
                others.increment()
                state.sync()
        finally:
            ended.append(True)

    run_threads(count, *[sync] * syncing)
    state.sync()
    assert legacy.HITS == others.value == counted + rounds * syncing


def meanwhile(function: Callable[[], None]) -> None:
    """Let another thread do something, unless it has to wait until this one goes on."""
    thread = threading.Thread(target=function)
    thread.start()
    # There is no condition to wait for: that it waits is what is wanted.
    thread.join(0.2)


def test_two_threads_do_not_publish_the_same_increment(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    increment = state.store.increment
    meanwhiles = [lambda: meanwhile(state.publish_globals)]

    def slow(*arguments: Any) -> Any:
        if meanwhiles:
            meanwhiles.pop()()
        return increment(*arguments)

    monkeypatch.setattr(state.store, "increment", slow)
    legacy.hit(5)
    state.publish_globals()
    state.sync()
    assert legacy.HITS == state.counter("legacy.HITS").value == 5


def test_a_refresh_takes_back_nothing_that_another_thread_publishes_meanwhile(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    legacy.hit(5)
    plain = SharedCounter._unwrap
    meanwhiles = [lambda: meanwhile(state.publish_globals)]

    def slow(self: SharedCounter) -> int:
        number = plain(self)
        if meanwhiles:
            meanwhiles.pop()()
        return number

    monkeypatch.setattr(SharedCounter, "_unwrap", slow)
    state.begin_request()
    assert legacy.HITS == 5


def test_a_forked_child_does_not_publish_what_its_parent_will(start: Callable[..., Worker]) -> None:
    worker = start().share("THEME", HITS=SharedCounter)
    worker.request("hit", 1)
    worker.legacy.hit(10)
    worker.legacy.set_theme("light")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            worker.request("hit", 100)
            code = 0 if worker.legacy.HITS == 101 and worker.legacy.THEME == "dark" else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert worker.state.counter("legacy.HITS").value == 101
    worker.state.sync()
    assert worker.legacy.HITS == 111
    assert worker.state.value("legacy.THEME").value == "light"


# --- when it is published -------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Flask, Any, GlobalState]]:
    """An application, its module whose HITS and THEME are shared, and another worker's state."""
    app = Flask("app")
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    app.config.update(settings)
    # Before ours, as a legacy application has them.
    app.after_request(lambda response: [legacy.hit(), response][1])
    app.teardown_request(lambda error: legacy.hit(100) if "late" in g else None)
    state = GlobalState(app)
    legacy = module()
    state.share_globals(legacy, "DATA", "THEME", HITS=SharedCounter)
    other = GlobalState.from_config(settings)
    yield app, legacy, other
    state.close()
    other.close()


def test_it_is_published_before_the_response_leaves(served: Any) -> None:
    app, legacy, other = served
    seen: list[Any] = []
    app.after_request(lambda response: [legacy.hit(10), response][1])

    @app.get("/")
    def index() -> str:
        legacy.hit(1000)
        legacy.set_theme("light")
        legacy.replace({"n": 1}, [], set())
        return str(legacy.HITS)

    def start_response(status: str, headers: Any) -> Any:
        seen.append([other.counter("legacy.HITS").value, other.value("legacy.THEME").value])
        seen.append(other.dict("legacy.DATA").copy())
        return lambda data: None

    for turn in (1, 2):
        body = app.wsgi_app(create_environ("/"), start_response)
        assert b"".join(body) == str((turn - 1) * 1011 + 1000).encode()
        assert seen[-2:] == [[turn * 1011, "light"], {"n": 1}]


def test_what_comes_after_the_response_is_published_at_the_end_of_the_request(served: Any) -> None:
    app, _, other = served

    @app.get("/")
    def index() -> str:
        g.late = True
        return "fine"

    app.test_client().get("/")
    assert other.counter("legacy.HITS").value == 101


def test_what_a_view_did_before_it_failed_is_published(served: Any) -> None:
    app, legacy, other = served

    @app.get("/")
    def index() -> str:
        legacy.set_theme("light")
        legacy.hit(5)
        raise ValueError("x")

    assert app.test_client().get("/").status_code == 500
    assert (other.counter("legacy.HITS").value, other.value("legacy.THEME").value) == (6, "light")
    app.testing = True
    with pytest.raises(ValueError, match="x"):
        app.test_client().get("/")
    assert other.counter("legacy.HITS").value == 11


def test_a_request_sees_what_others_have_published(served: Any) -> None:
    app, legacy, other = served
    app.add_url_rule("/", view_func=lambda: f"{legacy.HITS} {legacy.THEME}")
    client = app.test_client()
    assert client.get("/").text == "0 dark"
    other.counter("legacy.HITS").increment(10)
    other.value("legacy.THEME").value = "light"
    assert client.get("/").text == "11 light"


def test_a_request_whose_changes_cannot_be_published_fails(served: Any, monkeypatch: Any) -> None:
    app, _, other = served
    app.add_url_rule("/", view_func=lambda: "fine")
    client = app.test_client()
    assert client.get("/").status_code == 200

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as broken:
        broken.setattr(app.extensions["globalstate"].store, "increment", fail)
        with pytest.raises(StoreUnavailableError):
            client.get("/")
    # What it had counted is not lost: Flask calls what comes after a view for the page of the error too.
    assert client.get("/").status_code == 200
    assert other.counter("legacy.HITS").value == 1 + 2 + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreUnavailableError], ids=["cut-short", "not-known"])
def test_what_may_have_been_counted_is_not_counted_again(served: Any, monkeypatch: Any, error: Any) -> None:
    app, legacy, other = served
    app.add_url_rule("/", view_func=lambda: str(legacy.HITS))
    state = app.extensions["globalstate"]
    real = state.store.increment

    def count_and_fail(*arguments: Any) -> Any:
        real(*arguments)
        failure = error("the answer was not heard")
        failure.may_be_written = True
        raise failure

    legacy.HITS += 3
    with monkeypatch.context() as broken:
        broken.setattr(state.store, "increment", count_and_fail)
        with pytest.raises(error):
            state.publish_globals()
    state.publish_globals()
    assert other.counter("legacy.HITS").value == 3
    assert legacy.HITS == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THEME", lambda: None),
        ("DATA", {"a": lambda: None}),
        ("DATA", {frozenset(): 1}),
        ("LOG", [lambda: None]),
    ],
)
def test_what_can_never_be_published_fails_one_request(served: Any, name: str, value: Any) -> None:
    app, legacy, _ = served
    app.extensions["globalstate"].share_globals(legacy, "LOG")
    app.add_url_rule("/", view_func=lambda: setattr(legacy, name, value) or "", endpoint="bind")
    app.add_url_rule("/read", view_func=lambda: repr(getattr(legacy, name)), endpoint="read")
    client = app.test_client()
    before = client.get("/read").text
    assert client.get("/").status_code == 500
    assert client.get("/read").text == before
    legacy.hit(1)
    assert client.get("/read").status_code == 200


def test_a_request_that_cannot_begin_is_over(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(SharedCounter, "_unwrap", fail)
    with pytest.raises(StoreUnavailableError):
        state.begin_request()
    assert request_here() is None
    assert not running_requests()


def test_the_middleware_publishes_when_the_application_has_answered_and_at_the_end(tmp_path: Path) -> None:
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    state, other = GlobalState.from_config(settings), GlobalState.from_config(settings)
    legacy = module()
    state.share_globals(legacy, HITS=SharedCounter)
    shared = other.counter("legacy.HITS")

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        legacy.hit(1)

        def body() -> Iterator[bytes]:
            yield str(shared.value).encode()
            legacy.hit(10)

        return body()

    for turn in (1, 2):
        with Client(GlobalStateMiddleware(application, state), Response).get("/") as response:
            assert response.text == str(11 * turn - 10)
        assert shared.value == 11 * turn
    state.close()
    other.close()


def test_the_middleware_closes_a_response_that_cannot_be_published(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    closed: list[bool] = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def application(environ: Any, start_response: Any) -> Body:
        legacy.hit()
        return Body()

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(state.store, "increment", fail)
    with pytest.raises(StoreUnavailableError):
        Client(GlobalStateMiddleware(application, state), Response).get("/")
    assert closed == [True]


def test_sync_publishes_and_refreshes_without_a_request(start: Callable[..., Worker]) -> None:
    first, second = (start().share("THEME", "DATA", HITS=SharedCounter) for _ in range(2))
    first.legacy.hit(3)
    first.legacy.set_theme("light")
    first.legacy.replace({"n": 7}, [], set())
    first.state.sync()
    second.legacy.hit(4)
    second.state.sync()
    assert (second.legacy.HITS, second.legacy.THEME, second.legacy.DATA) == (7, "light", {"n": 7})


def test_a_transaction_that_fails_takes_nothing_from_a_counter(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))

    @first.state.transactional
    def fail() -> None:
        first.legacy.hit(3)
        first.state.sync()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    first.state.sync()
    assert second.read("HITS") == first.read("HITS") == 3


def test_in_a_transaction_nothing_is_published_before_its_end(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    with first.state.request(), first.state.transaction():
        first.legacy.hit(3)
        first.state.sync()
        assert second.read("HITS") == 0
    assert second.read("HITS") == 3
