"""The kinds of containers: a further one is a class here and a row in `KINDS`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from functools import partial
from itertools import chain, repeat
from typing import Any, ClassVar

from ..replicas.base import same
from ..stores.base import ABSENT
from .containers import FROZEN, Alike, Convert, Group, Kind, are_frozen


class _Sequence(Kind):
    """What lists and tuples have in common: an item is found by what stands before and after it."""

    def steps(self, container: Any) -> list[tuple[Any, Any]]:
        if FROZEN.issuperset(map(type, container)):
            return []
        return [(n, item) for n, item in enumerate(container) if type(item) not in FROZEN]

    def pairs(self, old: Any, new: Any, alike: Alike) -> Iterator[tuple[Any, Any]]:
        if are_frozen(old) or are_frozen(new):
            return iter(())
        return _same_places(list(old), list(new), alike)


class ListKind(_Sequence):
    """Lists."""

    plain = list
    shallow = list
    mutators = (
        "append",
        "clear",
        "extend",
        "insert",
        "pop",
        "remove",
        "reverse",
        "sort",
        "__delitem__",
        "__iadd__",
        "__imul__",
        "__setitem__",
    )
    positional = frozenset({"__setitem__", "__delitem__", "insert", "reverse", "sort"})

    def convert(self, container: Any, function: Convert) -> Any:
        made = list(container)
        return made if FROZEN.issuperset(map(type, made)) else list(map(function, made))

    def fill(self, container: Any, items: Any) -> None:
        list.__setitem__(container, slice(None), items)

    show = fill

    def is_positional(self, method: str, args: tuple[Any, ...]) -> bool:
        return method in self.positional or (method == "pop" and bool(args))

    def prepare(self, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if method in ("extend", "__iadd__") and len(args) == 1:
            return (listed(args[0]),)
        if method == "__setitem__" and len(args) == 2 and isinstance(args[0], slice):
            return args[0], listed(args[1])
        return args


class TupleKind(_Sequence):
    """Tuples: containers in them are tracked, but tuples are not."""

    plain = tuple
    shallow = tuple

    def convert(self, container: Any, function: Convert) -> Any:
        return container if FROZEN.issuperset(map(type, container)) else tuple(map(function, container))


class DictKind(Kind):
    """Dicts: an item is found by its key."""

    plain = dict
    shallow = dict
    mutators = ("clear", "pop", "popitem", "setdefault", "update", "__delitem__", "__ior__", "__setitem__")
    overrides: ClassVar[Mapping[str, Any]] = {"fromkeys": dict.fromkeys}
    is_hashed = True

    def items(self, container: Any) -> Collection[Any]:
        return container.values()  # type: ignore[no-any-return]

    def all_items(self, containers: Iterable[Any]) -> Iterator[Any]:
        return chain.from_iterable(map(dict.values, containers))

    def steps(self, container: Any) -> list[tuple[Any, Any]]:
        if FROZEN.issuperset(map(type, container.values())):
            return []
        return [(key, item) for key, item in list(container.items()) if type(item) not in FROZEN]

    def groups(self, containers: list[Any]) -> Iterator[Group]:
        columns = _columns(containers)
        if columns is None:
            yield from super().groups(containers)
            return
        for key, column in columns.items():
            places = zip(containers, repeat(key), column, strict=False)
            yield column, partial(_fill_column, containers, key), places

    def convert(self, container: Any, function: Convert) -> Any:
        made = dict(container)
        if not FROZEN.issuperset(map(type, made.values())):
            for key, item in made.items():
                if type(item) not in FROZEN:
                    made[key] = function(item)
        return made

    def fill(self, container: Any, items: Any) -> None:
        dict.update(container, zip(list(container), items, strict=True))

    def show(self, container: Any, items: Any) -> None:
        if list(container) != list(items):
            # Don't empty it in between if the order allows that.
            kept = [key for key in container if key in items]
            if list(items)[: len(kept)] != kept:
                dict.clear(container)
            for key in [key for key in container if key not in items]:
                dict.__delitem__(container, key)
        dict.update(container, items)

    def pairs(self, old: Any, new: Any, alike: Alike) -> Iterator[tuple[Any, Any]]:
        for key, item in list(old.items()):
            if type(item) not in FROZEN and key in new:
                yield item, new[key]

    def changes(self, old: Any, new: Any, alike: Alike) -> set[Any]:
        changed = {key for key in old if key not in new}
        return changed | {key for key in new if key not in old or not alike(old[key], new[key])}

    def item_set(self, method: str, args: tuple[Any, ...]) -> Any:
        return args[0] if method == "__setitem__" and args else ABSENT

    def prepare(self, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (dict(args[0]),) if method in ("update", "__ior__") and len(args) == 1 else args


class SetKind(Kind):
    """Sets: their items are hashable, and so none is a container that is tracked."""

    plain = set
    shallow = set
    mutators = (
        "add",
        "clear",
        "difference_update",
        "discard",
        "intersection_update",
        "pop",
        "remove",
        "symmetric_difference_update",
        "update",
        "__iand__",
        "__ior__",
        "__isub__",
        "__ixor__",
    )
    overrides: ClassVar[Mapping[str, Any]] = {"__repr__": lambda self: repr(set(self))}
    holds_containers = False
    is_hashed = True

    def convert(self, container: Any, function: Convert) -> Any:
        return set(container)

    def show(self, container: Any, items: Any) -> None:
        set.update(container, items)
        set.intersection_update(container, items)

    def operand(self, given: Any) -> Any:
        # The keys of a dict would answer ``TAGS |= keys`` themselves, with a plain set.
        return set(given) if isinstance(given, Set) and not isinstance(given, (set, frozenset)) else given

    def prepare(self, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if method.startswith("__i"):
            return tuple(map(self.operand, args))
        if method == "add" or method.startswith("__"):
            return args
        return tuple([arg if isinstance(arg, (set, frozenset, Mapping)) else listed(arg) for arg in args])


#: the kind of a container, by its plain type
KINDS: dict[type, Kind] = {kind.plain: kind for kind in (ListKind(), DictKind(), SetKind(), TupleKind())}
#: the same by the type that comes out of a store; `flask_globalstate.tracking.types` adds the tracked types
TRACKED_KINDS: dict[type, Kind] = {kind.tracked: kind for kind in KINDS.values() if not kind.is_tracked}


def kind_of(container: Any) -> Kind | None:
    """Return the kind of a plain or tracked container, or None for any other object."""
    return KINDS.get(type(container)) or TRACKED_KINDS.get(type(container))


def listed(items: Iterable[Any]) -> list[Any]:
    """Make a list item by item, so that a wrong ``__length_hint__`` reserves no memory.

    ``list(items)`` would believe the hint, which ``extend`` and ``update`` may not even ask for.
    """
    return [item for item in items]  # noqa: C416


def _same_places(old: list[Any], new: list[Any], alike: Alike) -> Iterator[tuple[Any, Any]]:
    """Pairs of items at the same place: those before and after all changes, and a single changed one."""
    shorter = min(len(old), len(new))
    head = shorter if same(old[:shorter], new[:shorter]) else 0
    while head < shorter and alike(old[head], new[head]):
        head += 1
    tail = 0
    while tail < shorter - head and alike(old[-1 - tail], new[-1 - tail]):
        tail += 1
    if len(old) == len(new) == head + tail + 1:
        head += 1
    yield from zip(old[:head], new[:head], strict=True)
    if tail:
        yield from zip(old[-tail:], new[-tail:], strict=True)


def _columns(dicts: list[Any]) -> dict[Any, list[Any]] | None:
    """The values of dicts by key, or None unless all have the same keys."""
    if len(dicts) == 1 or len(set(map(len, dicts))) > 1:
        return None
    try:
        return {key: [each[key] for each in dicts] for key in dicts[0]}
    except KeyError:
        return None


def _fill_column(containers: list[dict[Any, Any]], key: Any, items: list[Any]) -> None:
    for container, item in zip(containers, items, strict=True):
        container[key] = item
