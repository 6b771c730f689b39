"""Who reads: a request, or a thread or task outside of requests.

What each has read is in its read sets, see `read_sets`. The only reader of a process needs none.

A request ends by a flag and not by leaving its context, since contexts are copied to other threads. It is
referred to weakly here: one whose end was cut short by an exception of a signal handler is over as soon as
nothing holds it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from itertools import islice
from threading import get_ident
from typing import Any

from ..stores.base import Backend
from ..system import forks

#: how many keys of a name are in the read set of a reader that may live for long
MOST_NOTES = 1000


def keep_last(notes: dict[Any, Any], most: int) -> None:
    """Drop the oldest notes above a number."""
    if len(notes) > most:
        for key in list(islice(notes, len(notes) - most)):
            notes.pop(key, None)


class Reader:
    """Who reads, with what was read of each name."""

    __slots__ = ("__weakref__", "read_sets")

    #: how many keys of a name are in its read set
    most: int | None = None
    #: whether it reads no more
    over = False
    #: whether what this reader has written is in its read set, or leaves it
    notes_own_writes = True

    def __init__(self) -> None:
        #: the `ReadSet` of each name, by the `ReadSets` of the name
        self.read_sets: MutableMapping[Any, Any] = {}


class RequestRef(weakref.ref["Request"]):
    """What a context says of its request: it may be gone, and is the same object in every copy.

    :ivar outer: what the context said before, if that was of a request.
    """

    __slots__ = ("outer",)

    outer: RequestRef | None

    def running(self) -> Request | None:
        """The request, or if it is over the one that it ran inside of."""
        ref: RequestRef | None = self
        while ref is not None:
            request = ref()
            if request is not None and not request.over:
                return request
            ref = ref.outer
        return None


class Request(Reader):
    """The scope in which reads need no check for a while, since all was brought up to date at its start.

    :param examined: whether what it is handed is compared at its end with what it was.
    """

    __slots__ = ("examined", "fresh_at", "handed_out", "over", "ref", "states")

    def __init__(self, *, examined: bool = False) -> None:
        super().__init__()
        #: when each store of its states was asked what has changed
        self.fresh_at: dict[Backend, float] = {}
        self.over = False
        #: the states that have begun it and not ended it; the last one to leave ends it
        self.states: list[Any] = []
        self.examined = examined
        #: by `InPlaceChanges` of a name and key: the number and the encoding of what was handed out
        self.handed_out: dict[tuple[Any, Any], tuple[int, bytes]] = {}
        self.ref: RequestRef | None = None

    def begin(self) -> None:
        """Be a reader beside the others, and the request of this context."""
        here = current_reader.get()
        if isinstance(here, Outsider) and here.is_here():
            here.over = True  # Its notes end here: they are of before the request.
            live.discard(here.ref)
        outer = request_here()
        self.ref = RequestRef(self, _is_gone)
        self.ref.outer = None if outer is None else outer.ref
        # In this order, so that of two that begin together neither believes to be alone.
        live.add(self.ref)
        sole.reader = self.ref
        if self.examined or len(live) > 1:
            find_sole_reader()
        flush_notes()
        current_reader.set(self.ref)

    def end(self) -> None:
        """From now on reads are checked again."""
        self.over = True
        if self.ref is None:
            return
        live.discard(self.ref)
        sole.reader = NOBODY
        if live:
            find_sole_reader()
        flush_notes()
        if current_reader.get() is self.ref:
            outer = self.ref.running()
            current_reader.set(None if outer is None else outer.ref)
        self.ref = None
        self.fresh_at.clear()
        if self.read_sets:
            self.read_sets.clear()
        if self.handed_out:
            self.handed_out.clear()

    def examine(self) -> None:
        """Find what was changed in place of what it was handed, by any state."""
        while self.handed_out:
            (changes, key), handed = self.handed_out.popitem()
            changes.examine(key, *handed)


class Outsider(Reader):
    """A thread, or a task of asyncio, that reads outside of requests."""

    __slots__ = ("_task", "_thread", "over", "ref")

    most = MOST_NOTES
    notes_own_writes = False

    def __init__(self) -> None:
        # A thread outlives the states that it has used.
        self.read_sets = weakref.WeakKeyDictionary()
        self.over = False
        self._thread = get_ident()
        task = _task_here()
        self._task = None if task is None else weakref.ref(task)
        self.ref: weakref.ref[Outsider] = weakref.ref(self, _is_gone)

    def is_here(self) -> bool:
        """Whether it is the thread or task that asks, and reads still: contexts are copied to others."""
        if self.over:
            return False
        task = self._task
        return self._thread == get_ident() and (None if task is None else task()) is _task_here()

    def begin(self) -> None:
        """Be a reader beside the others, until this thread or task ends."""
        live.add(self.ref)
        sole.reader = self
        if len(live) > 1:
            find_sole_reader()
        # What is in `SoleReads` it may have read there, without our knowing.
        flush_notes(self)
        current_reader.set(self)


class Sole:
    """Which reader needs no other read set than `read_sets.SoleReads`.

    :ivar reader: what `current_reader` is where the only reader is, or something else.
    """

    __slots__ = ("__weakref__", "reader")

    def __init__(self) -> None:
        self.reader: Any = NOBODY

    def after_fork(self) -> None:
        """Forget the readers of other threads, which are the parent's."""
        here = current_reader.get()
        live.clear()
        self.reader = NOBODY
        if isinstance(here, Outsider):
            live.add(here.ref)
            self.reader = here
        elif here is not None:
            live.add(here)
            find_sole_reader()


NOBODY, SEVERAL = object(), object()
sole = Sole()
forks.renew_after_fork(sole)
#: the readers of this process: requests that have begun and not ended, threads and tasks outside of them
live: set[weakref.ref[Any]] = set()
#: the `ReadSets` of names of which something is in `SoleReads`
unflushed: set[weakref.ref[Any]] = set()
current_reader: ContextVar[RequestRef | Outsider | None] = ContextVar(
    "flask_globalstate_reader", default=None
)
#: the transactions that this context is in, at most one for each store
current_transactions: ContextVar[tuple[Any, ...]] = ContextVar("flask_globalstate_transactions", default=())


def find_sole_reader() -> None:
    """Say who is the only reader, now that another one has begun or ended."""
    readers = []
    for ref in tuple(live):
        reader = ref()
        if reader is None or reader.over:
            live.discard(ref)
        else:
            readers.append(reader)
    if len(readers) != 1:
        sole.reader = SEVERAL if readers else NOBODY
    elif isinstance(readers[0], Outsider):
        sole.reader = readers[0]
    else:
        sole.reader = SEVERAL if readers[0].examined else readers[0].ref
    if sole.reader is not SEVERAL and len(live) > 1:
        sole.reader = SEVERAL  # Another one has begun in between, and could not know.


def flush_notes(newcomer: Reader | None = None) -> None:
    """Let every read be noted from here on that is the first of its key.

    :param newcomer: a reader that may have read what stands in `read_sets.SoleReads`.
    """
    for ref in tuple(unflushed):
        unflushed.discard(ref)
        read_sets = ref()
        if read_sets is not None:
            read_sets.flush(newcomer)


def reader_here() -> Reader:
    """Who reads in this context."""
    reader = known_reader_here()
    if reader is None:
        reader = Outsider()
        reader.begin()
    return reader


def _is_gone(ref: weakref.ref[Any]) -> None:
    with suppress(TypeError):  # It was interrupted before it was among them, and can't be looked up now.
        live.discard(ref)
    find_sole_reader()


def request_here() -> Request | None:
    """The running request of this context."""
    here = current_reader.get()
    return here.running() if isinstance(here, RequestRef) else None


def known_reader_here() -> Reader | None:
    """Who reads in this context, if it has read before."""
    here = current_reader.get()
    if isinstance(here, Outsider):
        return here if here.is_here() else None
    return request_here()


def running_requests() -> list[Request]:
    """The requests of this process that have begun and not ended."""
    readers = [ref() for ref in tuple(live)]
    return [reader for reader in readers if isinstance(reader, Request) and not reader.over]


def _task_here() -> Any:
    """The task of asyncio that runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    # While another thread imports it not all of it is there, and no loop runs in this one.
    running_loop = getattr(asyncio, "_get_running_loop", None)
    if asyncio is None or running_loop is None or running_loop() is None:
        return None
    return asyncio.current_task()
