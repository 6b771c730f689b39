"""Values made of lists, dicts, sets and tuples: made tracked, copied plain, and found again in newer ones.

A container that is in a value twice is stored as two, and so is found twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

from .access import alike, same

#: types whose instances can't be changed, nor hold anything that can
FROZEN = frozenset(
    {str, int, float, bool, type(None), bytes, complex, frozenset}
    | {datetime, date, time, timedelta, timezone, Decimal, UUID}
)
CONTAINERS = frozenset({list, dict, set, tuple})


class Tracked:
    """A container that is a part of a stored value; its kinds are made in `flask_globalstate.tracked`."""

    __slots__ = ()
    #: what it is a part of
    _root: Any
    #: what led to it from there, once it is a part no more
    _path: tuple[Any, ...]


#: the tracked type of each plain one, and the opposite
TRACKED: dict[type, type[Any]] = {}
PLAIN: dict[type, type[Any]] = {}


#: from this depth on it is looked for containers that hold themselves
DEEP = 8


class Aliased(Exception):
    """A container is in a value twice, or in itself."""


# --- making tracked ---------------------------------------------------------------------------------


def make_tracked(root: Any, value: Any) -> tuple[Any, bool]:
    """A tracked value for a plain one; and whether it holds something that is not tracked.

    :raises RecursionError: if it holds itself, or is as deep.
    """
    if type(value) in TRACKED:
        try:
            return _Level(root, value).all()
        except Aliased:
            pass
    return _tracked_slowly(root, value)


class _Level:
    """The containers at one depth of a value: many at once, since that is what large values hold."""

    def __init__(self, root: Any, value: Any) -> None:
        self._root = root
        self._value = value
        self._depth = 0
        self._seen: set[int] = set()
        self._lists: list[Any] = []
        self._dicts: list[Any] = []
        self._is_loose = False

    def all(self) -> tuple[Any, bool]:
        """The tracked value, and whether it holds something that is not tracked.

        :raises Aliased: if a container is met twice, deep in the value.
        """
        (made,) = self._made(type(self._value), [self._value])
        while self._lists or self._dicts:
            self._depth += 1
            lists, self._lists = self._lists, []
            dicts, self._dicts = self._dicts, []
            if not FROZEN.issuperset(map(type, chain.from_iterable(lists))):
                self._fill(list(filter(self._fill_alike, lists)), enumerate, list.__setitem__)
            if not FROZEN.issuperset(map(type, chain.from_iterable(map(dict.values, dicts)))):
                self._fill(dicts, dict.items, dict.__setitem__)
        return made, self._is_loose

    def _made(self, kind: type, values: list[Any]) -> list[Any]:
        """A tracked container for each plain one of a kind; what is in them is plain still."""
        made = list(map(TRACKED[kind], values))
        for container in made:
            container._root = self._root
        if kind is list:
            self._lists += made
        elif kind is dict:
            self._dicts += made
        elif not FROZEN.issuperset(map(type, chain.from_iterable(made))):
            self._is_loose = self._is_loose or any(map(_is_loose, chain.from_iterable(made)))
        return made

    def _meet(self, containers: list[Any]) -> None:
        if self._depth < DEEP:
            return
        before = len(self._seen)
        self._seen.update(map(id, containers))
        if len(self._seen) != before + len(containers):
            raise Aliased

    def _fill_alike(self, container: list[Any]) -> bool:
        """Make the elements of a list tracked if they are all of a kind, and say whether they are not."""
        kinds = set(map(type, container))
        if len(kinds) > 1 or kinds.isdisjoint(TRACKED):
            return not kinds <= FROZEN
        self._meet(container)
        list.__setitem__(container, slice(None), self._made(kinds.pop(), container))
        return False

    def _fill(
        self,
        containers: list[Any],
        items_of: Callable[[Any], Iterable[tuple[Any, Any]]],
        put: Callable[[Any, Any, Any], None],
    ) -> None:
        """Make the items of containers tracked."""
        places: dict[type, list[tuple[Any, Any, Any]]] = {kind: [] for kind in CONTAINERS}
        for container in containers:
            for step, item in items_of(container):
                kind = type(item)
                if kind in FROZEN:
                    continue
                if kind in CONTAINERS:
                    places[kind].append((container, step, item))
                else:
                    self._is_loose = True
        for container, step, item in places.pop(tuple):
            if not FROZEN.issuperset(map(type, item)):
                made, is_loose = _tracked_slowly(self._root, item)
                put(container, step, made)
                self._is_loose = self._is_loose or is_loose
        for kind, found in places.items():
            values = [item for _, _, item in found]
            self._meet(values)
            for (container, step, _), made in zip(found, self._made(kind, values), strict=True):
                put(container, step, made)


def _is_loose(item: Any) -> bool:
    """Whether something that can be in a set can be changed."""
    return any(map(_is_loose, item)) if type(item) is tuple else type(item) not in FROZEN


def _tracked_slowly(root: Any, value: Any) -> tuple[Any, bool]:
    kind = type(value)
    if kind not in CONTAINERS:
        return value, kind not in FROZEN
    if kind is set:
        items: list[tuple[Any, bool]] = [(item, _is_loose(item)) for item in value]
    else:
        items = [_tracked_slowly(root, item) for item in (value.values() if kind is dict else value)]
    made = [item for item, _ in items]
    is_loose = any(loose for _, loose in items)
    if kind is tuple:
        return tuple(made), is_loose
    container = TRACKED[kind](zip(value, made, strict=True) if kind is dict else made)
    container._root = root
    return container, is_loose


# --- copying plain ----------------------------------------------------------------------------------


def copy_plain(value: Any) -> tuple[Any, dict[int, Any]]:
    """A plain copy of a tracked value, and the copy of each of its containers by the container's id."""
    copies: dict[int, Any] = {}
    return _copied(value, copies), copies


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    kind = type(value)
    plain = PLAIN.get(kind)
    if plain is None:
        if kind is tuple and not FROZEN.issuperset(map(type, value)):
            return tuple([_copied(item, copies) for item in value])
        return value
    made = plain(value)
    copies[id(value)] = made
    if plain is list and not FROZEN.issuperset(map(type, made)):
        same = _copied_alike(made, copies)
        made[:] = [_copied(item, copies) for item in made] if same is None else same
    elif plain is dict and not FROZEN.issuperset(map(type, made.values())):
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
    if plain is not set and not FROZEN.issuperset(map(type, held)):
        return None
    made = list(map(plain, items))
    copies.update(zip(map(id, items), made, strict=True))
    return made


def settled(value: Any) -> tuple[Any, bool]:
    """A value of which no part is tracked, and no container the caller's; and whether it is loose.

    Loose is what has something in it that is the caller's still, or may come out of a store as something
    else. A value that holds itself stays as it is.
    """
    try:
        return _settled(value)
    except RecursionError:
        return value, True


def _settled(value: Any) -> tuple[Any, bool]:
    kind = type(value)
    if kind in FROZEN:
        return value, False
    kind = PLAIN.get(kind, kind)
    if kind is dict:
        items = {key: _settled(item) for key, item in list(value.items())}
        is_loose = any(loose for _, loose in items.values()) or any(map(_is_loose, items))
        return {key: item for key, (item, _) in items.items()}, is_loose
    if kind is list or kind is tuple:
        pieces = [_settled(item) for item in list(value)]
        return kind([item for item, _ in pieces]), any(loose for _, loose in pieces)
    if kind is set:
        return set(value), any(map(_is_loose, value))
    return value, True


def can_be_tracked(value: Any) -> bool:
    """Whether a value is not in itself, nor as deep."""
    try:
        _go_through(value)
    except RecursionError:
        return False
    return True


def _go_through(value: Any) -> None:
    if type(value) in CONTAINERS and type(value) is not set:
        for item in items_that_change(value):
            _go_through(item)


def items_that_change(container: Any) -> list[Any]:
    """What is in a container that is not frozen."""
    items = container.values() if isinstance(container, dict) else container
    if FROZEN.issuperset(map(type, items)):
        return []
    return [item for item in list(items) if type(item) not in FROZEN]


# --- finding again ----------------------------------------------------------------------------------


def parts_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every tracked container in a value, itself included, and the keys and positions that lead to it."""
    kind = PLAIN.get(type(value), tuple)
    if type(value) in PLAIN:
        yield path, value
    elif type(value) is not tuple:
        return
    if kind is set or FROZEN.issuperset(map(type, value.values() if kind is dict else value)):
        return
    for step, item in list(value.items() if kind is dict else enumerate(value)):
        if type(item) not in FROZEN:
            yield from parts_of(item, (*path, step))


def path_to(value: Any, part: Any) -> tuple[Any, ...] | None:
    """The keys and positions that lead to a part of a value, or None if it is not in it."""
    return next((path for path, found in parts_of(value) if found is part), None)


def pairs(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a value, with what it is in a newer one; what is not found for sure is left out.

    A dict's item is found by its key, an element of a list by what stands before and behind it.
    """
    kind = PLAIN.get(type(new), type(new))
    if PLAIN.get(type(old), type(old)) is not kind or kind not in CONTAINERS:
        return
    if kind is not tuple:
        yield old, new
    if kind is dict:
        for key, item in list(old.items()):
            if type(item) not in FROZEN and key in new:
                yield from pairs(item, new[key])
    elif kind is not set and not (FROZEN.issuperset(map(type, old)) or FROZEN.issuperset(map(type, new))):
        for item, other in _same_elements(list(old), list(new)):
            yield from pairs(item, other)


def _same_elements(old: list[Any], new: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs of elements that are the same place: around all that has changed, and the only one that has."""
    shorter = min(len(old), len(new))
    head = shorter if same(old[:shorter], new[:shorter]) else 0
    while head < shorter and _are_alike(old[head], new[head]):
        head += 1
    tail = 0
    while tail < shorter - head and _are_alike(old[-1 - tail], new[-1 - tail]):
        tail += 1
    if len(old) == len(new) == head + tail + 1:
        head += 1
    yield from zip(old[:head], new[:head], strict=True)
    if tail:
        yield from zip(old[-tail:], new[-tail:], strict=True)


def _are_alike(old: Any, new: Any) -> bool:
    return same(old, new) or alike(copy_plain(old)[0], copy_plain(new)[0])


# --- showing ----------------------------------------------------------------------------------------


def show(root: Any, value: Any, originals: dict[int, Any]) -> Any:
    """A plain value in tracked containers.

    :param originals: the containers to be filled anew, by the id of the plain one; each is used once.
    """
    kind = type(value)
    if kind is tuple and not FROZEN.issuperset(map(type, value)):
        return tuple([show(root, item, originals) for item in value])
    if kind not in TRACKED:
        root.is_changeable = root.is_changeable or not (kind in FROZEN or kind is tuple)
        return value
    container = originals.pop(id(value), None)
    if container is None:
        made, is_loose = make_tracked(root, value)
        root.is_changeable = root.is_changeable or is_loose
        return made
    if kind is list:
        if not FROZEN.issuperset(map(type, value)):
            value = [show(root, item, originals) for item in value]
        list.__setitem__(container, slice(None), value)
    elif kind is dict:
        if not FROZEN.issuperset(map(type, value.values())):
            value = {key: show(root, item, originals) for key, item in value.items()}
        show_dict(container, value)
    else:
        set.update(container, value)
        set.intersection_update(container, value)
        root.is_changeable = root.is_changeable or any(map(_is_loose, value))
    return container


def show_dict(container: dict[Any, Any], content: dict[Any, Any]) -> None:
    """Change a dict without emptying it in between, where the order allows it."""
    kept = [key for key in container if key in content]
    if list(content)[: len(kept)] != kept:
        dict.clear(container)
    for key in [key for key in container if key not in content]:
        dict.__delitem__(container, key)
    dict.update(container, content)
