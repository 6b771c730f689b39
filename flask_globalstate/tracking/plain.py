"""Plain copies of values made of lists, dicts, sets and tuples.

A container that is in a value twice is stored twice, and so is copied twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import EncodingError
from .containers import FROZEN, Kind, are_frozen
from .kinds import KINDS, TRACKED_KINDS, kind_of

#: how deep the containers of a tracked value may be nested: every thread's stack has room for that
DEEPEST = 200
#: how many items a container must have before it pays to look for rows
MANY = 8


class StandIn:
    """Something that stands for a shared plain object; see `flask_globalstate.proxies.base`."""

    __slots__ = ("__weakref__",)

    def _unwrap(self) -> Any:
        """Return the plain object that it stands for."""
        raise NotImplementedError


class TrackedContainer:
    """A list, dict or set in a stored value; the types are made in `flask_globalstate.tracking.types`."""

    __slots__ = ()
    #: the value that it is in
    _tracked_value: Any
    #: what led to it from there, once it is no longer in it
    _path: tuple[Any, ...]


def is_untracked(item: Any) -> bool:
    """Tell whether a set's item or a dict's key is neither of a frozen type nor a tuple of such items."""
    if type(item) is not tuple:
        return type(item) not in FROZEN
    try:
        return any(map(is_untracked, item))
    except RecursionError:
        return True


def unwrap_all(value: Any) -> tuple[Any, dict[int, Any]]:
    """Return a plain copy of a tracked value, and by the id of each container in it the copy of that.

    :raises EncodingError: if it has become too deep to be copied.
    """
    if type(value) not in TRACKED_KINDS:
        return value, {}
    unwrapping = _Unwrapping()
    try:
        return unwrapping.unwrap(value), unwrapping.copies
    except RecursionError as error:
        raise EncodingError("a value has too many containers nested in each other to be copied") from error


class _Unwrapping:
    """Copies one tracked value.

    :ivar copies: the plain copy of each container, by the container's id.
    """

    def __init__(self) -> None:
        self.copies: dict[int, Any] = {}

    def unwrap(self, value: Any) -> Any:
        kind = TRACKED_KINDS.get(type(value))
        if kind is None:
            return value
        made = self._rows(kind, value) if len(value) >= MANY else None
        if made is None:
            made = kind.convert(value, self.unwrap)
        self.copies[id(value)] = made
        return made

    def _rows(self, kind: Kind, value: Any) -> Any:
        """Return a plain copy of rows, which are containers of one kind that hold no others, or None."""
        if not (kind.is_tracked and kind.holds_containers):
            return None
        items = kind.items(value)
        of_rows = TRACKED_KINDS.get(type(next(iter(items))))
        if of_rows is None or len(set(map(type, items))) > 1:
            return None
        if of_rows.holds_containers and not are_frozen(of_rows.all_items(items)):
            return None
        rows = list(map(of_rows.shallow, items))
        self.copies.update(zip(map(id, items), rows, strict=True))
        made = kind.shallow(value)
        kind.fill(made, rows)
        return made


def detach(value: Any) -> tuple[Any, bool]:
    """Return a value with containers of its own and none tracked; and whether it holds something untracked.

    That is an object that is still the caller's, and may come out of a store as something else. A value that
    holds itself, or is deeper than `DEEPEST`, is returned as it is.
    """
    if type(value) in FROZEN:
        return value, False
    try:
        detaching = _Detaching()
        return detaching.detach(DEEPEST, value), detaching.has_untracked
    except RecursionError:
        return value, True


def detach_strictly(value: Any) -> Any:
    """Return a value with containers of its own and none tracked.

    :raises RecursionError: if it holds itself, or is deeper than `DEEPEST`.
    """
    return _Detaching().detach(DEEPEST, value)


class _Detaching:
    """Detaches one value; takes few frames of the stack for each level."""

    has_untracked = False

    def detach(self, deepest: int, value: Any) -> Any:
        if type(value) in FROZEN:
            return value
        if not deepest:
            raise RecursionError
        kind = kind_of(value)
        if kind is None:
            if isinstance(value, StandIn):
                return self.detach(deepest, value._unwrap())
            self.has_untracked = True
            return value
        made = kind.convert(value, partial(self.detach, deepest - 1))
        if kind.is_hashed and not self.has_untracked:
            self.has_untracked = any(map(is_untracked, made))
        return made


def can_be_tracked(value: Any) -> bool:
    """Tell whether a value neither holds itself nor is deeper than `DEEPEST`."""
    try:
        _go_through(value, DEEPEST)
    except RecursionError:
        return False
    return True


def _go_through(value: Any, deepest: int) -> None:
    kind = KINDS.get(type(value))
    if kind is None:
        return
    if not deepest:
        raise RecursionError
    if kind.holds_containers and not are_frozen(kind.items(value)):
        for item in list(kind.items(value)):
            if type(item) not in FROZEN:
                _go_through(item, deepest - 1)
