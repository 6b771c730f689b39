"""One worker's copy of a name: read from it, kept as fresh as its mode promises, written through it.

What it remembers, and the rules that keep that right, are in `cache.py`; here is what talks to the store.
A hit is one lookup in a dict, without a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import ConflictError, DecodingError
from ..stores.base import ABSENT, ANY, DELETE, Entry, Mark, Store, Write
from ..values import keys
from ..values.envelope import Codec
from ..values.revision import Revision
from .base import NEVER, NO_ROW, Access, key_to_write, stored_key
from .cache import NONE, Cache, CachedValue
from .freshness import Ending, Freshness
from .in_place import InPlaceChanges
from .options import ReplicaOptions
from .read_sets import ReadSets
from .requests import current_transactions, request_here
from .ticket import Ticket, WriteTicket

#: a name is fetched again as a whole unless at least so many times as many keys are cached as lack
MANY = 4
#: an answer of a store, which begins with a revision
Answer = TypeVar("Answer", bound=tuple[Any, ...])


class Replica(Access):
    """The replica of a name in ``read`` mode: each read is linearizable.

    Any thread may use it. Its lock guards memory and is never held across a call of the store.

    :param name: the global.
    :param store: where it lives.
    :param codec: seals and opens what is stored.
    :param options: what else it is made with.
    """

    store: Store
    #: when it is brought up to date
    make_freshness: type[Freshness] = Freshness

    def __init__(self, name: str, store: Store, codec: Codec, options: ReplicaOptions | None = None) -> None:
        options = options or ReplicaOptions()
        self.name = name
        self.store = store
        self.codec = codec
        self.row, self.remembered = NO_ROW, NEVER
        self.cache = self._make_cache(name, store)
        self.in_place = InPlaceChanges(name, self.cache, codec, options.conflicts)
        self.read_sets = ReadSets(self.cache, options.conflicts, self.in_place.hand_out)
        self.values = self.read_sets.values
        self.freshness = self.make_freshness(store, name, self.cache.guard, options.outage, options.staleness)
        self._initial = options.initial
        self._seeded_at = -1
        self._wrap = options.wrap

    @staticmethod
    def _make_cache(name: str, store: Store) -> Cache:
        return Cache(name, store.cache_size)

    # --- freshness ------------------------------------------------------------------------------

    def here(self) -> Access:
        for transaction in current_transactions.get():
            if transaction.is_of(self.store):
                view: Access = transaction.view(self)
                return view
        return self

    def refresh(self) -> None:
        if self.row != self.remembered:
            self.freshness.refresh(self)

    def begin_transaction(self, transaction: Ending) -> None:
        """Let every read ask whether it is in a transaction."""
        self.freshness.begin_transaction(self, transaction)

    def end_transaction(self, transaction: Ending) -> None:
        """The opposite; the second time nothing is done."""
        self.freshness.end_transaction(self, transaction)

    def sync(self) -> None:
        """Evict every key that another worker has changed, and cache what comes in its place."""
        while True:
            look = self.freshness.look()
            ticket, since = self.ask(), self.cache.synced_at()
            if since is None:
                return  # Nothing is cached, so nothing is stale.
            changes = self.store.changes(self.name, since)
            wanted = ticket.invalidate(changes)
            if wanted is not None:
                break
        if wanted:
            entries = {text: changes.entries[text] for text in wanted}
            with suppress(DecodingError):  # Raised when that key is read.
                self._take(changes.revision, entries, ticket)
        self.freshness.take(self, look)

    @property
    def in_use(self) -> bool:
        """Whether anything is cached that could be stale."""
        return self.cache.epoch is not None

    def synced_at(self, revision: Revision) -> bool:
        """Whether nothing was committed to the name between the last sync and ``revision``."""
        return revision == self.cache.synced_at()

    # --- reading --------------------------------------------------------------------------------

    def ask(self) -> Ticket:
        """A ticket for a question to the store, to be taken before it is sent."""
        return Ticket(self.cache)

    def write(self, keys: Iterable[Any] | None) -> WriteTicket:
        """A ticket for a write of some keys, or of all for None, in a ``with`` statement."""
        return WriteTicket(self.cache, keys)

    def _answer(self, ask: Callable[[], Answer]) -> tuple[Ticket, Answer]:
        """An answer of the store, with its ticket.

        An answer of an epoch that another thread has seen end meanwhile is not given: asked again.
        """
        while True:
            self.seed()
            ticket = self.ask()
            answer = ask()
            if ticket.is_current() or answer[0].epoch == self.cache.epoch:
                return ticket, answer

    def read(self, key: Any) -> Any:
        text = keys.to_find(key)
        if key in self.cache.absent:
            self.read_sets.note_found(key, False)
            raise KeyError(key)
        value, expected = self.fetch(key, text)
        self.note_read(key, expected)
        if isinstance(expected, Mark):
            raise KeyError(key)
        self.in_place.hand_out(key, value)
        return value

    def fetch(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is in the store, and its revision; `ABSENT` twice if there is none."""
        ticket, revision, entry = self._fetch_entry(text)
        if entry is None:
            ticket.show({key: NONE}, revision)
            return ABSENT, ABSENT
        return self._take(revision, {text: entry}, ticket)[key], Revision(revision.epoch, entry.number)

    def newest(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is in the store, for the caller alone, and its revision, as `fetch`."""
        ticket, revision, entry = self._fetch_entry(text)
        # What is older than this must not be read after it.
        ticket.show({key: NONE if entry is None else entry.number}, revision)
        if entry is None:
            return ABSENT, ABSENT
        return self.codec.open(self.name, text, entry.data), Revision(revision.epoch, entry.number)

    def revision_of(self, text: str) -> Revision | Mark:
        ticket, revision, entry = self._fetch_entry(text)
        if entry is None:
            ticket.show({keys.from_string(text): NONE}, revision)
            return ABSENT
        return Revision(revision.epoch, entry.number)

    def _fetch_entry(self, text: str) -> tuple[Ticket, Revision, Entry | None]:
        ticket, (revision, entries) = self._answer(lambda: self.store.fetch(self.name, [text]))
        return ticket, revision, entries.get(text)

    def show(self, numbers: Mapping[Any, int], revision: Revision, ticket: Ticket) -> None:
        """Record what a transaction is shown: keys with the number of their last change, or `NONE`."""
        ticket.show(numbers, revision)
        self.read_sets.note(numbers)

    def show_order(self, order: Iterable[Any], revision: Revision, ticket: Ticket) -> None:
        """Record all the keys, as a transaction is shown them."""
        order = dict.fromkeys(order)
        ticket.put_order(order, revision)
        self.note_order(order)

    def order(self) -> dict[Any, None]:
        self._complete_sync()
        order = self.cache.whole_order()
        if order is not None:
            return order
        ticket, (revision, texts) = self._answer(lambda: self.store.keys(self.name))
        order = dict.fromkeys(stored_key(self.name, text) for text in texts)
        ticket.put_order(order, revision)
        return order

    def snapshot(self) -> dict[Any, Any]:
        found, numbers = self._snapshot()
        self.read_sets.note(numbers)
        self.note_order(numbers)
        for key in found.keys() & self.cache.mutable_keys:
            self.in_place.hand_out(key, found[key])
        return found

    def _snapshot(self) -> tuple[dict[Any, Any], dict[Any, int]]:
        self._complete_sync()
        items = self.cache.whole_items()
        if items is not None and items[2] and MANY * len(items[2]) <= len(items[0]) + len(items[2]):
            # A few have changed: what is brought now is of the same revision as what is cached, or it is
            # not enough.
            texts = [keys.to_string(key) for key in items[2]]
            ticket, (revision, entries) = self._answer(lambda: self.store.fetch(self.name, texts))
            with suppress(DecodingError):
                self._take(revision, entries, ticket)
            items = self.cache.whole_items()
        if items is not None and not items[2]:
            return items[0], items[1]
        ticket, (revision, entries) = self._answer(lambda: self.store.fetch(self.name))
        found = self._take(revision, entries, ticket, is_whole=True)
        return found, {stored_key(self.name, text): entry.number for text, entry in entries.items()}

    def contains(self, key: Any) -> bool:
        if key in self.values:
            return True
        is_there = self._finds(key)
        self.read_sets.note_found(key, is_there)
        return is_there

    def _finds(self, key: Any) -> bool:
        cache = self.cache
        if key in cache.values:
            return True
        text = keys.to_find(key)
        if key in cache.absent:
            return False
        order = cache.whole_order()
        if order is not None:
            return key in order
        try:
            return self.fetch(key, text)[1] is not ABSENT
        except DecodingError:
            return True

    def _complete_sync(self) -> None:
        """What is cached is of one revision only when no answer was newer than the last sync."""
        self.refresh()
        if not self.cache.is_whole():
            self.sync()

    def _take(
        self, revision: Revision, entries: Mapping[str, Entry], ticket: Ticket, *, is_whole: bool = False
    ) -> dict[Any, Any]:
        """What to show of entries that an answer has brought, cached if nothing newer is known.

        :raises DecodingError: if one can't be decoded; the others are cached all the same.
        """
        opened, unreadable, failure = {}, {}, None
        for text, entry in entries.items():
            key = stored_key(self.name, text)
            try:
                opened[key] = self._open(key, text, entry, Revision(revision.epoch, entry.number))
            except DecodingError as error:
                unreadable[key], failure = entry.number, failure or error
        if unreadable:
            ticket.show(unreadable, revision)
        if is_whole:
            found = ticket.put_all(opened, [stored_key(self.name, text) for text in entries], revision)
        else:
            found = ticket.put(opened, revision)
        if failure is not None:
            raise failure
        return found

    def _open(self, key: Any, text: str, entry: Entry, at: Revision) -> CachedValue:
        cached = self.cache.cached(key, entry.number)
        if cached is not None:
            return cached
        value = self.codec.open(self.name, text, entry.data)
        value, is_mutable = self.wrapped(key, value, at, None)
        return CachedValue(value, entry.number, is_mutable)

    def wrapped(self, key: Any, value: Any, at: Revision, view: Access | None) -> tuple[Any, bool]:
        """A value that was read, ready to be handed out; and whether it is mutable still.

        :param view: of the transaction that has read it.
        """
        return (value, False) if self._wrap is None else self._wrap(key, value, at, view)

    # --- what was read --------------------------------------------------------------------------

    def note_order(self, order: Mapping[Any, Any]) -> None:
        self.read_sets.note_order(order)

    def note_read(self, key: Any, at: Revision | Mark) -> None:
        self.read_sets.note({key: at.number if isinstance(at, Revision) else NONE})

    def noted_before_assignment(self, key: Any) -> int | None:
        return self.read_sets.number_before_assignment(key)

    def overwrites(self, key: Any, found: Revision, error: ConflictError) -> None:
        self.read_sets.overwrites(key, found, error)

    def end_notes(self) -> None:
        self.read_sets.end()

    # --- writing --------------------------------------------------------------------------------

    def commit(
        self, items: Mapping[Any, Any], expected: Mapping[Any, Revision | Mark] | None = None
    ) -> Revision:
        writes = [self._write(key, value, (expected or {}).get(key, ANY)) for key, value in items.items()]
        self.seed()
        with self.write(items) as ticket:
            revision = self.store.commit(writes)
            self.written(items, revision, ticket, [key for key, value in items.items() if value is DELETE])
        return revision

    def _write(self, key: Any, value: Any, expected: Revision | Mark) -> Write:
        text = key_to_write(self.name, key)
        data = DELETE if value is DELETE else self.codec.seal(self.name, text, value)
        return Write(self.name, text, data, expected)

    def assign(self, items: Mapping[Any, Any]) -> None:
        expected = self.read_sets.revisions(items)
        while True:
            try:
                self.commit(items, expected)
                return
            except ConflictError as error:
                self.read_sets.met(error)
                expected = {key: at for key, at in expected.items() if key != error.key}

    def increment(self, key: Any, amount: int) -> int:
        text = key_to_write(self.name, key)
        self.seed()
        with self.write([key]) as ticket:
            revision, value = self.store.increment(self.name, text, amount)
            self.written([key], revision, ticket)
        if request_here() is not None:
            self.read_sets.note({key: revision.number})
        return value

    def remove_last(self) -> tuple[Any, Any]:
        while True:
            ticket, (revision, texts) = self._answer(lambda: self.store.keys(self.name))
            ticket.put_order([stored_key(self.name, text) for text in texts], revision)
            if not texts:
                raise KeyError("popitem(): dictionary is empty")
            key = stored_key(self.name, texts[-1])
            value, expected = self.newest(key, texts[-1])
            self.note_read(key, expected)
            if expected is ABSENT:
                continue
            # The name too must be as it was, or a newer item could be there.
            write = Write(self.name, texts[-1], DELETE, expected)
            with suppress(ConflictError), self.write([key]) as write_ticket:
                self.written([key], self.store.commit([write], {self.name: revision}), write_ticket, [key])
                return key, value

    def clear(self) -> None:
        self.seed()
        with self.write(None) as ticket:
            revision = self.store.drop(self.name)
            ticket.replaced(revision)
        self.read_sets.note_cleared(revision.epoch)

    def show_own(self, key: Any, revision: Revision, value: Any, is_mutable: bool) -> None:
        self.cache.put_own(key, CachedValue(value, revision.number, is_mutable), revision.epoch)

    def written(
        self, written: Iterable[Any], revision: Revision, ticket: WriteTicket, removed: Iterable[Any] = ()
    ) -> None:
        """Record a commit of this worker, of this replica's or of a transaction's.

        :param written: the keys that the ticket is of, also those that were ``removed``.
        """
        numbers = {**dict.fromkeys(written, revision.number), **dict.fromkeys(removed, NONE)}
        ticket.replaced(revision)
        self.read_sets.note_written(numbers, revision.epoch)

    def seed(self) -> None:
        """Learn the history of the name, and commit the initial content if it has never existed there.

        Known before anything is fetched: a request that begins while the first answer is on its way must
        find that the name is in use, and sync it.

        :raises ReentryError: if this thread is in the middle of changing what is cached.
        """
        self.cache.guard()
        while self._seeded_at != self.cache.generation:
            ticket = self.ask()
            revision = self.store.revision(self.name)
            if self._initial is not None and revision.number == 0:
                writes = [self._write(key, value, ANY) for key, value in self._initial().items()]
                if writes:
                    with suppress(ConflictError):  # Another worker came first.
                        revision = self.store.commit(writes, {self.name: ABSENT})
            generation = ticket.generation_of(revision)
            if generation is not None:
                self._seeded_at = generation
