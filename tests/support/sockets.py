"""Websockets to the workers of `long_app` or `asgi_apps`, and what they must see."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from websockets.sync.client import ClientConnection, unix_connect

from flask_globalstate.system.clock import now
from tests.support import PATIENCE
from tests.support.harness import Server
from tests.support.processes import wait_for

#: in each of which one worker writes, and another one looks until it sees that
ROUNDS = 20


class OfAWorker(Protocol):
    """Something that knows its worker.

    :ivar pid: the worker.
    """

    pid: int


S = TypeVar("S", bound=OfAWorker)


class Socket:
    """A websocket to whichever worker takes it.

    :ivar pid: the worker.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.pid = self._hear()

    def look(self) -> tuple[float, int]:
        """When the worker looked, and the number that it saw."""
        at, number, *_ = self._ask(None)
        return at, number

    def set(self, number: int) -> None:
        """Let it write a number."""
        self._ask(number)

    def _ask(self, message: int | None) -> Any:
        self._connection.send(json.dumps(message))
        return self._hear()

    def _hear(self) -> Any:
        return json.loads(self._connection.recv(PATIENCE))


@contextlib.contextmanager
def to_both_workers(server: Server, kind: Callable[[ClientConnection], S], address: str) -> Iterator[list[S]]:
    """What is made of a websocket to each of two workers."""
    met: dict[int, S] = {}
    with contextlib.ExitStack() as stack:

        def meet() -> bool:
            with contextlib.ExitStack() as opening:
                connection = unix_connect(str(server.socket), address, open_timeout=PATIENCE)
                made = kind(opening.enter_context(connection))
                if made.pid not in met:
                    met[made.pid] = made
                    stack.push(opening.pop_all())
            return len(met) == 2

        wait_for(meet, "a websocket to each worker")
        yield list(met.values())


def sockets_to_both_workers(server: Server) -> AbstractContextManager[list[Socket]]:
    """A websocket to each of two workers."""
    return to_both_workers(server, Socket, "ws://localhost/socket")


def require_fresh(one: Socket, other: Socket, max_staleness: float) -> None:
    """Fail unless each sees what the other's worker has written so many seconds ago, and never goes back."""
    before = 0
    for number in range(1, ROUNDS + 1):
        writer, reader = (one, other) if number % 2 else (other, one)
        writer.set(number)
        acknowledged = now()
        seen = -1
        while seen != number:
            at, seen = reader.look()
            assert seen >= before, "a read went back"
            assert seen == number or at - acknowledged < max_staleness, "a read was too old"
        before = number
