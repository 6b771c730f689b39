"""Wrapping plain values in tracked containers: many at once, since that is what large values hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from .containers import FROZEN, Kind, are_frozen
from .kinds import KINDS
from .plain import DEEPEST, is_untracked

#: puts wrapped containers where the plain ones were; and which those are: of a kind, in the level below
Fill = tuple[Callable[[list[Any]], None], Kind, int, int]
#: containers, each with a key or position in it and what is there
Places = Iterable[tuple[Any, Any, Any]]


class Aliased(Exception):
    """A container is in a value twice, or holds itself."""


def wrap_containers(tracked: Any, value: Any) -> tuple[Any, bool]:
    """Wrap a plain value in tracked containers; say too whether it holds something untracked.

    :param value: must not be used any more, unless there is an error.
    :raises RecursionError: if it holds itself, or is deeper than `DEEPEST`.
    """
    kind = KINDS.get(type(value))
    if kind is not None and kind.is_tracked:
        with suppress(Aliased):
            return _Plan(tracked, kind, value).carry_out()
    slow = _OneByOne(tracked)
    return slow.wrap(DEEPEST, value), slow.has_untracked


class _OneByOne:
    """Wraps a value container by container; takes few frames of the stack for each level.

    :ivar has_untracked: whether something mutable was found that can't be tracked.
    """

    def __init__(self, tracked: Any) -> None:
        self._tracked_value = tracked
        self.has_untracked = False

    def wrap(self, deepest: int, value: Any) -> Any:
        """Wrap a value that may hold a container twice."""
        kind = KINDS.get(type(value))
        if kind is None:
            self.has_untracked = self.has_untracked or type(value) not in FROZEN
            return value
        if not deepest:
            raise RecursionError
        if not kind.holds_containers:
            self.has_untracked = self.has_untracked or any(map(is_untracked, value))
        made = kind.convert(value, partial(self.wrap, deepest - 1))
        if kind.is_tracked:
            made = kind.tracked(made)
            made._tracked_value = self._tracked_value
        return made


class _Plan:
    """A plan to wrap a value: all containers of a level and a kind at once, the innermost first.

    Large values are rows with the same keys and types, and to look at a column costs less than to look at
    each of its items.
    """

    def __init__(self, tracked: Any, kind: Kind, value: Any) -> None:
        self._tracked_value = tracked
        self._kind = kind
        self._slow = _OneByOne(tracked)
        self._seen: set[int] = set()
        self._levels: list[tuple[dict[Kind, list[Any]], list[Fill]]] = []
        level: dict[Kind, list[Any]] = {kind: [value]}
        while level:
            if len(self._levels) == DEEPEST:
                raise RecursionError
            self._below: defaultdict[Kind, list[Any]] = defaultdict(list)
            self._fills: list[Fill] = []
            for each, containers in level.items():
                self._look_into(each, containers)
            self._levels.append((level, self._fills))
            level = self._below

    def carry_out(self) -> tuple[Any, bool]:
        """Wrap the value; say too whether it holds something untracked."""
        made: dict[Kind, list[Any]] = {}
        for level, fills in reversed(self._levels):
            for fill, kind, start, stop in fills:
                fill(made.get(kind, [])[start:stop])
            made = {kind: self._wrapped(kind, containers) for kind, containers in level.items()}
        return made[self._kind][0], self._slow.has_untracked

    def _wrapped(self, kind: Kind, containers: list[Any]) -> list[Any]:
        made = list(map(kind.tracked, containers))
        for container in made:
            container._tracked_value = self._tracked_value
        return made

    def _meet(self, containers: list[Any]) -> None:
        """Check that each container is met for the first time, since it can be filled only once.

        :raises Aliased: if one was met before.
        """
        before = len(self._seen)
        self._seen.update(map(id, containers))
        if len(self._seen) != before + len(containers):
            raise Aliased

    def _look_into(self, kind: Kind, containers: list[Any]) -> None:
        """Find what must be wrapped in the containers of a level."""
        if are_frozen(kind.all_items(containers)):
            return
        self._meet(containers)
        if not kind.holds_containers:
            slow = self._slow
            slow.has_untracked = slow.has_untracked or any(map(is_untracked, kind.all_items(containers)))
            return
        for group in kind.groups(containers):
            self._take(*group)

    def _take(self, items: Collection[Any], fill: Callable[[list[Any]], None], places: Places) -> None:
        """Take the items of one container, or of a column of several, to the level below.

        :param fill: puts the wrapped items where these are.
        :param places: says where each of them is.
        """
        types = set(map(type, items))
        if types <= FROZEN:
            return
        kind = KINDS.get(types.pop()) if len(types) == 1 else None
        if kind is None or not kind.is_tracked:
            for place in places:
                self._take_one(*place)
            return
        below = self._below[kind]
        self._fills.append((fill, kind, len(below), len(below) + len(items)))
        below += items

    def _take_one(self, container: Any, step: Any, item: Any) -> None:
        kind = KINDS.get(type(item))
        if kind is None:
            self._slow.has_untracked = self._slow.has_untracked or type(item) not in FROZEN
        elif kind.is_tracked:
            below = self._below[kind]
            self._fills.append((partial(_fill_one, container, step), kind, len(below), len(below) + 1))
            below.append(item)
        elif not are_frozen(item):
            made = self._slow.wrap(DEEPEST - len(self._levels) - 1, item)
            self._fills.append((lambda _: container.__setitem__(step, made), kind, 0, 0))


def _fill_one(container: Any, step: Any, made: list[Any]) -> None:
    container[step] = made[0]
