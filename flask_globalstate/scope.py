"""The scope of a request: what was brought up to date at its start, and what it has read since.

What a request has read is noted, so that a write that depends on it can be checked, and so that a change
in place of what it was handed can be found. A hit must cost nothing for that: so what a request that runs
alone in its process has read is what stands in `flask_globalstate.held.Values`, and that is all the note.
While several run, every read is noted for the request that reads.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from .access import Access
from .stores.base import Store

#: in place of the number of a commit: the key was absent
NONE = 0


class Reads:
    """What a request has read of a name: the number of the commit that had last changed each key."""

    def __init__(self, epoch: str | None) -> None:
        self.epoch = epoch
        self.numbers: dict[Any, int] = {}


class Request:
    """The scope in which reads need not be checked again: all was brought up to date at its start.

    It ends by a flag and not by leaving its context, since contexts are copied to other threads.

    :param examined: whether what it is handed is compared at its end with what it was.
    """

    __slots__ = ("__weakref__", "examined", "fresh_stores", "handed_out", "over", "reads", "states")

    def __init__(self, *, examined: bool = False) -> None:
        self.fresh_stores: set[Store] = set()
        self.over = False
        #: the states that have begun it and not ended it; the last one to leave ends it
        self.states: list[Any] = []
        self.reads: dict[Access, Reads] = {}
        self.examined = examined
        #: of replica and key: the number and the encoding of what was handed out
        self.handed_out: dict[tuple[Any, Any], tuple[int, bytes]] = {}

    def begin(self) -> None:
        """Be one of the running requests."""
        # In this order, so that of two that begin together neither believes to be alone.
        running.add(self)
        lone.request = self
        if self.examined or len(running) > 1:
            lone.request = CROWD

    def end(self) -> None:
        """From now on reads are checked again."""
        self.over = True
        running.discard(self)
        if not running:
            lone.request = None
            if running:
                lone.request = CROWD  # Another one has begun in between, and could not know.
        if current_request.get() is self:
            current_request.set(None)
        self.fresh_stores.clear()
        if self.reads:
            self.reads.clear()
        if self.handed_out:
            self.handed_out.clear()

    def examine(self) -> None:
        """Find what was changed in place of what it was handed, by any state."""
        while self.handed_out:
            (replica, key), handed = self.handed_out.popitem()
            replica.examine(key, *handed)

    def reads_of(self, replica: Access, epoch: str | None) -> Reads:
        """What it has read of a name in this epoch; what was of another one is forgotten."""
        reads = self.reads.get(replica)
        if reads is None or reads.epoch != epoch:
            reads = self.reads[replica] = Reads(epoch)
        return reads


class Lone:
    """Which request needs no other note of what it has read than `flask_globalstate.held.Values`.

    :ivar request: the one that runs alone, or None while none runs, or something that is no request.
    """

    __slots__ = ("request",)

    def __init__(self) -> None:
        self.request: Any = None


CROWD = object()
lone = Lone()
#: the requests of this process that have begun and not ended
running: set[Request] = set()
current_request: ContextVar[Request | None] = ContextVar("flask_globalstate_request", default=None)
#: the transactions that this context is in, at most one for each store
current_transactions: ContextVar[tuple[Any, ...]] = ContextVar("flask_globalstate_transactions", default=())


def request_here() -> Request | None:
    """The running request of this context."""
    request = current_request.get()
    return None if request is None or request.over else request
