"""One worker's local copy of what it has read of a name.

The rules that keep it right, each with a test in ``tests/test_replica.py`` that fails without it:

1. The row of the seqcount is read before `Store.changes` is asked; it is remembered after the drops
   are done, and only if it was idle.
2. ``synced`` is moved only by an answer of `Store.changes` or by a reset; ``floor`` is the highest
   revision seen in any answer for this name, own commits included. Neither goes back in an epoch.
   If a fetch or an own commit moved ``synced``, the changes in between would never be dropped.
3. A value is kept only if the answer that brought it is not below ``floor``. A slow fetch of one
   thread must not put back what a sync of another has dropped, nor hide a write of one's own.
4. A key that is already held at the revision that `Store.changes` names is not dropped.
5. Another epoch, or a log that doesn't reach back far enough, empties the replica; but an answer
   asked for before the last reset doesn't reset again: it may be of an epoch that is gone.

Values are kept under the user's own keys, so that a hit is one lookup in a dict, without a lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from . import forks, keys
from .envelope import Codec
from .errors import ConflictError, DecodingError, StoreUnavailableError
from .revision import Revision
from .stores.base import ABSENT, ANY, DELETE, Changes, Entry, Mark, Store, Write

Initial = Callable[[], Mapping[Any, Any]]


class Outage:
    """How long the store has been out of reach, and for how long that is tolerated.

    :param tolerance: seconds for which reads may be served from what is held.
    """

    def __init__(self, tolerance: float = 0) -> None:
        self._tolerance = tolerance
        self._began: float | None = None

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Let a sync fail silently while the tolerance lasts."""
        try:
            yield
        except StoreUnavailableError:
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            if now - self._began >= self._tolerance:
                raise
        else:
            self._began = None


class Replica:
    """The replica of a name in ``read`` mode: each read is linearizable.

    Any thread may use it. Its lock guards memory and is never held across a call of the store.

    :param name: the global.
    :param store: where it lives.
    :param codec: seals and opens what is stored.
    :param initial: gives what is committed if the name has never existed; called at first use.
    :param outage: for how long what is held may be read while the store can't be reached.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        codec: Codec,
        *,
        initial: Initial | None = None,
        outage: Outage | None = None,
    ) -> None:
        self.name = name
        self.store = store
        self.values: dict[Any, Any] = {}
        # A hit compares this memory with what was in it at the last sync. Both are memoryviews of
        # words: comparing them takes half the time of comparing a slice of the memory with bytes.
        self.row = memoryview(b"")
        self.remembered: memoryview | None = None
        self._codec = codec
        self._initial = initial
        self._seeded = initial is None
        self._outage = outage or Outage()
        self._most = store.cache_size
        self._numbers: dict[Any, int] = {}
        self._absent: dict[Any, int] = {}
        self._order: dict[Any, None] | None = None
        self._order_at = 0
        self._epoch: str | None = None
        self._synced = 0
        self._floor = 0
        self._resets = 0
        self._lock = threading.Lock()
        forks.hold_while_forking(self)

    def hold(self) -> None:
        """Keep every thread out, so that a fork copies no half change."""
        self._lock.acquire()

    def release(self) -> None:
        """Let them in again, in the parent and in the child."""
        self._lock.release()

    # --- freshness ------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Make the replica as fresh as the mode promises to whoever reads next."""
        if self.is_unchanged():
            return
        with self._outage.tolerated():
            self.sync()

    def is_unchanged(self) -> bool:
        """Whether shared memory tells that nothing was written since the last sync."""
        return self.row == self.remembered

    def sync(self) -> None:
        """Drop every key that another worker has changed."""
        while True:
            # Read before asking for changes: a commit in between must make us ask again.
            row = self._watch()
            seen = None if row is None else memoryview(row.tobytes()).cast("Q")
            with self._lock:
                if self._epoch is None:
                    return  # Nothing is held, so nothing is stale.
                since, resets = Revision(self._epoch, self._synced), self._resets
            if self._take_changes(self.store.changes(self.name, since), resets):
                break
        if row is not None and seen is not None and self.store.is_idle(self.name, seen):
            # Of this name only, and after the drops are done.
            self.row, self.remembered = row, seen

    def _watch(self) -> memoryview | None:
        return self.store.watch(self.name)

    @property
    def in_use(self) -> bool:
        """Whether anything is held that could be stale."""
        return self._epoch is not None

    def synced_at(self, revision: Revision) -> bool:
        """Whether nothing was committed to the name between the last sync and ``revision``."""
        with self._lock:
            return revision == (self._epoch, self._synced)

    def _take_changes(self, changes: Changes, resets: int) -> bool:
        """Apply an answer; false if another thread has met a new epoch since it was asked for."""
        revision = changes.revision
        with self._lock:
            if revision.epoch != self._epoch:
                if resets != self._resets:
                    return False
                self._reset(revision)
                return True
            if changes.reset:
                self._empty()
            for text, number in (*changes.changed.items(), *changes.removed.items()):
                self._drop_older(_known_key(text), number)
            if self._order is not None and self._moved(changes):
                self._order = None
            self._synced = max(self._synced, revision.number)
            self._floor = max(self._floor, revision.number)
            return True

    def _drop_older(self, key: Any, number: int) -> None:
        if self._numbers.get(key, number) < number:
            del self.values[key], self._numbers[key]
        if self._absent.get(key, number) < number:
            del self._absent[key]

    def _moved(self, changes: Changes) -> bool:
        """Whether a key was created or removed after the order was read."""
        assert self._order is not None
        if any(number > self._order_at for number in changes.removed.values()):
            return True
        return any(
            number > self._order_at and _known_key(text) not in self._order
            for text, number in changes.changed.items()
        )

    def _reset(self, revision: Revision) -> None:
        if self._epoch is not None:
            # The new history may not know the name.
            self._seeded = self._initial is None
        self._epoch = revision.epoch
        self._synced = self._floor = revision.number
        self._resets += 1
        self._empty()

    def _empty(self) -> None:
        self.values.clear()
        self._numbers.clear()
        self._absent.clear()
        self._order = None

    # --- reading --------------------------------------------------------------------------------

    def read(self, key: Any) -> Any:
        """The value of a key that is not in ``values``.

        :raises KeyError: if it is absent.
        :raises TypeError: if it can't be a key.
        """
        text = keys.to_string(key)
        if key in self._absent:
            raise KeyError(key)
        value, expected = self.fetch(key, text)
        if expected is ABSENT:
            raise KeyError(key)
        return value

    def fetch(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is in the store, and its revision; `ABSENT` twice if there is none."""
        self._seed()
        resets = self._resets
        revision, entries = self.store.fetch(self.name, [text])
        entry = entries.get(text)
        if entry is None:
            with self._lock:
                if self._meets(revision, resets):
                    self._drop_older(key, revision.number + 1)
                    self._absent[key] = revision.number
            return ABSENT, ABSENT
        value = self._open(key, text, entry)
        with self._lock:
            if self._meets(revision, resets):
                value = self._keep(key, value, entry.number)
        return value, Revision(revision.epoch, entry.number)

    def order(self) -> dict[Any, None]:
        """The keys in the order of creation, at one revision; not to be changed."""
        self._complete_sync()
        with self._lock:
            if self._order is not None and self._floor == self._synced:
                return self._order
        self._seed()
        resets = self._resets
        revision, texts = self.store.keys(self.name)
        order = dict.fromkeys(stored_key(self.name, text) for text in texts)
        with self._lock:
            if self._meets(revision, resets):
                self._order, self._order_at = order, revision.number
        return order

    def snapshot(self) -> dict[Any, Any]:
        """Every item in the order of creation, at one revision; the caller's own dict."""
        self._complete_sync()
        with self._lock:
            order = self._order
            if order is not None and self._floor == self._synced and order.keys() <= self.values.keys():
                return {key: self.values[key] for key in order}
        self._seed()
        resets = self._resets
        revision, entries = self.store.fetch(self.name)
        return self._keep_all(revision, entries, resets)

    def contains(self, key: Any) -> bool:
        """Whether there is such a key."""
        if key in self.values:
            return True
        keys.to_string(key)
        with self._lock:
            if self._order is not None and self._floor == self._synced:
                return key in self._order
        try:
            self.read(key)
        except KeyError:
            return False
        except DecodingError:
            return True
        return True

    def _complete_sync(self) -> None:
        """What is held is of one revision only when no answer was newer than the last sync."""
        self.refresh()
        if self._floor != self._synced:
            self.sync()

    def _keep_all(self, revision: Revision, entries: dict[str, Entry], resets: int) -> dict[Any, Any]:
        opened, failure = {}, None
        for text, entry in entries.items():
            key = stored_key(self.name, text)
            try:
                opened[key] = self._open(key, text, entry), entry.number
            except DecodingError as error:
                failure = failure or error
        with self._lock:
            if self._meets(revision, resets):
                found = {key: self._keep(key, value, number) for key, (value, number) in opened.items()}
                if failure is None:
                    self._order, self._order_at = dict.fromkeys(found), revision.number
            else:
                found = {key: value for key, (value, number) in opened.items()}
        if failure is not None:
            raise failure
        return found

    def _open(self, key: Any, text: str, entry: Entry) -> Any:
        with self._lock:
            if self._numbers.get(key) == entry.number:
                return self.values[key]
        return self._codec.open(self.name, text, entry.data)

    def _meets(self, revision: Revision, resets: int) -> bool:
        """Whether what came with ``revision`` may be kept."""
        if revision.epoch != self._epoch:
            if resets != self._resets:
                return False
            self._reset(revision)
        if revision.number < self._floor:
            return False
        self._floor = revision.number
        return True

    def _keep(self, key: Any, value: Any, number: int) -> Any:
        """Keep a value, and give the worker's one copy of it."""
        if self._numbers.get(key) == number:
            return self.values[key]
        self._absent.pop(key, None)
        self._numbers[key] = number
        self.values[key] = value
        if self._most is not None and len(self.values) > self._most:
            oldest = next(iter(self.values))
            del self.values[oldest], self._numbers[oldest]
        return value

    # --- writing --------------------------------------------------------------------------------

    def commit(self, items: Mapping[Any, Any], expected: Revision | Mark = ANY) -> None:
        """Write or `DELETE` keys in one atomic commit, each conditional on ``expected``.

        :raises TypeError: for what can't be a key; :raises EncodingError: for what can't be stored;
            nothing was written.
        :raises ConflictError: if a key is not at ``expected``.
        """
        texts = {key: keys.to_string(key) for key in items}
        writes = [
            Write(
                self.name,
                texts[key],
                DELETE if value is DELETE else self._codec.seal(self.name, texts[key], value),
                expected,
            )
            for key, value in items.items()
        ]
        if not writes:
            return
        self._seed()
        resets = self._resets
        try:
            revision = self.store.commit(writes)
        except StoreUnavailableError:
            # It may have been applied.
            self._forget(items)
            raise
        self._written(items, revision, resets)

    def increment(self, key: Any, amount: int) -> int:
        """Add to an integer; the new value."""
        text = keys.to_string(key)
        self._seed()
        resets = self._resets
        try:
            revision, value = self.store.increment(self.name, text, amount)
        except StoreUnavailableError:
            self._forget([key])
            raise
        self._written([key], revision, resets)
        return value

    def replace(self, key: Any, function: Callable[[Any], Any]) -> Any:
        """Commit ``function(value)`` in place of the value, retried until no other worker came between.

        :param function: is given the value, or `ABSENT`; gives a new value, or `DELETE`, or `ANY` to
            leave it as it is. It may run several times.
        :returns: the value that the function was given the last time.
        """
        text = keys.to_string(key)
        while True:
            value, expected = self.fetch(key, text)
            new = function(value)
            if new is ANY:
                return value
            try:
                self.commit({key: new}, expected)
            except ConflictError:
                continue
            return value

    def remove(self, key: Any) -> None:
        """Remove a key in one commit, also one whose value can't be decoded.

        :raises KeyError: if there is none.
        """
        text = keys.to_string(key)
        self._seed()
        while True:
            revision, entries = self.store.fetch(self.name, [text])
            if text not in entries:
                raise KeyError(key)
            with suppress(ConflictError):
                return self.commit({key: DELETE}, Revision(revision.epoch, entries[text].number))

    def remove_last(self) -> tuple[Any, Any]:
        """Remove the newest item in one commit, and give it.

        :raises KeyError: if there is none.
        """
        self._seed()
        while True:
            resets = self._resets
            revision, texts = self.store.keys(self.name)
            if not texts:
                raise KeyError("popitem(): dictionary is empty")
            key = stored_key(self.name, texts[-1])
            value, expected = self.fetch(key, texts[-1])
            if expected is ABSENT:
                continue
            try:
                # The name too must be as it was, or a newer item could be there.
                written = self.store.commit(
                    [Write(self.name, texts[-1], DELETE, expected)], {self.name: revision}
                )
            except ConflictError:
                continue
            except StoreUnavailableError:
                self._forget([key])
                raise
            self._written([key], written, resets)
            return key, value

    def clear(self) -> None:
        """Remove every item in one commit."""
        self._seed()
        resets = self._resets
        try:
            revision = self.store.drop(self.name)
        except StoreUnavailableError:
            with self._lock:
                self._empty()
            raise
        with self._lock:
            self._meets(revision, resets)
            self._empty()

    def _written(self, written: Iterable[Any], revision: Revision, resets: int) -> None:
        with self._lock:
            self._meets(revision, resets)
            for key in written:
                self._forget_key(key)

    def _forget(self, written: Iterable[Any]) -> None:
        with self._lock:
            for key in written:
                self._forget_key(key)

    def _forget_key(self, key: Any) -> None:
        self.values.pop(key, None)
        self._numbers.pop(key, None)
        self._absent.pop(key, None)

    def _seed(self) -> None:
        """Commit the initial content if the name has never existed."""
        if self._seeded:
            return
        assert self._initial is not None
        resets = self._resets
        if self.store.revision(self.name).number == 0:
            writes = []
            for key, value in self._initial().items():
                text = keys.to_string(key)
                writes.append(Write(self.name, text, self._codec.seal(self.name, text, value)))
            try:
                if writes:
                    self._written((), self.store.commit(writes, {self.name: ABSENT}), resets)
            except ConflictError:
                pass  # Another worker came first.
        self._seeded = True


def stored_key(name: str, text: str) -> Any:
    try:
        return keys.from_string(text)
    except ValueError as error:
        raise DecodingError(f"{name!r} holds a key that this package did not write: {text!r}") from error


def _known_key(text: str) -> Any:
    """The key, or for one that this package did not write, something that is never held."""
    try:
        return keys.from_string(text)
    except ValueError:
        return object()
