"""Plain values made tracked: many containers at once, since that is what large values hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

from .plain import CONTAINERS, DEEPEST, FROZEN, TRACKED, are_frozen, is_loose

#: puts containers of a kind into others, and which of those of the level below
Fill = tuple[Callable[[list[Any]], None], type, int, int]
#: a container, a key or position in it, and what is there
Place = tuple[Any, Any, Any]


class Aliased(Exception):
    """A container is in a value twice, or in itself."""


def make_tracked(root: Any, value: Any) -> tuple[Any, bool]:
    """A tracked value for a plain one; and whether it holds something that is not tracked.

    :param value: is the caller's no more, unless there is an error.
    :raises RecursionError: if it holds itself, or is deeper than `DEEPEST`.
    """
    if type(value) in TRACKED:
        with suppress(Aliased):
            return _Plan(root, value).carry_out()
    return _tracked_slowly(root, value, DEEPEST)


class _Plan:
    """How a value is made tracked, all containers of a level and a kind at once, and the innermost first.

    Large values are rows, alike in their keys and types, and looking at a column costs less than looking
    at each of its items.
    """

    def __init__(self, root: Any, value: Any) -> None:
        self._root = root
        self._kind = type(value)
        self._is_loose = False
        self._seen: set[int] = set()
        self._levels: list[tuple[dict[type, list[Any]], list[Fill]]] = []
        level: dict[type, list[Any]] = {self._kind: [value]}
        while level:
            if len(self._levels) == DEEPEST:
                raise RecursionError
            self._below: dict[type, list[Any]] = {kind: [] for kind in TRACKED}
            self._fills: list[Fill] = []
            for kind, containers in level.items():
                self._look_into(kind, containers)
            self._levels.append((level, self._fills))
            level = {kind: containers for kind, containers in self._below.items() if containers}

    def carry_out(self) -> tuple[Any, bool]:
        """The tracked value, and whether it holds something that is not tracked."""
        made: dict[type, list[Any]] = {}
        for level, fills in reversed(self._levels):
            for fill, kind, start, stop in fills:
                fill(made.get(kind, [])[start:stop])
            made = {kind: self._made(kind, containers) for kind, containers in level.items()}
        return made[self._kind][0], self._is_loose

    def _made(self, kind: type, containers: list[Any]) -> list[Any]:
        made = list(map(TRACKED[kind], containers))
        for container in made:
            container._root = self._root
        return made

    def _meet(self, containers: list[Any]) -> None:
        """Return if each container is met for the first time: only such can be filled.

        :raises Aliased: if one is met twice.
        """
        before = len(self._seen)
        self._seen.update(map(id, containers))
        if len(self._seen) != before + len(containers):
            raise Aliased

    def _look_into(self, kind: type, containers: list[Any]) -> None:
        """Find what is to be made tracked in the containers of a level."""
        if are_frozen(chain.from_iterable(map(dict.values, containers) if kind is dict else containers)):
            return
        self._meet(containers)
        if kind is set:
            self._is_loose = self._is_loose or any(map(is_loose, chain.from_iterable(containers)))
        elif kind is list:
            for container in containers:
                places: Iterable[Place] = ((container, n, item) for n, item in enumerate(container))
                self._take(container, partial(_fill_list, container), places)
        elif (columns := _columns(containers)) is not None:
            for key, column in columns.items():
                places = zip(containers, repeat(key), column, strict=False)
                self._take(column, partial(_fill_column, containers, key), places)
        else:
            for container in containers:
                places = ((container, key, item) for key, item in container.items())
                self._take(list(container.values()), partial(_fill_dict, container), places)

    def _take(self, items: list[Any], fill: Callable[[list[Any]], None], places: Iterable[Place]) -> None:
        """Take items of one container, or of a column of several, to the level below.

        :param fill: puts all of them where they were.
        :param places: where each of them is.
        """
        kinds = set(map(type, items))
        if kinds <= FROZEN:
            return
        if len(kinds) > 1 or kinds.isdisjoint(TRACKED):
            for place in places:
                self._take_one(*place)
            return
        kind = kinds.pop()
        below = self._below[kind]
        self._fills.append((fill, kind, len(below), len(below) + len(items)))
        below += items

    def _take_one(self, container: Any, step: Any, item: Any) -> None:
        kind = type(item)
        if kind in TRACKED:
            below = self._below[kind]
            self._fills.append((partial(_fill_one, container, step), kind, len(below), len(below) + 1))
            below.append(item)
        elif kind is tuple and not are_frozen(item):
            made, loose = _tracked_slowly(self._root, item, DEEPEST - len(self._levels) - 1)
            self._is_loose = self._is_loose or loose
            self._fills.append((lambda _: container.__setitem__(step, made), list, 0, 0))
        elif kind is not tuple and kind not in FROZEN:
            self._is_loose = True


def _columns(dicts: list[Any]) -> dict[Any, list[Any]] | None:
    """The values of dicts by key, or None unless all have the same keys."""
    if len(dicts) == 1 or len(set(map(len, dicts))) > 1:
        return None
    try:
        return {key: [each[key] for each in dicts] for key in dicts[0]}
    except KeyError:
        return None


def _fill_list(container: list[Any], made: list[Any]) -> None:
    container[:] = made


def _fill_dict(container: dict[Any, Any], made: list[Any]) -> None:
    container.update(zip(list(container), made, strict=True))


def _fill_column(containers: list[dict[Any, Any]], key: Any, made: list[Any]) -> None:
    for container, item in zip(containers, made, strict=True):
        container[key] = item


def _fill_one(container: Any, step: Any, made: list[Any]) -> None:
    container[step] = made[0]


def _tracked_slowly(root: Any, value: Any, deepest: int) -> tuple[Any, bool]:
    kind = type(value)
    if kind not in CONTAINERS:
        return value, kind not in FROZEN
    if not deepest:
        raise RecursionError
    if kind is set:
        items: list[tuple[Any, bool]] = [(item, is_loose(item)) for item in value]
    else:
        inside = value.values() if kind is dict else value
        items = [_tracked_slowly(root, item, deepest - 1) for item in inside]
    made = [item for item, _ in items]
    loose = any(loose for _, loose in items)
    if kind is tuple:
        return tuple(made), loose
    container = TRACKED[kind](zip(value, made, strict=True) if kind is dict else made)
    container._root = root
    return container, loose
