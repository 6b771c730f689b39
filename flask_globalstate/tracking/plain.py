"""Values made of lists, dicts, sets and tuples: what is in them, and plain copies.

A container that is in a value twice is stored as two, and so is found twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

from ..errors import EncodingError

#: types whose instances can't be changed, nor hold anything that can
FROZEN = frozenset(
    {str, int, float, bool, type(None), bytes, complex, frozenset}
    | {datetime, date, time, timedelta, timezone, Decimal, UUID}
)
CONTAINERS = frozenset({list, dict, set, tuple})
#: how many containers may be in each other in a value that is tracked: so few that every thread finds room
#: on its stack to go through them
DEEPEST = 200


class StandIn:
    """What stands for a plain object that is shared; see `flask_globalstate.proxies.base`."""

    def _plain(self) -> Any:
        """The plain object that it stands for."""
        raise NotImplementedError


class Tracked:
    """A container that is a part of a stored value; its kinds are made in `tracking/types.py`."""

    __slots__ = ()
    #: what it is a part of
    _root: Any
    #: what led to it from there, once it is a part no more
    _path: tuple[Any, ...]


#: the tracked type of each plain one, and the opposite
TRACKED: dict[type, type[Any]] = {}
PLAIN: dict[type, type[Any]] = {}


def are_frozen(items: Iterable[Any]) -> bool:
    """Whether nothing in it can be changed."""
    return FROZEN.issuperset(map(type, items))


def is_loose(item: Any) -> bool:
    """Whether something that can be in a set can be changed, as far as one can look into it."""
    if type(item) is not tuple:
        return type(item) not in FROZEN
    try:
        return any(map(is_loose, item))
    except RecursionError:
        return True


def items_that_change(container: Any) -> list[Any]:
    """What is in a container that is not frozen."""
    items = container.values() if isinstance(container, dict) else container
    if are_frozen(items):
        return []
    return [item for item in list(items) if type(item) not in FROZEN]


def copy_plain(value: Any) -> tuple[Any, dict[int, Any]]:
    """A plain copy of a tracked value, and the copy of each of its containers by the container's id.

    :raises EncodingError: if it has become so deep that it can't be gone through.
    """
    copies: dict[int, Any] = {}
    try:
        return _copied(value, copies), copies
    except RecursionError as error:
        raise EncodingError("a value has too many containers in each other to be copied") from error


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    kind = type(value)
    plain = PLAIN.get(kind)
    if plain is None:
        if kind is tuple and not are_frozen(value):
            return tuple([_copied(item, copies) for item in value])
        return value
    made = plain(value)
    copies[id(value)] = made
    if plain is list and not are_frozen(made):
        same = _copied_alike(made, copies)
        made[:] = [_copied(item, copies) for item in made] if same is None else same
    elif plain is dict and not are_frozen(made.values()):
        for key, item in made.items():
            if type(item) not in FROZEN:
                made[key] = _copied(item, copies)
    return made


def _copied_alike(items: list[Any], copies: dict[int, Any]) -> list[Any] | None:
    """Plain copies of containers of one kind that hold no others, or None: this is what rows are."""
    kind = type(items[0])
    plain = PLAIN.get(kind)
    if plain is None or len(set(map(type, items))) > 1:
        return None
    held = chain.from_iterable(map(dict.values, items) if plain is dict else items)
    if plain is not set and not are_frozen(held):
        return None
    made = list(map(plain, items))
    copies.update(zip(map(id, items), made, strict=True))
    return made


def settled(value: Any) -> tuple[Any, bool]:
    """A value of which no part is tracked, and no container the caller's; and whether it is loose.

    Loose is what has something in it that is the caller's still, or may come out of a store as something
    else. A value that holds itself, or is deeper than `DEEPEST`, stays as it is.
    """
    try:
        return _settled(value, DEEPEST)
    except RecursionError:
        return value, True


def _settled(value: Any, deepest: int) -> tuple[Any, bool]:
    kind = type(value)
    if kind in FROZEN:
        return value, False
    if not deepest:
        raise RecursionError
    kind = PLAIN.get(kind, kind)
    if kind is dict:
        items = {key: _settled(item, deepest - 1) for key, item in list(value.items())}
        loose = any(loose for _, loose in items.values()) or any(map(is_loose, items))
        return {key: item for key, (item, _) in items.items()}, loose
    if kind is list or kind is tuple:
        pieces = [_settled(item, deepest - 1) for item in list(value)]
        return kind([item for item, _ in pieces]), any(loose for _, loose in pieces)
    if kind is set:
        return set(value), any(map(is_loose, value))
    return value, True


def can_be_tracked(value: Any) -> bool:
    """Whether a value is not in itself, nor deeper than `DEEPEST`."""
    try:
        _go_through(value, DEEPEST)
    except RecursionError:
        return False
    return True


def _go_through(value: Any, deepest: int) -> None:
    if type(value) in CONTAINERS:
        if not deepest:
            raise RecursionError
        for item in items_that_change(value) if type(value) is not set else ():
            _go_through(item, deepest - 1)
