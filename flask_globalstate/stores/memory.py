"""A store in the memory of this process: the objects themselves, shared by its threads only."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import forks
from ..errors import ConfigurationError
from ..revision import Revision
from .base import ABSENT, CHECK, DELETE, Changes, Entry, Expected, Fetched, Store, Write, require_revision

REMOVALS_KEPT = 1000
WORD = 8


class _Name:
    """The entries of one name in the order of creation, and its change log."""

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
        if self.entries.pop(key, None) is None:
            return
        del self.changed[key]
        self.removed.pop(key, None)
        self.removed[key] = number
        if len(self.removed) > REMOVALS_KEPT:
            oldest = next(iter(self.removed))
            self.floor = self.removed.pop(oldest)

    def clear(self, number: int) -> None:
        self.entries.clear()
        self.changed.clear()
        self.removed.clear()
        self.number = self.floor = number


class MemoryStore(Store):
    """Holds the objects themselves, plain and with their identity.

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
        self._lock = threading.Lock()
        forks.hold_while_forking(self)

    def hold(self) -> None:
        """Keep every thread out, so that a fork copies no half commit."""
        self._lock.acquire()

    def release(self) -> None:
        """Let them in again, in the parent and in the child."""
        self._lock.release()

    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        with self._lock:
            self._verify(writes, names or {})
            if all(write.data is CHECK for write in writes):
                return Revision(self._epoch, self._number)
            self._number += 1
            for write in writes:
                self._apply(write)
            for name in {write.name for write in writes if write.data is not CHECK}:
                self._show(name)
            return Revision(self._epoch, self._number)

    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        with self._lock:
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

    def names(self) -> list[str]:
        with self._lock:
            return [name for name, held in self._names.items() if not held.dropped]

    def drop(self, name: str) -> Revision:
        with self._lock:
            self._number += 1
            held = self._names.setdefault(name, _Name())
            held.clear(self._number)
            held.dropped = True
            self._show(name)
            return Revision(self._epoch, self._number)

    def changes(self, name: str, since: Revision) -> Changes:
        with self._lock:
            held = self._names.get(name) or _Name()
            revision = Revision(self._epoch, held.number)
            if since.epoch != self._epoch or since.number < held.floor:
                return Changes(revision, {}, {}, reset=True)
            return Changes(revision, _since(held.changed, since.number), _since(held.removed, since.number))

    def revision(self, name: str) -> Revision:
        with self._lock:
            held = self._names.get(name)
            return Revision(self._epoch, held.number if held else 0)

    def watch(self, name: str) -> memoryview:
        with self._lock:
            return self._names.setdefault(name, _Name()).row

    def _show(self, name: str) -> None:
        """Let readers see that a name has changed, after the change."""
        held = self._names[name]
        held.row[0] = held.number

    def check(self) -> None:
        """Memory is always there."""

    def ping(self) -> None:
        """Memory is always there."""

    def close(self) -> None:
        """Nothing to give back; the data stays with this object."""

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

    def _apply(self, write: Write) -> None:
        if write.data is CHECK:
            return
        held = self._names.setdefault(write.name, _Name())
        held.dropped = False
        held.number = self._number
        if write.data is DELETE:
            held.remove(write.key, self._number)
        else:
            held.put(write.key, write.data, self._number)


def _since(log: dict[str, int], number: int) -> dict[str, int]:
    """The end of a log, in time proportional to it."""
    newer = {}
    for key in reversed(log):
        if log[key] <= number:
            break
        newer[key] = log[key]
    return newer
