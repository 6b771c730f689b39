"""Writers that are stopped in the middle of a commit, and what others may conclude of them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate import GlobalState
from flask_globalstate.stores.base import Write
from tests.support.actors import in_child
from tests.support.processes import servers, supervisors, the_server, wait_for
from tests.support.writers import is_remembered, number_in_store, reading_state


def stop() -> None:
    """Where the process stands still until it is told to go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def stopping(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; afterwards the process stops, the first time."""
    is_new = True

    def call_and_stop(*arguments: Any, **options: Any) -> Any:
        nonlocal is_new
        answer = function(*arguments, **options)
        if is_new:
            is_new = False
            stop()
        return answer

    return call_and_stop


def losing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but its answer doesn't come."""

    def call_and_fail(*arguments: Any, **options: Any) -> Any:
        function(*arguments, **options)
        raise redis.ConnectionError("lost by the test")

    return call_and_fail


class StoppingWriter:
    """A process that counts one hit, and stops when it has begun, when it has sent, and at the answer.

    :param loses_answer: whether the connection is lost instead of the answer.
    :ivar slot: where it counts its commits.
    """

    def __init__(self, state: GlobalState, loses_answer: bool = False) -> None:
        self._loses_answer = loses_answer
        reading, writing = os.pipe()
        self._pid = in_child(self._count, state, writing)
        os.close(writing)
        with open(reading) as pipe:
            self.slot = int(pipe.readline())
        self.is_over = False
        self.wait()

    def _count(self, state: GlobalState, pipe: int) -> None:
        store: Any = state.store
        # Claims a slot, and names the connection.
        store.commit([Write("OTHER", "a", b"1i")])
        os.write(pipe, b"%d\n" % store._watch.seqcount.slot)
        os.close(pipe)
        store._watch.seqcount.begin = stopping(store._watch.seqcount.begin)
        connection = store._sessions.idle[-1].connection
        connection.send_packed_command = stopping(connection.send_packed_command)
        connection.read_response = stopping(connection.read_response)
        if self._loses_answer:
            connection.read_response = losing(connection.read_response)
        assert state.counter("HITS").increment() == 6

    def wait(self) -> None:
        """Return when it stands still, or has ended."""

        def is_still() -> bool:
            pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
            if pid and not os.WIFSTOPPED(status):
                self.is_over = True
                assert os.waitstatus_to_exitcode(status) == 0
            return pid != 0

        wait_for(is_still, "a stop of the writer")

    def go_on(self) -> None:
        """Let it run to its next stop, or to its end."""
        os.kill(self._pid, signal.SIGCONT)
        self.wait()

    def kill(self) -> None:
        """End it, wherever it stands."""
        if not self.is_over:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def kill_connections(store: Any, slot: int, path: Path) -> None:
    """What whoever takes it for dead would do."""
    store._fence(slot)


def kill_server(store: Any, slot: int, path: Path) -> None:
    """Let its server be another one."""
    old = the_server(path)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: servers(path) not in ([], [old]), "another server")


def kill_server_and_supervisor(store: Any, slot: int, path: Path) -> None:
    """Let there be no server until somebody starts one."""
    for pid in supervisors(path) + servers(path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not servers(path), "the end of the server")


WAYS_TO_GIVE_UP: dict[str, Callable[[Any, int, Path], None]] = {
    "nothing": lambda store, slot, path: None,
    "its answer": lambda store, slot, path: None,
    "its connection": kill_connections,
    "its server": kill_server,
    "server and supervisor": kill_server_and_supervisor,
}


@pytest.mark.parametrize("when", range(3), ids=["begun", "sent", "answered"])
@pytest.mark.parametrize("what", WAYS_TO_GIVE_UP)
def test_readers_are_right_beside_a_stopped_writer_which_counts_once_when_it_goes_on(
    tmp_path, state, what, when
):
    other = reading_state(tmp_path)
    counters = [reader.counter("HITS") for reader in (state, other)]
    assert all(map(is_remembered, counters))
    last = 5

    def read() -> None:
        nonlocal last
        for reader, counter in zip((state, other), counters, strict=True):
            least = number_in_store(reader)
            value = counter.value
            assert last <= least <= value <= number_in_store(reader)
            last = value

    writer = StoppingWriter(state, loses_answer=what == "its answer")
    try:
        for stop_number in range(3):
            if writer.is_over:
                break
            for _ in range(3):
                read()
                assert not any(map(is_remembered, counters)), "it was taken for dead"
            assert not state.store._watch.seqcount.repair(writer.slot, pytest.fail)
            if stop_number == when:
                WAYS_TO_GIVE_UP[what](state.store, writer.slot, tmp_path / "store")
                read()
                assert not any(map(is_remembered, counters)), "it was taken for dead"
            writer.go_on()
            read()
        while not writer.is_over:
            writer.go_on()
    finally:
        writer.kill()
        other.close()
    assert number_in_store(state) == counters[0].value == 6
    assert is_remembered(counters[0])
