"""How a name is read and written, whoever asks; and changes that depend on what is there.

Those read, decide, commit if nobody came between, and else begin again.
"""

from __future__ import annotations

import copy
import logging
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from ..errors import ConflictError, DecodingError, EncodingError
from ..stores.base import ABSENT, ANY, DELETE, Backend, Mark
from ..values import keys
from ..values.envelope import Codec
from ..values.revision import Revision
from .requests import current_transactions

logger = logging.getLogger("flask_globalstate")
#: names, each with a type of its keys, of which was told that they are stored as another type
_told: set[tuple[str, str]] = set()

#: the row of a name whose commits no shared memory tells of
NO_ROW = memoryview(bytes(8)).cast("Q")
#: equal to no row, since it has no words; to compare a row with None would take five times as long
NEVER = memoryview(b"").cast("Q")


class Global(Protocol):
    """As much of a proxy as what works for it knows."""

    #: the name in the store
    _name: str
    _gate: AbstractContextManager[None]

    def _here(self) -> Access:
        """What this context reads and writes it through."""
        ...


def same(value: Any, other: Any) -> bool:
    """Whether two values are equal; those that can't be compared are not."""
    try:
        return bool(value == other)
    except Exception:
        # Arrays and frames compare item by item.
        return False


def alike(value: Any, other: Any) -> bool:
    """Whether two values are equal, or of the same content where their types don't know of that."""
    return same(value, other) or have_same_content(value, other)


def have_same_content(value: Any, other: Any) -> bool:
    """Whether two values have the same pickle, and so the same content even if they are not equal."""
    try:
        return pickle.dumps(value) == pickle.dumps(other)
    except Exception:
        return False


def private(key: Any, value: Any, default: Any, is_shared: bool) -> Any:
    """A value that is the caller's alone, or a copy of the default where there is none.

    :param is_shared: whether the value is the object that is in the store.
    :raises KeyError: if there is neither.
    :raises EncodingError: if it has too many objects in each other to be copied.
    """
    if value is ABSENT and default is ABSENT:
        raise KeyError(key)
    if value is not ABSENT and not is_shared:
        return value
    try:
        return copy.deepcopy(default if value is ABSENT else value)
    except RecursionError as error:
        raise EncodingError(
            f"the value of {key!r} has too many objects in each other to be copied"
        ) from error


def require_value(key: Any, given: Any) -> None:
    """Raise for the mark of a key that is not there, which somebody may give to have the key removed."""
    if given is ABSENT:
        raise TypeError(f"ABSENT is no value that {key!r} can have; remove the key, as with pop")


def key_to_write(name: str, key: Any) -> str:
    """The key string of a key that is about to be written.

    A key that comes back as another type is told of, once for each name and type.

    :raises TypeError: if it can't be stored.
    """
    text = keys.to_string(key)
    if not keys.is_plain(key):
        told = name, f"{type(key).__module__}.{type(key).__qualname__}"
        if told not in _told:
            _told.add(told)
            logger.warning(
                "%s: a key of type %s is stored as what it is equal to, %r: that is what the keys of %s will "
                "show. Write that instead, and you are not told any more",
                name,
                told[1],
                keys.from_string(text),
                name,
            )
    return text


def stored_key(name: str, text: str) -> Any:
    """The key of a key string that is in a store.

    :raises DecodingError: if this package did not write it.
    """
    try:
        return keys.from_string(text)
    except ValueError as error:
        raise DecodingError(f"{name!r} holds a key that this package did not write: {text!r}") from error


class Access(ABC):
    """What a proxy reads and writes a name through: a replica, or what a transaction sees of it."""

    name: str
    store: Backend
    codec: Codec
    #: what can be read at once, if nothing has changed
    values: dict[Any, Any]
    #: what a hit compares, see `Freshness`: shared memory that changes with each commit, and what was in it
    #: at the last sync, or `NEVER` while every read must ask. Only a replica has them
    row: memoryview
    remembered: memoryview
    #: nobody else sees what is written
    is_private = False

    @abstractmethod
    def here(self) -> Access:
        """What is used in this context: this, or what a transaction sees of it."""

    @abstractmethod
    def refresh(self) -> None:
        """Be as fresh as the mode promises to whoever reads next."""

    def fresh(self) -> Access:
        """As `here`, and fresh."""
        # Most reads are in no transaction, and need not call `here`.
        here = self.here() if current_transactions.get() else self
        here.refresh()
        return here

    @abstractmethod
    def read(self, key: Any) -> Any:
        """The value of a key that is not in ``values``.

        :raises KeyError: if it is absent, or can't be stored.
        :raises TypeError: if it is not hashable.
        """

    def item(self, key: Any) -> Any:
        """The value of a key.

        :raises KeyError, TypeError: as `read`.
        """
        try:
            return self.values[key]
        except KeyError:
            return self.read(key)

    @abstractmethod
    def contains(self, key: Any) -> bool:
        """Whether there is such a key.

        :raises KeyError: if it can't be stored.
        :raises TypeError: if it is not hashable.
        """

    @abstractmethod
    def order(self) -> dict[Any, None]:
        """The keys in the order of creation, at one revision; not to be changed."""

    @abstractmethod
    def snapshot(self) -> dict[Any, Any]:
        """Every item in the order of creation, at one revision; the caller's own dict."""

    @abstractmethod
    def assign(self, items: Mapping[Any, Any]) -> None:
        """Write keys in one atomic commit, if nobody has changed what this request has read of them.

        :raises ConflictError: if somebody has, and conflicts are to raise.
        """

    @abstractmethod
    def increment(self, key: Any, amount: int) -> int:
        """Add to an integer; the new value.

        :raises TypeError: if it is something else.
        """

    @abstractmethod
    def remove_last(self) -> tuple[Any, Any]:
        """Remove the newest item in one commit, and give it.

        :raises KeyError: if there is none.
        """

    @abstractmethod
    def clear(self) -> None:
        """Remove every item in one commit."""

    @abstractmethod
    def show_own(self, key: Any, revision: Revision, value: Any, is_mutable: bool) -> None:
        """Keep what was written by that commit, if nothing newer is known.

        :param is_mutable: whether the value can still be changed in place without our knowing.
        """

    def note_order(self, order: Mapping[Any, Any]) -> None:
        """Note that who asks has seen these keys to be all there are, so that a new one depends on that."""
        return

    def seen_order(self) -> dict[Any, None]:
        """As `order`, noted for who asks."""
        order = self.order()
        self.note_order(order)
        return order

    def note_read(self, key: Any, at: Revision | Mark) -> None:
        """Note that who asks has seen a key as of a revision, so that a write of it depends on that."""
        return

    def end_notes(self) -> None:
        """Let what was read up to here outside of requests be no condition of what is written."""
        return

    def noted_before_assignment(self, key: Any) -> int | None:
        """The number of the last change of a key as who asks has last read it, if that is noted.

        To read it in the statement that sets a part of it doesn't count.
        """
        return None

    def overwrites(self, key: Any, found: Revision, error: ConflictError) -> None:
        """Take note that a part of a value is overwritten which somebody has changed since it was seen.

        :param found: the revision at which that was met.
        :raises ConflictError: if who asks has read it, and conflicts are to raise.
        """
        return

    @abstractmethod
    def newest(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        """The value of a key as it is now, for the caller alone, and its revision; `ABSENT` twice if none."""

    @abstractmethod
    def revision_of(self, text: str) -> Revision | Mark:
        """The revision of a key, without decoding its value."""

    @abstractmethod
    def commit(
        self, items: Mapping[Any, Any], expected: Mapping[Any, Revision | Mark] | None = None
    ) -> Revision:
        """Write or `DELETE` keys in one atomic commit.

        :param expected: of some keys, the revision that the commit depends on.
        :raises TypeError: for what can't be a key; :raises EncodingError: for what can't be stored;
            nothing was written.
        :raises ConflictError: if a key is not at the revision expected.
        """

    def replace(self, key: Any, function: Callable[[Any], Any]) -> Any:
        """Commit ``function(value)`` in place of the value, retried until no other worker came between.

        :param function: is given the value, or `ABSENT`; gives a new value, or `DELETE`, or `ANY` to
            leave it as it is. It may run several times.
        :returns: the value that the function was given the last time.
        """
        text = keys.to_string(key)
        while True:
            value, expected = self.newest(key, text)
            self.note_read(key, expected)
            new = function(value)
            if new is ANY:
                return value
            require_value(key, new)
            with suppress(ConflictError):
                self.commit({key: new}, {key: expected})
                return value

    def apply(self, key: Any, function: Callable[[Any], Any], default: Any) -> Any:
        """Commit ``function(value)`` in place of the value, and give it; as `replace`.

        :param default: what the function is given a copy of if there is no value; `ABSENT` for none.
        :raises KeyError: if there is neither a value nor a default.
        """
        new: Any = None

        def step(value: Any) -> Any:
            nonlocal new
            new = function(private(key, value, default, self.store.holds_objects))
            return new

        self.replace(key, step)
        return new

    def pop(self, key: Any) -> Any:
        """Remove a key in one commit; its value, or `ABSENT`.

        :raises KeyError: if it can't be stored.
        """
        keys.to_find(key)
        return self.replace(key, lambda value: ANY if value is ABSENT else DELETE)

    def setdefault(self, key: Any, default: Any) -> None:
        """Set a key that is absent, in one commit."""
        self.replace(key, lambda value: default if value is ABSENT else ANY)

    def remove(self, key: Any) -> None:
        """Remove a key in one commit, also one whose value can't be decoded.

        :raises KeyError: if there is none.
        """
        text = keys.to_find(key)
        while True:
            expected = self.revision_of(text)
            if expected is ABSENT:
                self.note_read(key, expected)
                raise KeyError(key)
            with suppress(ConflictError):
                self.commit({key: DELETE}, {key: expected})
                return
