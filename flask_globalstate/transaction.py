"""Transactions: reads and writes over several names that commit together or not at all.

Optimistic, after Kung and Robinson, "On optimistic methods for concurrency control" (1981): what is read
is noted with its revision, what is written stays here, and one commit at the end does the writes under
the condition that all that was read is as it was. So transactions are serializable.

What is read inside is of one revision too, also in a transaction that will fail: each time more is read
than before, all that was read is checked to be as it was.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from . import keys
from .access import Access, same
from .errors import ConflictError
from .replica import Replica, stored_key
from .revision import Revision
from .scope import current_transactions
from .stores.base import ABSENT, ANY, CHECK, DELETE, Entry, Expected, Mark, Store, Write, not_an_integer


class View(Access):
    """What a transaction sees of a name; it has what a proxy asks of a `Replica`.

    :param transaction: the transaction.
    :param replica: the replica of the name.
    """

    is_private = True

    def __init__(self, transaction: Transaction, replica: Replica) -> None:
        self.name = replica.name
        self.store = replica.store
        self.codec = replica.codec
        self.replica = replica
        self.values: dict[Any, Any] = {}
        #: the revision at which each key was read, and at which the whole name was
        self.read_at: dict[str, Revision | Mark] = {}
        self.name_read_at: Revision | None = None
        self.written: dict[str, tuple[Any, Any]] = {}
        self._transaction = transaction
        self._entries: dict[str, Entry] = {}
        self._order: list[str] | None = None
        self._own: dict[str, Revision] = {}

    # --- reading --------------------------------------------------------------------------------

    def here(self) -> View:
        return self

    def refresh(self) -> None:
        """A transaction reads what it has begun with."""

    sync = refresh

    def read(self, key: Any) -> Any:
        text = keys.to_string(key)
        data = self._data(text)
        if data is ABSENT:
            raise KeyError(key)
        value = self.codec.open(self.name, text, data)
        at = self.revision_of(text)
        if self.store.holds_objects:
            value = self._private(text, value)
        elif isinstance(at, Revision):
            value = self.replica.tracked(key, value, at, self)
        self.values[key] = value
        return value

    def _private(self, text: str, value: Any) -> Any:
        """A copy of an object in the store; at the end of the transaction one sees whether it has changed."""
        return value if text in self.written else copy.deepcopy(value)

    def note_changed_objects(self) -> None:
        """Take what was changed in place for written; in a store that holds the objects themselves."""
        if not self.store.holds_objects:
            return
        for key, value in self.values.items():
            entry = self._entries.get(keys.to_string(key))
            if keys.to_string(key) not in self.written and entry is not None and not same(entry.data, value):
                self.written[keys.to_string(key)] = key, value

    def newest(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        data = self._data(text)
        if data is ABSENT:
            return ABSENT, ABSENT
        return self.codec.open(self.name, text, data), self.revision_of(text)

    def revision_of(self, text: str) -> Revision | Mark:
        if text in self.written:
            return self._own[text] if self.written[text][1] is not DELETE else ABSENT
        if text not in self.read_at:
            self._fetch([text])
        return self.read_at[text]

    def contains(self, key: Any) -> bool:
        return self._data(keys.to_string(key)) is not ABSENT

    def order(self) -> dict[Any, None]:
        if self._order is None:
            self.replica.seed()
            with self._transaction.reading(self.name):
                revision, self._order = self.store.keys(self.name)
                self._read_name_at(revision)
        texts = dict.fromkeys(self._order)
        for text, (_, data) in self.written.items():
            if data is DELETE:
                texts.pop(text, None)
            else:
                texts.setdefault(text)
        return {stored_key(self.name, text): None for text in texts}

    def snapshot(self) -> dict[Any, Any]:
        if self.name_read_at is None or not self._entries.keys() >= set(self._order or ()):
            self.replica.seed()
            with self._transaction.reading(self.name):
                revision, entries = self.store.fetch(self.name)
                self._read_name_at(revision)
                for text, entry in entries.items():
                    self._take(text, entry, revision)
                self._order = list(entries)
        return {key: self.values[key] if key in self.values else self.read(key) for key in self.order()}

    def holds(self, key: Any, value: Any) -> bool:
        return self.values.get(key) is value

    def _data(self, text: str) -> Any:
        if text in self.written:
            data = self.written[text][1]
            return ABSENT if data is DELETE else data
        if text not in self.read_at:
            self._fetch([text])
        entry = self._entries.get(text)
        return ABSENT if entry is None else entry.data

    def _fetch(self, texts: list[str]) -> None:
        self.replica.seed()
        with self._transaction.reading(self.name):
            revision, entries = self.store.fetch(self.name, texts)
            for text in texts:
                self._take(text, entries.get(text), revision)

    def _take(self, text: str, entry: Entry | None, revision: Revision) -> None:
        at = ABSENT if entry is None else Revision(revision.epoch, entry.number)
        before = self.read_at.setdefault(text, at)
        if before != at:
            raise ConflictError(self.name, stored_key(self.name, text), _number(before), _number(at))
        if entry is not None:
            self._entries[text] = entry

    def _read_name_at(self, revision: Revision) -> None:
        if self.name_read_at not in (None, revision):
            assert self.name_read_at is not None
            raise ConflictError(self.name, None, self.name_read_at.number, revision.number)
        self.name_read_at = revision

    # --- writing --------------------------------------------------------------------------------

    def commit(
        self, items: Mapping[Any, Any], expected: Mapping[Any, Revision | Mark] | None = None
    ) -> Revision:
        """Note what is to be committed at the end."""
        texts = {key: keys.to_string(key) for key in items}
        sealed = {
            key: DELETE if value is DELETE else self.codec.seal(self.name, texts[key], value)
            for key, value in items.items()
        }
        for key, at in (expected or {}).items():
            found = self.revision_of(texts[key])
            if at is not ANY and found != at:
                raise ConflictError(self.name, key, _number(at), _number(found))
        revision = self._transaction.next_revision()
        for key, data in sealed.items():
            self.values.pop(key, None)
            self.written[texts[key]] = key, data
            self._own[texts[key]] = revision
        return revision

    def assign(self, items: Mapping[Any, Any]) -> None:
        """As `commit`: what was read is a condition of the transaction as it is."""
        self.commit(items)

    def increment(self, key: Any, amount: int) -> int:
        value, expected = self.newest(key, keys.to_string(key))
        if value is not ABSENT and type(value) is not int:
            raise not_an_integer(self.name, key)
        total: int = amount if value is ABSENT else value + amount
        self.commit({key: total}, {key: expected})
        return total

    def remove_last(self) -> tuple[Any, Any]:
        order = self.order()
        if not order:
            raise KeyError("popitem(): dictionary is empty")
        key = next(reversed(order))
        value, expected = self.newest(key, keys.to_string(key))
        self.commit({key: DELETE}, {key: expected})
        return key, value

    def clear(self) -> None:
        self.commit(dict.fromkeys(self.order(), DELETE))

    def show_own(self, key: Any, revision: Revision, show: Callable[[], tuple[Any, bool]]) -> None:
        self.values[key] = show()[0]

    def writes(self) -> Iterator[Write]:
        """What the commit at the end does to this name, and what it depends on."""
        for text, (_, data) in self.written.items():
            yield Write(self.name, text, data, self.read_at.get(text, ANY))
        yield from self.checks(self.read_at.keys() - self.written.keys())

    def checks(self, texts: Any) -> Iterator[Write]:
        """That these keys are as they were when they were read."""
        for text in texts:
            yield Write(self.name, text, CHECK, self.read_at[text])


class Rows(NamedTuple):
    """The memory that tells of changes of a name, and what was in it before the name was read."""

    now: memoryview
    then: memoryview


class Transaction:
    """Reads and writes that commit together or not at all; see `flask_globalstate.state.State.transaction`.

    One thread uses it.

    :param store: the store of the state.
    :param committing: what its commit goes through.
    """

    def __init__(self, store: Store, committing: AbstractContextManager[None]) -> None:
        self.store = store
        self._committing = committing
        self._views: dict[str, View] = {}
        self._id = f"transaction {secrets.token_hex(8)}"
        self._steps = 0
        self._rows: dict[str, Rows | None] = {}

    def view(self, replica: Replica) -> View:
        """What this transaction sees of a name."""
        view = self._views.get(replica.name)
        if view is None:
            view = self._views[replica.name] = View(self, replica)
        return view

    def next_revision(self) -> Revision:
        """The revision of something written inside; of no epoch that a store has."""
        self._steps += 1
        return Revision(self._id, self._steps)

    @contextmanager
    def running(self) -> Iterator[Transaction]:
        """Let the proxies of this context use it, and commit in the end unless there was an error."""
        token = current_transactions.set((*current_transactions.get(), self))
        try:
            yield self
        finally:
            current_transactions.reset(token)
        with self._committing:
            self._commit()

    def _commit(self) -> None:
        for view in self._views.values():
            view.note_changed_objects()
        if not any(view.written for view in self._views.values()):
            return  # What was read was of one revision.
        views = list(self._views.values())
        revision = self.store.commit([w for view in views for w in view.writes()], self._conditions())
        for view in views:
            view.replica.written([key for key, _ in view.written.values()], revision)

    def _conditions(self) -> dict[str, Expected]:
        views = self._views.values()
        return {view.name: view.name_read_at for view in views if view.name_read_at is not None}

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Check after reading more that all that was read is of one revision.

        :raises ConflictError: if another worker has changed what was read before.
        """
        row = self._watch([name])
        had_read = any(view.read_at or view.name_read_at for view in self._views.values())
        yield
        if not had_read or self._is_unchanged():
            self._rows = {**row, **self._rows}
            return
        rows = self._watch([*self._rows, name])
        checks = [check for view in self._views.values() for check in view.checks(view.read_at)]
        self.store.commit(checks, self._conditions())
        self._rows = rows

    def _watch(self, names: list[str]) -> dict[str, Rows | None]:
        """The rows of the seqcount of names, and what is in them now."""
        rows = {name: self.store.watch(name) for name in names}
        return {
            name: None if row is None else Rows(row, memoryview(row.tobytes()).cast("Q"))
            for name, row in rows.items()
        }

    def _is_unchanged(self) -> bool:
        """Whether shared memory tells that what was read is as it was, and nothing is under way."""
        return all(
            rows is not None and rows.now == rows.then and self.store.is_idle(name, rows.then)
            for name, rows in self._rows.items()
        )


def _number(at: Revision | Mark) -> Any:
    return at.number if isinstance(at, Revision) else "absent"
