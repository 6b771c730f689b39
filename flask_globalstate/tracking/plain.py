"""Values made of lists, dicts, sets and tuples: what is in them, and plain copies.

A container that is in a value twice is stored as two, and so is found twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import EncodingError
from .containers import FROZEN, Kind, are_frozen
from .kinds import KINDS, TRACKED_KINDS, kind_of

#: how many containers may be in each other in a value that is tracked: so few that every thread finds room
#: on its stack to go through them
DEEPEST = 200
#: from how many containers on it pays to look whether all are alike
MANY = 8


class StandIn:
    """What stands for a plain object that is shared; see `flask_globalstate.proxies.base`."""

    def _unwrap(self) -> Any:
        """The plain object that it stands for."""
        raise NotImplementedError


class TrackedContainer:
    """A list, dict or set in a stored value; the types are made in `flask_globalstate.tracking.types`."""

    __slots__ = ()
    #: the value that it is in
    _tracked_value: Any
    #: what led to it from there, once it is no longer in it
    _path: tuple[Any, ...]


def is_untracked(item: Any) -> bool:
    """Whether a set's item or a dict's key is none of the frozen types, nor a tuple of these."""
    if type(item) is not tuple:
        return type(item) not in FROZEN
    try:
        return any(map(is_untracked, item))
    except RecursionError:
        return True


def unwrap_all(value: Any) -> tuple[Any, dict[int, Any]]:
    """A plain copy of a tracked value, and the copy of each of its containers by the container's id.

    :raises EncodingError: if it has become so deep that it can't be gone through.
    """
    copies: dict[int, Any] = {}

    def copied(value: Any) -> Any:
        kind = TRACKED_KINDS.get(type(value))
        if kind is None:
            return value
        made = _copied_rows(kind, copies, value) if len(value) >= MANY else None
        if made is None:
            made = kind.convert(value, copied)
        copies[id(value)] = made
        return made

    try:
        return copied(value), copies
    except RecursionError as error:
        raise EncodingError("a value has too many containers in each other to be copied") from error


def _copied_rows(kind: Kind, copies: dict[int, Any], value: Any) -> Any:
    """A plain copy of a container of containers that are of one kind and hold no others, or None."""
    items = kind.items(value)
    of_rows = TRACKED_KINDS.get(type(next(iter(items))))
    if of_rows is None or not kind.is_tracked or not kind.holds_containers or len(set(map(type, items))) > 1:
        return None
    if of_rows.holds_containers and not are_frozen(of_rows.all_items(items)):
        return None
    rows = list(map(of_rows.shallow, items))
    copies.update(zip(map(id, items), rows, strict=True))
    made = kind.shallow(value)
    kind.fill(made, rows)
    return made


def detach(value: Any) -> tuple[Any, bool]:
    """A value with containers of its own, in which nothing is tracked; and whether it holds what can't be.

    That is an object that is still the caller's, or may come out of a store as something else. A value that
    holds itself, or is deeper than `DEEPEST`, stays as it is.
    """
    try:
        detaching = _Detaching()
        return detaching.detach(DEEPEST, value), detaching.has_untracked
    except RecursionError:
        return value, True


class _Detaching:
    """Does that for all of one value; it takes few frames of the stack for each container in another."""

    has_untracked = False

    def detach(self, deepest: int, value: Any) -> Any:
        if type(value) in FROZEN:
            return value
        if not deepest:
            raise RecursionError
        kind = kind_of(value)
        if kind is None:
            self.has_untracked = True
            return value
        made = kind.convert(value, partial(self.detach, deepest - 1))
        if kind.is_hashed and not self.has_untracked:
            self.has_untracked = any(map(is_untracked, made))
        return made


def can_be_tracked(value: Any) -> bool:
    """Whether a value is not in itself, nor deeper than `DEEPEST`."""
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
