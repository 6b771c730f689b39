"""`SharedDict`: what a user holds in place of a module-level dict."""

from __future__ import annotations

import copy
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Reversible,
    ValuesView,
)
from types import MappingProxyType
from typing import Any, TypeVar, overload

from ..replicas.base import Access
from ..stores.base import ABSENT, ANY
from ..tracking.types import is_in_place, unwrap
from ..values.wording import kind_of
from .base import Proxy, as_array, look_of
from .editing import Edit

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_MISSING: Any = object()


class SharedDict(Proxy, MutableMapping[K, V]):
    """A dict that every worker shares.

    It behaves like a dict: insertion order, falsy values, None, defaults and errors. The differences:

    - Every change is one atomic commit: when it returns, every later request in every worker sees it.
    - Keys are str, int, float, bool, None, bytes, date, datetime, time, timedelta, Decimal, UUID, and tuples
      and frozensets of these. One that equals such a key, as a member of a StrEnum does, is stored as that
      key. To write any other raises TypeError.
    - ``items()``, ``values()``, ``copy()`` and iteration are each of a single revision, and a change
      during iteration, here or in another worker, doesn't disturb it.
    - Copies and pickles are plain dicts.

    Every method raises `StoreUnavailableError` if the store can't be reached, and a write raises
    `EncodingError` for a value that other workers could not read, before anything is written.
    """

    __slots__ = ()
    __class__ = look_of(dict, "SharedDict")
    __array__ = as_array
    _plain = dict
    fromkeys = dict.fromkeys

    @classmethod
    def _check_initial(cls, name: str, initial: Any) -> None:
        if initial is not None and not callable(initial) and not isinstance(initial, Mapping):
            raise TypeError(f"initial of dict {name!r} must be a mapping, not {type(initial).__qualname__}")

    @staticmethod
    def _as_items(content: Any) -> dict[Any, Any]:
        return dict(content)

    # --- reading --------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        replica = self._replica
        if replica.row != replica.remembered:
            return _read(replica.fresh(), key)  # type: ignore[no-any-return]
        try:
            return replica.values[key]  # type: ignore[no-any-return]
        except KeyError:
            return replica.read(key)  # type: ignore[no-any-return]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """The value of a key, or a default.

        :param key: the key.
        :param default: what to return if there is no such key.
        :returns: the value, or ``default``.
        """
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        try:
            return self._replica.fresh().contains(key)
        except KeyError:
            return False  # It can't be in a store.

    def __len__(self) -> int:
        return len(self._here().seen_order())

    def __iter__(self) -> Iterator[K]:
        return iter(self._here().seen_order())

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._here().seen_order())

    def keys(self) -> KeysView[K]:
        """Return a view of the keys; each pass over it is of a single revision."""
        return _Keys(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values; each pass over it is of a single revision."""
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        """Return a view of the items; each pass over it is of a single revision."""
        return _Items(self)

    def copy(self) -> dict[K, V]:
        """A plain dict of every item, all of a single revision.

        :returns: a new dict.
        """
        return self._here().snapshot()

    def snapshot(self) -> Mapping[K, V]:
        """A read-only mapping of every item, all of a single revision; it never changes.

        :returns: a new mapping.
        """
        return MappingProxyType(self._here().snapshot())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SharedDict):
            return self is other or self.copy() == other.copy()
        if isinstance(other, dict):
            return self.copy() == other  # A subclass may compare in its own way.
        if isinstance(other, Mapping):
            return self.copy() == dict(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**self.copy(), **other}

    def __ror__(self, other: Any) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return {**other, **self.copy()}

    def __copy__(self) -> dict[K, V]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[K, V]:
        return copy.deepcopy(self.copy(), memo)

    def __reduce__(self) -> tuple[type[dict[K, V]], tuple[dict[K, V]]]:
        return dict, (self.copy(),)

    def __repr__(self) -> str:
        return f"SharedDict({self._name!r}, {self._contents()})"

    def __str__(self) -> str:
        return str(self.copy())

    def _unwrap(self) -> dict[K, V]:
        return self.copy()

    # --- writing --------------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        with self._gate:
            if not is_in_place(self, key, value):
                self._here().assign({key: unwrap(value)})

    def __delitem__(self, key: K) -> None:
        with self._gate:
            self._here().remove(key)

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, default: V | D, /) -> V | D: ...
    def pop(self, key: K, default: Any = _MISSING, /) -> Any:
        """Remove a key and return its value, in one atomic commit: no two workers pop the same item.

        :param key: the key.
        :param default: what to return if there is no such key.
        :returns: the value that was removed, or ``default``.
        :raises KeyError: if there is no such key and no default.
        """
        with self._gate:
            try:
                value = self._here().pop(key)
            except KeyError:
                value = ABSENT  # It can't be in a store.
        if value is not ABSENT:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Remove the newest item and return it, in one atomic commit: no two workers pop the same item.

        :returns: the key and the value.
        :raises KeyError: if the dict is empty.
        """
        with self._gate:
            return self._here().remove_last()

    @overload
    def setdefault(self: SharedDict[K, V | None], key: K, default: None = None, /) -> V | None: ...
    @overload
    def setdefault(self, key: K, default: V, /) -> V: ...
    def setdefault(self, key: K, default: Any = None, /) -> Any:
        """The value of a key, which is first set if there is none; of several workers, one sets it.

        :param key: the key.
        :param default: what to set it to.
        :returns: the value that the key has then.
        """
        try:
            return self[key]
        except KeyError:
            with self._gate:
                self._here().setdefault(key, unwrap(default))
            return self.get(key, default)

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set several items in one atomic commit: no other worker sees some of them without the rest.

        :param other: a mapping, or an iterable of pairs of a key and a value.
        :param kwargs: further items, whose keys are str.
        """
        items = {key: unwrap(value) for key, value in dict(other, **kwargs).items()}
        with self._gate:
            self._here().assign(items)

    def __ior__(self, other: Any) -> SharedDict[K, V]:
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove every item in one atomic commit."""
        with self._gate:
            self._here().clear()

    def increment(self, key: K, by: int = 1) -> int:
        """Add to an integer and return the new value; exact, however many workers do it at once.

        :param key: the key; one that is absent counts as 0.
        :param by: what to add, an int, which may be negative.
        :returns: the new value, an int that no other call was given.
        :raises TypeError: if ``by`` or what is stored is not an int (a bool is not); nothing was written.
        :raises UnsupportedOperationError: if the store can't do it atomically.
        """
        with self._gate:
            return self._here().increment(key, whole(by))

    def compare_and_set(self, key: K, expected: Any, new: V) -> bool:
        """Set a key if its value is what you expect; of several workers that try, one succeeds.

        :param key: the key.
        :param expected: what its value must be equal to, or `flask_globalstate.ABSENT` if it must not be
            there.
        :param new: the value to set.
        :returns: True if it was set.
        :raises UnsupportedOperationError: if the store can't do it atomically.
        """
        with self._gate:
            found = self._here().replace(key, lambda value: unwrap(new) if _same(value, expected) else ANY)
        return _same(found, expected)

    def apply(self, key: K, function: Callable[[V], V], default: Any = ABSENT) -> V:
        """Replace the value of a key by what a function makes of it, in one atomic commit.

        :param key: the key.
        :param function: a callable that takes the value, a private copy, and returns the new one. It
            runs again whenever another worker came between, so it should have no other effects.
        :param default: what it is given if there is no such key.
        :returns: the new value.
        :raises KeyError: if there is no such key and no default.
        :raises UnsupportedOperationError: if the store can't do it atomically.
        """
        with self._gate:
            return self._here().apply(key, function, default)  # type: ignore[no-any-return]

    def edit(self, key: K, default: Any = ABSENT, *, retry: int | None = None) -> Edit[V]:
        """A ``with`` block, or a decorator, with a private copy of a value that is committed at its end.

        ::

            with DATA.edit("frame") as frame:
                frame["total"] = frame["a"] + frame["b"]

            @DATA.edit("frame", retry=10)
            def add(frame, row):
                frame.loc[len(frame)] = row

        Nothing is written if the block raises or changes nothing. A block runs once; a decorated function
        runs again, up to ``retry`` times, if another worker has changed the key meanwhile.

        :param key: the key.
        :param default: what is changed if there is no such key.
        :param retry: how many times a decorated function may run again, an int; None for a ``with`` block.
        :returns: an `Edit`: a context manager that gives the copy, and with ``retry`` a decorator.
        :raises KeyError: at the start, if there is no such key and no default.
        :raises ConflictError: at the end, if another worker has changed the key; nothing was written.
        """
        return Edit(self, key, default, retry)


def _read(here: Access, key: Any) -> Any:
    try:
        return here.values[key]
    except KeyError:
        return here.read(key)


def _same(value: Any, expected: Any) -> bool:
    if value is ABSENT or expected is ABSENT:
        return value is expected
    return bool(value == expected)


def whole(number: Any) -> int:
    """Return ``number`` if it is an integer.

    :raises TypeError: if it is not; a bool is not one.
    """
    if type(number) is not int:
        raise TypeError(f"a counter takes an int, which is exact, and not {kind_of(number)}")
    return number


class _Keys(KeysView[K], Reversible[K]):
    _mapping: SharedDict[K, Any]

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._mapping)


class _Values(ValuesView[V], Reversible[V]):
    _mapping: SharedDict[Any, V]

    def __iter__(self) -> Iterator[V]:
        return iter(self._mapping.copy().values())

    def __reversed__(self) -> Iterator[V]:
        return reversed(self._mapping.copy().values())

    def __contains__(self, value: object) -> bool:
        return value in self._mapping.copy().values()


class _Items(ItemsView[K, V], Reversible[tuple[K, V]]):
    _mapping: SharedDict[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(self._mapping.copy().items())

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return reversed(self._mapping.copy().items())
