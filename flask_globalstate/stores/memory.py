"""A store in the memory of this process: the objects themselves, shared by its threads only."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..errors import ConfigurationError
from ..system import forks
from ..system.locks import Guard
from ..values.revision import Revision
from .base import ABSENT, CHECK, DELETE, Changes, Entry, Expected, Fetched, Store, Write, require_revision

REMOVALS_KEPT = 1000
WORD = 8
#: as many objects as a commit of one key makes, and more
MADE_INSIDE = 16


P = ParamSpec("P")
T = TypeVar("T")


class _Name:
    """The entries of one name in the order of creation, and its change log.

    What changes them may be done again from the beginning after it was interrupted, or meanwhile.
    """

    def __init__(self) -> None:
        self.row = memoryview(bytearray(WORD)).cast("Q")
        self.number = 0
        self.floor = 0
        self.dropped = True
        self.entries: dict[str, Entry] = {}
        # Both logs are in the order of revision, oldest first.
        self.changed: dict[str, int] = {}
        self.removed: dict[str, int] = {}

    def put(self, key: str, data: Any, number: int) -> None:
        self.entries[key] = Entry(data, number)
        self.changed.pop(key, None)
        self.changed[key] = number

    def remove(self, key: str, number: int) -> None:
        if key not in self.entries:
            return
        self.changed.pop(key, None)
        self.removed.pop(key, None)
        self.removed[key] = number
        if len(self.removed) > REMOVALS_KEPT:
            oldest = next(iter(self.removed))
            self.floor = self.removed.get(oldest, self.floor)
            self.removed.pop(oldest, None)
        self.entries.pop(key, None)

    def clear(self, number: int) -> None:
        self.number = self.floor = number
        self.dropped = True
        self.entries = {}
        self.changed = {}
        self.removed = {}


Method = Callable[Concatenate["MemoryStore", P], T]


def _changing(method: Method[P, T]) -> Method[P, T]:
    """Run a method with the lock held, and no commit half made.

    :raises ReentryError: if this thread holds it.
    """

    @functools.wraps(method)
    def call(self: MemoryStore, /, *arguments: P.args, **named: P.kwargs) -> T:
        _collect_first()
        with self._guard():
            self._finish()
            answer = method(self, *arguments, **named)
            # It lives until the lock is given back: its finalizers may use this store.
            replaced = self._replaced
            self._replaced = []
        del replaced
        return answer

    return call


def _reading(method: Method[P, T]) -> Method[P, T]:
    """Run one that only reads; where this thread holds the lock already, it reads what was committed last."""

    @functools.wraps(method)
    def call(self: MemoryStore, /, *arguments: P.args, **named: P.kwargs) -> T:
        # What was interrupted goes on after this: each of its steps may be done twice. What it replaces is
        # let go by the next change.
        with self._guard.lock:
            self._finish()
            return method(self, *arguments, **named)

    return call


def _collect_first() -> None:
    """Let the garbage collector come now, if it would come while the lock is held.

    The finalizers that it runs may use this store. It comes when more objects were made than ever since it
    came last, so that it would choose the innermost call, and always that. This is no guarantee.
    """
    tuple(map(set, [()] * MADE_INSIDE))


class MemoryStore(Store):
    """A store of the objects themselves, plain and with their identity.

    :param strict: raise `ConfigurationError` instead of warning when the application runs under
        several worker processes, which do not share this store.
    """

    host_local = True
    holds_objects = True
    #: see `forks.Holder`
    waits = False

    def __init__(self, *, strict: bool = False) -> None:
        if not isinstance(strict, bool):
            raise ConfigurationError(f"STORE_OPTIONS: strict is {strict!r}; it must be True or False")
        self.strict = strict
        self._epoch = secrets.token_hex(8)
        self._number = 0
        self._names: dict[str, _Name] = {}
        self._guard = Guard("a store in memory")
        #: what makes the commit that is decided: whoever comes next makes it, where it was interrupted
        self._under_way: Callable[[], None] | None = None
        self._replaced: list[Any] = []
        forks.hold_while_forking(self)

    def hold(self) -> None:
        """Keep every thread out, so that a fork copies no half commit."""
        self._guard.lock.acquire()

    def release(self) -> None:
        """Let them in again, in the parent and in the child."""
        self._guard.lock.release()

    @_changing
    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        self._verify(writes, names or {})
        if any(write.data is not CHECK for write in writes):
            self._under_way = functools.partial(self._write, self._number + 1, writes)
            self._finish()
        return Revision(self._epoch, self._number)

    @_reading
    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        held = self._names.get(name)
        if held is None:
            return Fetched(Revision(self._epoch, 0), {})
        if keys is None:
            entries = dict(held.entries)
        else:
            entries = {key: held.entries[key] for key in keys if key in held.entries}
        return Fetched(Revision(self._epoch, held.number), entries)

    def keys(self, name: str) -> tuple[Revision, list[str]]:
        revision, entries = self.fetch(name)
        return revision, list(entries)

    @_reading
    def names(self) -> list[str]:
        return [name for name, held in self._names.items() if not held.dropped]

    @_changing
    def drop(self, name: str) -> Revision:
        self._under_way = functools.partial(self._clear, self._number + 1, name)
        self._finish()
        return Revision(self._epoch, self._number)

    @_reading
    def changes(self, name: str, since: Revision) -> Changes:
        held = self._names.get(name) or _Name()
        revision = Revision(self._epoch, held.number)
        if since.epoch != self._epoch or since.number < held.floor:
            return Changes(revision, {}, {}, reset=True)
        return Changes(revision, _since(held.changed, since.number), _since(held.removed, since.number))

    @_reading
    def revision(self, name: str) -> Revision:
        held = self._names.get(name)
        return Revision(self._epoch, held.number if held else 0)

    @_reading
    def watch(self, name: str) -> memoryview:
        return self._names.setdefault(name, _Name()).row

    # --- called with the lock held --------------------------------------------------------------

    def _verify(self, writes: Sequence[Write], names: Mapping[str, Expected]) -> None:
        for name, expected in names.items():
            held = self._names.get(name)
            require_revision(name, None, expected, self._epoch, held.number if held and held.number else None)
        for name, key, _, wanted in writes:
            if not (wanted is ABSENT or isinstance(wanted, Revision)):
                continue
            held = self._names.get(name)
            entry = held.entries.get(key) if held else None
            require_revision(name, key, wanted, self._epoch, entry.number if entry else None)

    def _finish(self) -> None:
        """Make the commit that is decided, if there is one."""
        under_way = self._under_way
        if under_way is not None:
            under_way()
            self._under_way = None

    def _write(self, number: int, writes: Sequence[Write]) -> None:
        written = [write for write in writes if write.data is not CHECK]
        for name, key, data, _ in written:
            held = self._names.setdefault(name, _Name())
            held.dropped = False
            held.number = number
            self._replaced.append(held.entries.get(key))
            if data is DELETE:
                held.remove(key, number)
            else:
                held.put(key, data, number)
        self._show(number, {write.name for write in written})

    def _clear(self, number: int, name: str) -> None:
        held = self._names.setdefault(name, _Name())
        self._replaced.append(held.entries)
        held.clear(number)
        self._show(number, [name])

    def _show(self, number: int, names: Iterable[str]) -> None:
        """Let readers see that names have changed, after the change."""
        for name in names:
            self._names[name].row[0] = number
        self._number = number

    def check(self) -> None:
        """Return at once: memory is always there."""

    def ping(self) -> None:
        """Return at once: memory is always there."""

    def close(self) -> None:
        """Give nothing back; the data stays with this object."""


def _since(log: dict[str, int], number: int) -> dict[str, int]:
    """The end of a log, in time proportional to it."""
    newer = {}
    for key in reversed(log):
        if log[key] <= number:
            break
        newer[key] = log[key]
    return newer
