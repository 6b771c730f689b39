"""Stores on a real server, and a proxy that loses what goes through it."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask_globalstate.stores.redis import scripts
from tests.support import PATIENCE


class Proxy:
    """Stands between a store and its server, and loses what it is told to lose.

    :param port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        #: what to do with the next requests for a script
        self.plan: Iterator[str] = iter(())
        self.script = b""
        self.requests = 0
        #: requests that were held back, each with the way to the server
        self.held: list[tuple[socket.socket, bytes]] = []
        self._sockets: list[socket.socket] = []
        #: the ways to the server that `release` closes, perhaps before the thread that has held one back ends
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def lose(self, script: scripts.Script, *plan: str) -> None:
        """What to do with the next requests for a script.

        :param plan: ``pass``, ``lose request``, ``lose answer``, ``spoil answer``, or ``hold`` until
            `release`.
        """
        self.script, self.plan = hashlib.sha1(script.text).hexdigest().encode(), iter(plan)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            thread = threading.Thread(target=self._relay, args=(client, server))
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while self._pass_on(client, server):
                pass
        except (OSError, ValueError):
            pass  # One of them is closed.
        finally:
            client.close()
            if server not in self._kept:
                server.close()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        for source in select.select([client, server], [], [])[0]:
            data = source.recv(1_000_000)
            if not data:
                return False
            if source is server:
                client.sendall(data)
                continue
            self.requests += 1
            action = next(self.plan, "pass") if self.script in data else "pass"
            if action == "lose request":
                return False
            if action == "hold":
                self._kept.append(server)
                self.held.append((server, data))
                client.recv(1)  # Until the client has given up.
                return False
            server.sendall(data)
            if action == "lose answer":
                assert server.recv(1_000_000)
                return False
            if action == "spoil answer":
                assert server.recv(1_000_000)
                client.sendall(b"\0 is not Redis\r\n")
        return True

    def release(self) -> bytes:
        """Send what was held back, and give the answer that nobody waits for."""
        server, data = self.held.pop()
        with server:
            server.sendall(data)
            return server.recv(1_000_000)

    def close(self) -> None:
        """End every connection and thread."""
        for end in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, not for time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
