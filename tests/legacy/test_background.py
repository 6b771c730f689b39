"""What is published and refreshed where no request does it."""

from __future__ import annotations

import contextvars
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_globalstate import GlobalState, SharedCounter, StoreUnavailableError, gunicorn
from flask_globalstate.replicas.requests import live
from flask_globalstate.state import requests
from flask_globalstate.state.background import Background, background
from tests.support.legacy_modules import Worker
from tests.support.processes import wait_for

Start = Callable[..., Worker]


@pytest.fixture
def pair(start: Start, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Worker]:
    """Two workers without a thread: a test looks itself."""
    monkeypatch.setattr(requests, "background", SimpleNamespace(carry=lambda task: None))
    one, other = (start(STORE_BACKGROUND_INTERVAL=1).share("THEME", HITS=SharedCounter) for _ in range(2))
    return one, other


def look(worker: Worker) -> None:
    """Look outside of the request that the test may have begun."""
    contextvars.Context().run(worker.state._shared_globals.look)


def test_a_look_publishes_and_refreshes(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    one.legacy.set_theme("light")
    one.legacy.hit()
    look(one)
    look(other)
    assert (other.legacy.THEME, other.legacy.HITS) == ("light", 1)


def test_a_request_that_has_just_begun_does_it_itself(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    request = one.state.begin_request()
    one.legacy.set_theme("half done")
    look(one)
    assert other.read("THEME") == "dark"
    one.legacy.set_theme("done")
    one.state.end_request(request)
    assert other.read("THEME") == "done"


def test_a_request_that_still_runs_at_the_second_look_is_not_waited_for(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    request = one.state.begin_request()
    look(one)
    one.legacy.set_theme("light")
    one.legacy.hit()
    look(one)
    assert (other.read("THEME"), other.read("HITS")) == ("light", 1)
    one.state.end_request(request)
    assert other.read("HITS") == 1


def test_a_number_is_not_refreshed_under_a_request_that_has_read_it(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    request = one.state.begin_request()
    look(one)
    number = one.legacy.HITS
    other.request("hit")
    other.request("set_theme", "light")
    look(one)
    assert one.legacy.THEME == "light"
    one.legacy.HITS = number + 1
    one.state.end_request(request)
    assert other.read("HITS") == 2


def test_a_look_leaves_no_reader_behind(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    other.request("set_theme", "light")
    before = set(live)
    one.legacy.hit()
    look(one)
    assert one.legacy.THEME == "light"
    assert set(live) == before


def test_nothing_is_done_with_an_interval_of_0(start: Start) -> None:
    worker = start(STORE_BACKGROUND_INTERVAL=0).share("THEME")
    worker.legacy.set_theme("light")
    look(worker)
    assert start().share("THEME").read("THEME") == "dark"


def test_a_state_without_a_store_has_nothing_to_look_at() -> None:
    GlobalState()._shared_globals.look()


@pytest.fixture
def threaded(start: Start) -> Iterator[tuple[Worker, Worker]]:
    """Two workers, of which the first has a thread as soon as it serves."""
    one, other = (start(STORE_BACKGROUND_INTERVAL=i).share("THEME") for i in (0.01, 0))
    yield one, other
    one.state._names.bind(None)
    wait_for(lambda: background._thread is None, "the end of the thread, which has nothing to do")


def test_the_first_request_begins_a_thread(threaded: tuple[Worker, Worker]) -> None:
    one, other = threaded
    assert background._thread is None
    assert one.read("THEME") == "dark"
    one.legacy.set_theme("light")
    wait_for(lambda: other.read("THEME") == "light", "what was bound outside of requests")
    other.request("set_theme", "new")
    wait_for(lambda: one.legacy.THEME == "new", "a refresh outside of requests")


def test_the_hook_of_a_worker_begins_it(threaded: tuple[Worker, Worker]) -> None:
    one, other = threaded
    gunicorn.post_worker_init(None)
    one.legacy.set_theme("light")
    wait_for(lambda: other.read("THEME") == "light", "what was bound without any request")


def test_the_hook_of_a_master_publishes_and_keeps_nothing_open(start: Start) -> None:
    worker = start().share("THEME")
    worker.legacy.set_theme("light")
    gunicorn.pre_fork(None, None)
    assert background._thread is None
    assert start().share("THEME").read("THEME") == "light"


class Task:
    """Fails as it is told."""

    def __init__(self, interval: float = 0.001) -> None:
        self.interval = interval
        self.errors: list[Exception | None] = []
        self.looks = 0

    def look(self) -> None:
        self.looks += 1
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error


def looks(task: Task, number: int) -> None:
    until = task.looks + number
    wait_for(lambda: task.looks >= until, "looks")


def test_an_error_is_told_once_and_again_after_a_success(caplog: pytest.LogCaptureFixture) -> None:
    carrier, task = Background(), Task()
    down = [StoreUnavailableError(f"down since {seconds} s") for seconds in range(3)]
    task.errors = [*down, ValueError("bad"), ValueError("bad"), None, ValueError("bad")]
    with caplog.at_level(logging.WARNING):
        carrier.carry(task)
        looks(task, 9)
    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert told == ["down since 0 s", "bad", "bad"]


def test_the_thread_ends_with_its_last_task() -> None:
    carrier = Background()
    one, other = Task(), Task()
    carrier.carry(one)
    carrier.carry(other)
    thread = carrier._thread
    looks(one, 2)
    looks(other, 2)
    assert carrier._thread is thread is not None
    gone = weakref.ref(one)
    del one
    wait_for(lambda: gone() is None, "the end of a task that nobody refers to")
    other.interval = 0
    wait_for(lambda: not thread.is_alive(), "the end of the thread")
    other.interval = 0.001
    carrier.carry(other)
    looks(other, 2)
    other.interval = 0


def test_no_thread_for_an_interval_of_0() -> None:
    carrier, task = Background(), Task(0)
    carrier.carry(task)
    assert carrier._thread is None


def test_an_interval_may_be_longer_than_a_thread_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    carrier, task = Background(), Task(float("inf"))
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        task.interval = 0

    monkeypatch.setattr(carrier, "_thread", threading.current_thread())
    monkeypatch.setattr(threading, "Event", lambda: SimpleNamespace(wait=wait))
    carrier.carry(task)
    carrier._run()
    assert waited == [threading.TIMEOUT_MAX]


def test_a_thread_that_cannot_be_started_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the interpreter, or where a process has no more threads."""

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    carrier, task = Background(), Task()
    with monkeypatch.context() as broken:
        broken.setattr(threading, "Thread", lambda **named: SimpleNamespace(start=fail))
        carrier.carry(task)
    carrier.carry(task)
    looks(task, 1)
    task.interval = 0


def test_a_forked_child_has_no_thread_until_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    fake = SimpleNamespace(start=lambda: begun.append(1))
    monkeypatch.setattr(threading, "Thread", lambda **named: fake)
    carrier, task = Background(), Task()
    carrier.carry(task)
    carrier.carry(task)
    assert len(begun) == 1
    carrier.after_fork()
    assert carrier._thread is None
    carrier.carry(task)
    assert len(begun) == 2


def test_the_thread_is_part_of_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greenlet begins in the context of whoever has made it."""
    made: list[Any] = []
    monkeypatch.setattr(
        threading, "Thread", lambda target, args, **named: made.append(target) or SimpleNamespace(start=int)
    )
    Background().carry(Task())
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("of a request")
    assert made[0](variable.get) == "none"
