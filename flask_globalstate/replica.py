"""One worker's copy of a name: read from it, kept as fresh as its mode promises, written through it.

What it holds, and the rules that keep that right, are in `flask_globalstate.held`; here is what talks to
the store. A hit is one lookup in a dict, without a lock.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from . import keys
from .access import Access
from .envelope import Codec
from .errors import ConflictError, DecodingError, StoreUnavailableError, UnsupportedOperationError
from .held import Held, Values, known_key
from .noting import Conflicts, Noting, noting
from .revision import Revision
from .scope import NONE, current_transactions
from .stores.base import ABSENT, ANY, DELETE, Entry, Mark, Store, Write

#: a name is fetched again as a whole unless at least so many times as many keys are held as lack
MANY = 4
#: after these it is sure that nothing was written
REFUSALS = (ConflictError, TypeError, UnsupportedOperationError)
Initial = Callable[[], Mapping[Any, Any]]
#: makes a value that was read ready to be handed out, given its key, its revision, and the view of the
#: transaction that reads it; and says whether it can still be changed in place without our knowing
Track = Callable[[Any, Any, Revision, Access | None], tuple[Any, bool]]


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


class Replica(Noting):
    """The replica of a name in ``read`` mode: each read is linearizable.

    Any thread may use it. Its lock guards memory and is never held across a call of the store.

    :param name: the global.
    :param store: where it lives.
    :param codec: seals and opens what is stored.
    :param initial: gives what is committed if the name has never existed; called at first use.
    :param outage: for how long what is held may be read while the store can't be reached.
    :param track: makes what is read ready to be handed out.
    :param conflicts: what to do when another worker has changed what a request has read and now
        writes; requests note what they read only if this is given.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        codec: Codec,
        *,
        initial: Initial | None = None,
        outage: Outage | None = None,
        track: Track | None = None,
        conflicts: Conflicts | None = None,
    ) -> None:
        self.name = name
        self.store = store
        self.codec = codec
        # A hit compares this memory with what was in it at the last sync. Both are memoryviews of
        # words: comparing them takes half the time of comparing a slice of the memory with bytes.
        self.row = memoryview(b"")
        self.remembered: memoryview | None = None
        self._initial = initial
        self._seeded_at = -1
        self._outage = outage or Outage()
        self._track = track
        self._held = Held(store.cache_size)
        self._conflicts = conflicts
        if conflicts is not None:
            on_first = functools.partial(noting.add, self)
            self._held.noted = Values(self._held, self._noted_read, on_first)
        self.values = self._held.noted
        # While a transaction runs no hit is compared with anything; this is what it will be again.
        self._seen: memoryview | None = None
        self._transactions = 0

    # --- freshness ------------------------------------------------------------------------------

    def here(self) -> Access:
        for transaction in current_transactions.get():
            if transaction.is_of(self.store):
                view: Access = transaction.view(self)
                return view
        return self

    def refresh(self) -> None:
        if self.is_unchanged():
            return
        with self._outage.tolerated():
            self.sync()

    def is_unchanged(self) -> bool:
        """Whether shared memory tells that nothing was written since the last sync."""
        return self.row == self._seen

    def sync(self) -> None:
        """Drop every key that another worker has changed, and keep what comes in its place."""
        held = self._held
        while True:
            # Read before asking for changes: a commit in between must make us ask again.
            row = self._watch()
            seen = None if row is None else memoryview(row.tobytes()).cast("Q")
            with held.lock:
                if held.epoch is None:
                    return  # Nothing is held, so nothing is stale.
                since, resets = Revision(held.epoch, held.synced), held.resets
            changes = self.store.changes(self.name, since)
            with held.lock:
                # Only what somebody here has read.
                wanted = {
                    text: entry for text, entry in changes.entries.items() if held.knows(known_key(text))
                }
                if held.take_changes(changes, resets):
                    break
        if wanted:
            with suppress(DecodingError):  # Raised when that key is read.
                self._keep_all(changes.revision, wanted, resets, is_whole=False)
        if row is not None and seen is not None and self.store.is_idle(self.name, seen):
            # Of this name only, and after the drops are done.
            self._remember(row, seen)

    def _remember(self, row: memoryview, seen: memoryview) -> None:
        """Let hits compare with this; while a transaction runs there are none."""
        with self._held.lock:
            self.row, self._seen = row, seen
            self.remembered = None if self._transactions else seen

    def _watch(self) -> memoryview | None:
        return self.store.watch(self.name)

    def begin_transaction(self) -> None:
        """Let every read go through `fresh`, which knows of transactions."""
        with self._held.lock:
            self._transactions += 1
            self.remembered = None

    def end_transaction(self) -> None:
        """The opposite."""
        with self._held.lock:
            self._transactions -= 1
            self.remembered = None if self._transactions else self._seen

    @property
    def in_use(self) -> bool:
        """Whether anything is held that could be stale."""
        return self._held.epoch is not None

    def synced_at(self, revision: Revision) -> bool:
        """Whether nothing was committed to the name between the last sync and ``revision``."""
        with self._held.lock:
            return revision == (self._held.epoch, self._held.synced)

    # --- reading --------------------------------------------------------------------------------

    def read(self, key: Any) -> Any:
        text = keys.to_string(key)
        if key in self._held.absent:
            self._note({key: NONE})
            raise KeyError(key)
        value, expected = self.fetch(key, text)
        if isinstance(expected, Mark):
            self._note({key: NONE})
            raise KeyError(key)
        self._note({key: expected.number})
        self._hand_out(key, value)
        return value

    def fetch(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is in the store, and its revision; `ABSENT` twice if there is none."""
        held = self._held
        resets, revision, entry = self._fetch_entry(text)
        if entry is None:
            self._keep_absent(key, revision, resets)
            return ABSENT, ABSENT
        at = Revision(revision.epoch, entry.number)
        value, changeable = self._open(key, text, entry, at)
        with held.lock:
            if held.meets(revision, resets):
                value = self._keep(key, value, entry.number, changeable)
        return value, at

    def newest(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is in the store, for the caller alone, and its revision, as `fetch`."""
        held = self._held
        resets, revision, entry = self._fetch_entry(text)
        with held.lock:
            # What is older than this must not be read after it.
            if held.meets(revision, resets):
                if entry is None:
                    held.keep_absent(key, revision.number)
                elif held.numbers.get(key) != entry.number:
                    held.forget(key)
        if entry is None:
            return ABSENT, ABSENT
        return self.codec.open(self.name, text, entry.data), Revision(revision.epoch, entry.number)

    def revision_of(self, text: str) -> Revision | Mark:
        resets, revision, entry = self._fetch_entry(text)
        if entry is None:
            self._keep_absent(known_key(text), revision, resets)
            return ABSENT
        return Revision(revision.epoch, entry.number)

    def _keep_absent(self, key: Any, revision: Revision, resets: int) -> None:
        with self._held.lock:
            if self._held.meets(revision, resets):
                self._held.keep_absent(key, revision.number)

    def _fetch_entry(self, text: str) -> tuple[int, Revision, Entry | None]:
        self.seed()
        resets = self._held.resets
        revision, entries = self.store.fetch(self.name, [text])
        return resets, revision, entries.get(text)

    def order(self) -> dict[Any, None]:
        held = self._held
        self._complete_sync()
        with held.lock:
            if held.order is not None and held.is_whole():
                return held.order
        self.seed()
        resets = held.resets
        revision, texts = self.store.keys(self.name)
        order = dict.fromkeys(stored_key(self.name, text) for text in texts)
        with held.lock:
            if held.meets(revision, resets):
                held.set_order(order, revision.number)
        return order

    def snapshot(self) -> dict[Any, Any]:
        found, numbers = self._snapshot()
        self._note(numbers)
        for key in found.keys() & self._held.changeable:
            self._hand_out(key, found[key])
        return found

    def _snapshot(self) -> tuple[dict[Any, Any], dict[Any, int]]:
        held = self._held
        self._complete_sync()
        found = self._held_snapshot()
        if isinstance(found, list):
            # A few have changed: what is brought now is of the same revision as what is held, or it is
            # not enough.
            resets = held.resets
            revision, entries = self.store.fetch(self.name, [keys.to_string(key) for key in found])
            with suppress(DecodingError):
                self._keep_all(revision, entries, resets, is_whole=False)
            found = self._held_snapshot()
        if isinstance(found, tuple):
            return found
        self.seed()
        resets = held.resets
        revision, entries = self.store.fetch(self.name)
        return self._keep_all(revision, entries, resets)

    def _held_snapshot(self) -> tuple[dict[Any, Any], dict[Any, int]] | list[Any] | None:
        """Every item, if all are held at one revision; or the keys that lack, if they are few; or None."""
        held = self._held
        with held.lock:
            if held.order is None or not held.is_whole():
                return None
            lacking = [key for key in held.order if key not in held.values]
            if not lacking:
                return {key: held.values[key] for key in held.order}, dict(held.numbers)
            return lacking if MANY * len(lacking) <= len(held.order) else None

    def contains(self, key: Any) -> bool:
        if key in self._held.values:
            return True
        keys.to_string(key)
        with self._held.lock:
            order = self._held.order if self._held.is_whole() else None
        if order is not None:
            if key not in order:
                self._note({key: NONE})
            return key in order
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
        if not self._held.is_whole():
            self.sync()

    def _keep_all(
        self, revision: Revision, entries: dict[str, Entry], resets: int, *, is_whole: bool = True
    ) -> tuple[dict[Any, Any], dict[Any, int]]:
        opened, failure = {}, None
        for text, entry in entries.items():
            key = stored_key(self.name, text)
            try:
                at = Revision(revision.epoch, entry.number)
                opened[key] = *self._open(key, text, entry, at), entry.number
            except DecodingError as error:
                failure = failure or error
        held = self._held
        with held.lock:
            if held.meets(revision, resets):
                found = {key: self._keep(key, value, n, loose) for key, (value, loose, n) in opened.items()}
                if failure is None and is_whole:
                    held.set_order(found, revision.number)
            else:
                found = {key: value for key, (value, _, _) in opened.items()}
        if failure is not None:
            raise failure
        return found, {key: number for key, (_, _, number) in opened.items()}

    def _open(self, key: Any, text: str, entry: Entry, at: Revision) -> tuple[Any, bool]:
        held = self._held
        with held.lock:
            if held.numbers.get(key) == entry.number:
                return held.values[key], key in held.changeable
        value = self.codec.open(self.name, text, entry.data)
        return (value, False) if self._track is None else self._track(key, value, at, None)

    def _keep(self, key: Any, value: Any, number: int, changeable: bool) -> Any:
        value = self._held.keep(key, value, number)
        if changeable:
            self._held.changeable.add(key)
        return value

    # --- writing --------------------------------------------------------------------------------

    def commit(
        self, items: Mapping[Any, Any], expected: Mapping[Any, Revision | Mark] | None = None
    ) -> Revision:
        writes = [self._write(key, value, (expected or {}).get(key, ANY)) for key, value in items.items()]
        self.seed()
        resets = self._held.resets
        try:
            revision = self.store.commit(writes)
        except REFUSALS:
            raise
        except BaseException:
            # Also one that has cut the wait for the answer short: it may have been written.
            self.forget(items)
            raise
        self._written(items, revision, resets, [key for key, value in items.items() if value is DELETE])
        return revision

    def _write(self, key: Any, value: Any, expected: Revision | Mark) -> Write:
        text = keys.to_string(key)
        return Write(
            self.name, text, DELETE if value is DELETE else self.codec.seal(self.name, text, value), expected
        )

    def assign(self, items: Mapping[Any, Any]) -> None:
        expected = self._read_in_this_request(items)
        while True:
            try:
                self.commit(items, expected)
                return
            except ConflictError as error:
                again = self._read_in_this_request([error.key])
                if not again or again == {key: at for key, at in expected.items() if key == error.key}:
                    assert self._conflicts is not None
                    self._conflicts.met(error)
                    again = {}
                # Else it was this worker that has written it meanwhile.
                expected = {key: at for key, at in expected.items() if key != error.key} | again

    def increment(self, key: Any, amount: int) -> int:
        text = keys.to_string(key)
        self.seed()
        resets = self._held.resets
        try:
            revision, value = self.store.increment(self.name, text, amount)
        except REFUSALS:
            raise
        except BaseException:
            self.forget([key])
            raise
        self._written([key], revision, resets)
        return value

    def remove_last(self) -> tuple[Any, Any]:
        self.seed()
        while True:
            resets = self._held.resets
            revision, texts = self.store.keys(self.name)
            if not texts:
                raise KeyError("popitem(): dictionary is empty")
            key = stored_key(self.name, texts[-1])
            value, expected = self.newest(key, texts[-1])
            if expected is ABSENT:
                continue
            # The name too must be as it was, or a newer item could be there.
            write = Write(self.name, texts[-1], DELETE, expected)
            try:
                self._written([key], self.store.commit([write], {self.name: revision}), resets, [key])
            except ConflictError:
                continue
            except REFUSALS:
                raise
            except BaseException:
                self.forget([key])
                raise
            return key, value

    def clear(self) -> None:
        self.seed()
        held = self._held
        resets = held.resets
        try:
            revision = self.store.drop(self.name)
        except BaseException:
            with held.lock:
                held.empty()
            raise
        with held.lock:
            held.meets(revision, resets)
            held.empty()
            for reads in self._all_reads(revision):
                reads.update(dict.fromkeys(reads, NONE))
            held.dropped.update(dict.fromkeys(held.dropped, NONE))

    def show_own(self, key: Any, revision: Revision, show: Callable[[], tuple[Any, bool]]) -> None:
        held = self._held
        with held.lock:
            value, changeable = show()
            if revision.epoch == held.epoch and held.meets(revision, held.resets):
                if held.values.get(key, value) is not value:
                    held.forget(key)
                self._keep(key, value, revision.number, changeable)

    @property
    def resets(self) -> int:
        """How often the replica was emptied for another epoch; for `written`."""
        return self._held.resets

    def forget(self, written: Iterable[Any]) -> None:
        """Know nothing of keys whose write may have been applied or not."""
        with self._held.lock:
            for key in written:
                self._held.forget(key)

    def written(
        self, written: Iterable[Any], revision: Revision, resets: int, removed: Iterable[Any]
    ) -> None:
        """Take note of a commit that a transaction has made of keys of this name.

        :param resets: as of before the commit.
        """
        self._written(written, revision, resets, removed)

    def tracked(self, key: Any, value: Any, at: Revision, view: Access) -> tuple[Any, bool]:
        """A value that a transaction has read, ready to be handed out; and whether it is changeable still."""
        return (value, False) if self._track is None else self._track(key, value, at, view)

    def _written(
        self, written: Iterable[Any], revision: Revision, resets: int, removed: Iterable[Any] = ()
    ) -> None:
        numbers = dict.fromkeys(written, revision.number)
        held = self._held
        with held.lock:
            held.meets(revision, resets)
            for key in numbers:
                held.forget(key)
            numbers.update(dict.fromkeys(removed, NONE))
            # What this worker has written itself is no conflict for its requests.
            for reads in (held.dropped, *self._all_reads(revision)):
                for key, number in numbers.items():
                    if key in reads:
                        reads[key] = number

    def seed(self) -> None:
        """Learn the history of the name, and commit the initial content if it has never existed there.

        Known before anything is fetched: a request that begins while the first answer is on its way must
        find that the name is in use, and sync it.
        """
        held = self._held
        while self._seeded_at != held.resets:
            resets = held.resets
            revision = self.store.revision(self.name)
            if self._initial is not None and revision.number == 0:
                writes = [self._write(key, value, ANY) for key, value in self._initial().items()]
                if writes:
                    with suppress(ConflictError):  # Another worker came first.
                        revision = self.store.commit(writes, {self.name: ABSENT})
            with held.lock:
                held.meets(revision, resets)
                if held.epoch == revision.epoch:
                    self._seeded_at = held.resets


def stored_key(name: str, text: str) -> Any:
    """The key of a key string that is in a store.

    :raises DecodingError: if this package did not write it.
    """
    try:
        return keys.from_string(text)
    except ValueError as error:
        raise DecodingError(f"{name!r} holds a key that this package did not write: {text!r}") from error
