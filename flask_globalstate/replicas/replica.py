"""One worker's copy of a name: read from it, kept as fresh as its mode promises, written through it.

What it holds, and the rules that keep that right, are in `replicas/cache.py`; here is what talks to the
store. A hit is one lookup in a dict, without a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from ..errors import (
    ConflictError,
    DecodingError,
    ReentryError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from ..stores.base import ABSENT, ANY, DELETE, Entry, Mark, Store, Write
from ..values import keys
from ..values.envelope import Codec
from ..values.revision import Revision
from .base import Access
from .cache import Held, Shown, Values
from .noting import Conflicts, Noting
from .requests import NONE, current_transactions, request_here

#: a name is fetched again as a whole unless at least so many times as many keys are held as lack
MANY = 4
#: after these it is sure that nothing was written
REFUSALS = (ConflictError, ReentryError, TypeError, UnsupportedOperationError)
#: an answer of a store, which begins with a revision
Answer = TypeVar("Answer", bound=tuple[Any, ...])
Initial = Callable[[], Mapping[Any, Any]]
#: makes a value that was read ready to be handed out, given its key, its revision, and the view of the
#: transaction that reads it; and says whether it can still be changed in place without our knowing
Wrap = Callable[[Any, Any, Revision, Access | None], tuple[Any, bool]]


class Ending(Protocol):
    """As much of a transaction as a replica knows."""

    @property
    def is_over(self) -> bool:
        """Whether its ``with`` statement was left."""
        ...


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
    :param wrap: makes what is read ready to be handed out.
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
        wrap: Wrap | None = None,
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
        self._wrap = wrap
        self._held = self._make_held(name, store)
        self._conflicts = conflicts
        self._takes_notes = conflicts is not None and conflicts.checked
        if conflicts is not None:
            self._held.noted = Values(self._held, self._noted_read, self._begin_notes)
        self.values = self._held.noted
        # While a transaction runs no hit is compared with anything; this is what it will be again.
        self._seen: memoryview | None = None
        #: those that run
        self._transactions: set[Ending] = set()

    @staticmethod
    def _make_held(name: str, store: Store) -> Held:
        return Held(name, store.cache_size)

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
        if self.row != self._seen:
            return False
        if self.remembered is None and all(one.is_over for one in self._transactions):
            self._transactions.clear()  # The end of one was cut short.
            self._remember(self.row, self._seen)
        return True

    def sync(self) -> None:
        """Drop every key that another worker has changed, and keep what comes in its place."""
        held = self._held
        while True:
            # Read before asking for changes: a commit in between must make us ask again.
            row = self._watch()
            seen = None if row is None else memoryview(row.tobytes()).cast("Q")
            resets, since = held.resets, held.synced_at()
            if since is None:
                return  # Nothing is held, so nothing is stale.
            changes = self.store.changes(self.name, since)
            wanted = held.take_changes(changes, resets)
            if wanted is not None:
                break
        if wanted:
            entries = {text: changes.entries[text] for text in wanted}
            with suppress(DecodingError):  # Raised when that key is read.
                self._take(changes.revision, entries, resets)
        if row is not None and seen is not None and self.store.is_idle(self.name, seen):
            # Of this name only, and after the drops are done.
            self._remember(row, seen)

    def _remember(self, row: memoryview, seen: memoryview | None) -> None:
        """Let hits compare with this; while a transaction runs there are none."""
        with self._held.guard():
            self.row, self._seen = row, seen
            self.remembered = None if self._transactions else seen

    def _watch(self) -> memoryview | None:
        return self.store.watch(self.name)

    def begin_transaction(self, transaction: Ending) -> None:
        """Let every read go through `fresh`, which knows of transactions."""
        with self._held.guard():
            self._transactions.add(transaction)
            self.remembered = None

    def end_transaction(self, transaction: Ending) -> None:
        """The opposite; the second time nothing is done."""
        with self._held.guard():
            self._transactions.discard(transaction)
            self.remembered = None if self._transactions else self._seen

    @property
    def in_use(self) -> bool:
        """Whether anything is held that could be stale."""
        return self._held.epoch is not None

    def synced_at(self, revision: Revision) -> bool:
        """Whether nothing was committed to the name between the last sync and ``revision``."""
        return revision == self._held.synced_at()

    # --- reading -----------------------------------------------------------------------------------

    def _ask(self, ask: Callable[[], Answer]) -> tuple[int, Answer]:
        """An answer of the store, and how often the replica had been emptied when it was asked.

        An answer of an epoch that another thread has seen end meanwhile is not given: asked again.
        """
        held = self._held
        while True:
            self.seed()
            resets = held.resets
            answer = ask()
            if resets == held.resets or answer[0].epoch == held.epoch:
                return resets, answer

    def read(self, key: Any) -> Any:
        text = keys.to_string(key)
        if key in self._held.absent:
            self.note_found(key, False)
            raise KeyError(key)
        value, expected = self.fetch(key, text)
        self.note_read(key, expected)
        if isinstance(expected, Mark):
            raise KeyError(key)
        self._hand_out(key, value)
        return value

    def fetch(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is in the store, and its revision; `ABSENT` twice if there is none."""
        resets, revision, entry = self._fetch_entry(text)
        if entry is None:
            self._held.see({key: NONE}, revision, resets)
            return ABSENT, ABSENT
        return self._take(revision, {text: entry}, resets)[key], Revision(revision.epoch, entry.number)

    def newest(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is in the store, for the caller alone, and its revision, as `fetch`."""
        resets, revision, entry = self._fetch_entry(text)
        # What is older than this must not be read after it.
        self._held.see({key: NONE if entry is None else entry.number}, revision, resets)
        if entry is None:
            return ABSENT, ABSENT
        return self.codec.open(self.name, text, entry.data), Revision(revision.epoch, entry.number)

    def revision_of(self, text: str) -> Revision | Mark:
        resets, revision, entry = self._fetch_entry(text)
        if entry is None:
            self._held.see({keys.from_string(text): NONE}, revision, resets)
            return ABSENT
        return Revision(revision.epoch, entry.number)

    def _fetch_entry(self, text: str) -> tuple[int, Revision, Entry | None]:
        resets, (revision, entries) = self._ask(lambda: self.store.fetch(self.name, [text]))
        return resets, revision, entries.get(text)

    def see(self, numbers: Mapping[Any, int], revision: Revision, resets: int) -> None:
        """Take note of what a transaction was shown: keys with the number of their last change, or `NONE`.

        :param resets: as of before the store was asked.
        """
        self._held.see(numbers, revision, resets)
        self.note(numbers)

    def see_order(self, order: Iterable[Any], revision: Revision, resets: int) -> None:
        """Take note of all the keys, as a transaction was shown them."""
        order = dict.fromkeys(order)
        self._held.take_order(order, revision, resets)
        self.note_order(order)

    def order(self) -> dict[Any, None]:
        held = self._held
        self._complete_sync()
        order = held.whole_order()
        if order is not None:
            return order
        resets, (revision, texts) = self._ask(lambda: self.store.keys(self.name))
        order = dict.fromkeys(stored_key(self.name, text) for text in texts)
        held.take_order(order, revision, resets)
        return order

    def snapshot(self) -> dict[Any, Any]:
        found, numbers = self._snapshot()
        self.note(numbers)
        self.note_order(numbers)
        for key in found.keys() & self._held.changeable:
            self._hand_out(key, found[key])
        return found

    def _snapshot(self) -> tuple[dict[Any, Any], dict[Any, int]]:
        held = self._held
        self._complete_sync()
        items = held.whole_items()
        if items is not None and items[2] and MANY * len(items[2]) <= len(items[0]) + len(items[2]):
            # A few have changed: what is brought now is of the same revision as what is held, or it is
            # not enough.
            texts = [keys.to_string(key) for key in items[2]]
            resets, (revision, entries) = self._ask(lambda: self.store.fetch(self.name, texts))
            with suppress(DecodingError):
                self._take(revision, entries, resets)
            items = held.whole_items()
        if items is not None and not items[2]:
            return items[0], items[1]
        resets, (revision, entries) = self._ask(lambda: self.store.fetch(self.name))
        found = self._take(revision, entries, resets, is_whole=True)
        return found, {stored_key(self.name, text): entry.number for text, entry in entries.items()}

    def contains(self, key: Any) -> bool:
        if key in self.values:
            return True
        is_there = self._finds(key)
        self.note_found(key, is_there)
        return is_there

    def _finds(self, key: Any) -> bool:
        held = self._held
        if key in held.values:
            return True
        text = keys.to_string(key)
        if key in held.absent:
            return False
        order = held.whole_order()
        if order is not None:
            return key in order
        try:
            return self.fetch(key, text)[1] is not ABSENT
        except DecodingError:
            return True

    def _complete_sync(self) -> None:
        """What is held is of one revision only when no answer was newer than the last sync."""
        self.refresh()
        if not self._held.is_whole():
            self.sync()

    def _take(
        self, revision: Revision, entries: Mapping[str, Entry], resets: int, *, is_whole: bool = False
    ) -> dict[Any, Any]:
        """What to show of entries that an answer has brought, kept if nothing newer is known.

        :raises DecodingError: if one can't be decoded; the others are kept all the same.
        """
        opened, unreadable, failure = {}, {}, None
        for text, entry in entries.items():
            key = stored_key(self.name, text)
            try:
                opened[key] = self._open(key, text, entry, Revision(revision.epoch, entry.number))
            except DecodingError as error:
                unreadable[key], failure = entry.number, failure or error
        if unreadable:
            self._held.see(unreadable, revision, resets)
        if is_whole:
            order = [stored_key(self.name, text) for text in entries]
            found = self._held.take_all(opened, order, revision, resets)
        else:
            found = self._held.take(opened, revision, resets)
        if failure is not None:
            raise failure
        return found

    def _open(self, key: Any, text: str, entry: Entry, at: Revision) -> Shown:
        shown = self._held.shown(key, entry.number)
        if shown is not None:
            return shown
        value = self.codec.open(self.name, text, entry.data)
        value, is_changeable = (value, False) if self._wrap is None else self._wrap(key, value, at, None)
        return Shown(value, entry.number, is_changeable)

    # --- writing --------------------------------------------------------------------------------

    def commit(
        self, items: Mapping[Any, Any], expected: Mapping[Any, Revision | Mark] | None = None
    ) -> Revision:
        writes = [self._write(key, value, (expected or {}).get(key, ANY)) for key, value in items.items()]
        self.seed()
        resets = self._held.resets
        try:
            revision = self.store.commit(writes)
            self._written(items, revision, resets, [key for key, value in items.items() if value is DELETE])
        except REFUSALS:
            raise
        except BaseException:
            # Also one that has cut the wait for the answer short: it may have been written.
            self.forget(items)
            raise
        return revision

    def _write(self, key: Any, value: Any, expected: Revision | Mark) -> Write:
        text = keys.to_string(key)
        return Write(
            self.name, text, DELETE if value is DELETE else self.codec.seal(self.name, text, value), expected
        )

    def assign(self, items: Mapping[Any, Any]) -> None:
        expected = self.noted(items)
        while True:
            try:
                self.commit(items, expected)
                return
            except ConflictError as error:
                self.met(error)
                expected = {key: at for key, at in expected.items() if key != error.key}

    def increment(self, key: Any, amount: int) -> int:
        text = keys.to_string(key)
        self.seed()
        resets = self._held.resets
        try:
            revision, value = self.store.increment(self.name, text, amount)
            self._written([key], revision, resets)
        except REFUSALS:
            raise
        except BaseException:
            self.forget([key])
            raise
        if request_here() is not None:
            self.note({key: revision.number})
        return value

    def remove_last(self) -> tuple[Any, Any]:
        while True:
            resets, (revision, texts) = self._ask(lambda: self.store.keys(self.name))
            self._held.take_order([stored_key(self.name, text) for text in texts], revision, resets)
            if not texts:
                raise KeyError("popitem(): dictionary is empty")
            key = stored_key(self.name, texts[-1])
            value, expected = self.newest(key, texts[-1])
            self.note_read(key, expected)
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
        resets = self._held.resets
        try:
            revision = self.store.drop(self.name)
            self._held.take_clear(revision, resets)
        except REFUSALS:
            raise
        except BaseException:
            self._held.empty()
            raise
        self._note_cleared(revision.epoch)

    def show_own(self, key: Any, revision: Revision, value: Any, is_changeable: bool) -> None:
        self._held.take_own(key, Shown(value, revision.number, is_changeable), revision.epoch)

    @property
    def resets(self) -> int:
        """How often the replica was emptied for another epoch; for `written`."""
        return self._held.resets

    def forget(self, written: Iterable[Any]) -> None:
        """Know nothing of keys whose write may have been applied or not."""
        self._held.forget(written)

    def written(
        self, written: Iterable[Any], revision: Revision, resets: int, removed: Iterable[Any]
    ) -> None:
        """Take note of a commit that a transaction has made of keys of this name.

        :param resets: as of before the commit.
        """
        self._written(written, revision, resets, removed)

    def wrapped(self, key: Any, value: Any, at: Revision, view: Access) -> tuple[Any, bool]:
        """A value that a transaction has read, ready to be handed out; and whether it is changeable still."""
        return (value, False) if self._wrap is None else self._wrap(key, value, at, view)

    def _written(
        self, written: Iterable[Any], revision: Revision, resets: int, removed: Iterable[Any] = ()
    ) -> None:
        numbers = {**dict.fromkeys(written, revision.number), **dict.fromkeys(removed, NONE)}
        self._held.take_written(numbers, revision, resets)
        self._note_written(numbers, revision.epoch)

    def seed(self) -> None:
        """Learn the history of the name, and commit the initial content if it has never existed there.

        Known before anything is fetched: a request that begins while the first answer is on its way must
        find that the name is in use, and sync it.

        :raises ReentryError: if this thread is in the middle of changing what is held.
        """
        held = self._held
        held.guard()
        while self._seeded_at != held.resets:
            resets = held.resets
            revision = self.store.revision(self.name)
            if self._initial is not None and revision.number == 0:
                writes = [self._write(key, value, ANY) for key, value in self._initial().items()]
                if writes:
                    with suppress(ConflictError):  # Another worker came first.
                        revision = self.store.commit(writes, {self.name: ABSENT})
            at = held.meet(revision, resets)
            if at is not None:
                self._seeded_at = at


def stored_key(name: str, text: str) -> Any:
    """The key of a key string that is in a store.

    :raises DecodingError: if this package did not write it.
    """
    try:
        return keys.from_string(text)
    except ValueError as error:
        raise DecodingError(f"{name!r} holds a key that this package did not write: {text!r}") from error
