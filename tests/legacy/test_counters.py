"""Module globals that are numbers: every worker's increments count."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import GlobalState, SharedCounter
from tests.support.legacy_modules import Worker, module
from tests.support.threads import run_threads


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
