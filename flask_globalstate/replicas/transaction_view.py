"""What a transaction sees of a name: what it has read, each at one revision, and what it will write."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..errors import ConflictError
from ..stores.base import ABSENT, ANY, CHECK, DELETE, Entry, Mark, Store, Write, not_an_integer
from ..values import keys
from ..values.revision import Revision
from .base import Access, alike, key_to_write, stored_key
from .cache import NONE
from .replica import Replica
from .requests import request_here
from .ticket import Ticket


class Isolation(Protocol):
    """What a view asks of its transaction."""

    def reading(self, name: str) -> AbstractContextManager[None]:
        """Check after reading more that all that was read is of one revision."""
        ...

    def next_revision(self) -> Revision:
        """The revision of something written inside."""
        ...


class View(Access):
    """It has what a proxy asks of a `Replica`.

    :param transaction: the transaction.
    :param replica: the replica of the name.
    """

    is_private = True

    store: Store

    def __init__(self, transaction: Isolation, replica: Replica) -> None:
        self.name = replica.name
        self.store = replica.store
        self.codec = replica.codec
        self.replica = replica
        self.values: dict[Any, Any] = {}
        #: the revision at which each key was read, and at which the whole name was
        self.read_at: dict[str, Revision | Mark] = {}
        self.name_read_at: Revision | None = None
        #: the keys that must be checked one by one: that the name is as it was doesn't say it of them
        self.unchecked: set[str] = set()
        #: by key string: the key, and what the store is to hold under it
        self.written: dict[str, tuple[Any, Any]] = {}
        self._transaction = transaction
        self._entries: dict[str, Entry] = {}
        self._order: list[str] | None = None
        self._own: dict[str, Revision] = {}
        #: what was removed and written again, and so stands at another place
        self._moved: set[str] = set()
        #: what was handed out and can be changed in place, in a request that is examined for that
        self._handed_out: dict[str, tuple[Any, Any, bytes]] = {}
        #: copies of objects in a store that holds them: at the end one sees whether they have changed
        self._copies: dict[str, tuple[Any, Any]] = {}

    # --- reading --------------------------------------------------------------------------------

    def here(self) -> View:
        return self

    def refresh(self) -> None:
        """A transaction reads what it has begun with."""

    sync = refresh

    def read(self, key: Any) -> Any:
        value, at = self.newest(key, keys.to_find(key))
        if value is ABSENT:
            raise KeyError(key)
        if isinstance(at, Revision) and not self.store.holds_objects:
            value, is_mutable = self.replica.wrapped(key, value, at, self)
            if is_mutable:
                self._hand_out(key, value)
        self.values[key] = value
        return value

    def _hand_out(self, key: Any, value: Any) -> None:
        request = request_here()
        if request is not None and request.examined:
            encoded = self.replica.in_place.encoded(key, value)
            if encoded is not None:
                self._handed_out[keys.to_string(key)] = key, value, encoded

    def examine(self) -> None:
        """Find what was changed in place and not given back."""
        for key, value, encoded in self._handed_out.values():
            if self.replica.in_place.encoded(key, value) != encoded:
                self.replica.in_place.met(key)

    def newest(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        data = self._data(text)
        if data is ABSENT:
            return ABSENT, ABSENT
        value = self.codec.open(self.name, text, data)
        if self.store.holds_objects and text not in self.written and text not in self._copies:
            value = _copy(value)
            self._copies[text] = key, value
        return value, self.revision_of(text)

    def note_changed_objects(self) -> None:
        """Take what was changed in place for written; in a store that holds the objects themselves."""
        for text, (key, value) in self._copies.items():
            if not alike(self._entries[text].data, value):
                self.written[text] = key, value

    def revision_of(self, text: str) -> Revision | Mark:
        if text in self.written:
            return self._own[text] if self.written[text][1] is not DELETE else ABSENT
        if text not in self.read_at:
            self._fetch([text])
        return self.read_at[text]

    def contains(self, key: Any) -> bool:
        return self._data(keys.to_find(key)) is not ABSENT

    def order(self) -> dict[Any, None]:
        if self._order is None:
            self.replica.seed()
            with self._transaction.reading(self.name):
                ticket = self.replica.ask()
                revision, self._order = self.store.keys(self.name)
                self.replica.show_order([stored_key(self.name, t) for t in self._order], revision, ticket)
                self._read_name_at(revision)
        texts = dict.fromkeys(self._order)
        for text, (_, data) in self.written.items():
            if data is DELETE or text in self._moved:
                texts.pop(text, None)
            if data is not DELETE:
                texts.setdefault(text)
        return {stored_key(self.name, text): None for text in texts}

    def snapshot(self) -> dict[Any, Any]:
        if self.name_read_at is None or not self._entries.keys() >= set(self._order or ()):
            self.replica.seed()
            with self._transaction.reading(self.name):
                ticket = self.replica.ask()
                revision, entries = self.store.fetch(self.name)
                self._show({**dict.fromkeys(self.read_at), **entries}, revision, ticket)
                self.replica.show_order([stored_key(self.name, text) for text in entries], revision, ticket)
                self._read_name_at(revision)
                for text in {**self.read_at, **entries}:
                    self._take(text, entries.get(text), revision)
                self._order = list(entries)
        return {key: self.item(key) for key in self.order()}

    def _data(self, text: str) -> Any:
        if text in self.written:
            data = self.written[text][1]
            return ABSENT if data is DELETE else data
        if text in self._copies:
            return self._copies[text][1]
        if text not in self.read_at:
            self._fetch([text])
        entry = self._entries.get(text)
        return ABSENT if entry is None else entry.data

    def _fetch(self, texts: list[str]) -> None:
        self.replica.seed()
        with self._transaction.reading(self.name):
            ticket = self.replica.ask()
            revision, entries = self.store.fetch(self.name, texts)
            self._show({text: entries.get(text) for text in texts}, revision, ticket)
            if self.name_read_at is not None:
                self._read_name_at(revision)
            for text in texts:
                self._take(text, entries.get(text), revision)

    def _show(self, entries: Mapping[str, Entry | None], revision: Revision, ticket: Ticket) -> None:
        """Let nothing older be read after this, and a write after the transaction depend on it."""
        numbers = {
            stored_key(self.name, text): NONE if entry is None else entry.number
            for text, entry in entries.items()
        }
        self.replica.show(numbers, revision, ticket)

    def _take(self, text: str, entry: Entry | None, revision: Revision) -> None:
        at = ABSENT if entry is None else Revision(revision.epoch, entry.number)
        if text not in self.read_at and self.name_read_at is None:
            self.unchecked.add(text)
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
        texts = {key: key_to_write(self.name, key) for key in items}
        sealed = {
            key: DELETE if value is DELETE else self.codec.seal(self.name, texts[key], value)
            for key, value in items.items()
        }
        # What another worker would commit first of all must be there, if this is the first use.
        self.replica.seed()
        for key, at in (expected or {}).items():
            found = self.revision_of(texts[key])
            if at is not ANY and found != at:
                raise ConflictError(self.name, key, _number(at), _number(found))
        revision = self._transaction.next_revision()
        for key, data in sealed.items():
            self.values.pop(key, None)
            self._put(key, texts[key], data, revision)
        return revision

    def _put(self, key: Any, text: str, data: Any, revision: Revision) -> None:
        self._copies.pop(text, None)
        self._handed_out.pop(text, None)
        if data is DELETE:
            self._moved.discard(text)
        elif self.written.get(text, (key, None))[1] is DELETE:
            del self.written[text]
            self._moved.add(text)
        self.written[text] = key, data
        self._own[text] = revision

    def assign(self, items: Mapping[Any, Any]) -> None:
        """As `commit`: what was read is a condition of the transaction as it is.

        What was read before it, and not in it, becomes one.
        """
        texts = {key: keys.to_string(key) for key in items}
        known = self.read_at.keys() | self.written.keys()
        for key, at in self.replica.read_sets.revisions(
            [key for key in items if texts[key] not in known]
        ).items():
            found = self.replica.revision_of(texts[key])
            if found != at:
                self.replica.read_sets.met(ConflictError(self.name, key, _number(at), _number(found)))
            elif self.name_read_at is None:
                self.read_at[texts[key]] = at
                self.unchecked.add(texts[key])
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

    def show_own(self, key: Any, revision: Revision, value: Any, is_mutable: bool) -> None:
        self.values[key] = value

    # --- the commit at the end --------------------------------------------------------------------

    def writes(self) -> Iterator[Write]:
        """What the commit at the end does to this name, and what it depends on."""
        for text, (_, data) in self.written.items():
            expected = self.read_at[text] if text in self.unchecked else ANY
            if text in self._moved:
                yield Write(self.name, text, DELETE, expected)
                expected = ANY
            yield Write(self.name, text, data, expected)
        yield from self._checks(self.unchecked - self.written.keys())

    def checks(self) -> Iterator[Write]:
        """That what was read is as it was, as far as a condition on the name doesn't say so."""
        return self._checks(self.unchecked)

    def _checks(self, texts: set[str]) -> Iterator[Write]:
        for text in texts:
            yield Write(self.name, text, CHECK, self.read_at[text])

    def was_checked(self) -> None:
        """Take note that all that was read is of one revision: from here on the name's says it all."""
        if self.name_read_at is not None:
            self.unchecked.clear()

    def removed(self) -> list[Any]:
        """The keys that are absent after the commit."""
        return [key for key, data in self.written.values() if data is DELETE]


def _number(at: Revision | Mark) -> Any:
    return at.number if isinstance(at, Revision) else "absent"


def _copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:
        return value  # A lock, a connection: it can't be changed by assigning to what is in it.
