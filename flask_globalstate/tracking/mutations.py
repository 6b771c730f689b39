"""The mutating methods of list, dict and set, and one call of one of them, to be run on copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from ..stores.base import ABSENT
from .plain import settled

#: which methods change an object
MUTATORS: dict[type, tuple[str, ...]] = {
    list: (
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
    ),
    dict: ("clear", "pop", "popitem", "setdefault", "update", "__delitem__", "__ior__", "__setitem__"),
    set: (
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
    ),
}
#: which methods of a list mean positions; pop does with an argument
BY_POSITION = frozenset({"__setitem__", "__delitem__", "insert", "reverse", "sort"})
#: which methods only look for what they are given, or hand it back
ONLY_LOOK = frozenset({"pop", "remove", "discard", "sort", "__delitem__", "__imul__"})


#: stands for all that is in a container
WHOLE: Any = object()


class Operation:
    """One call of a mutating method, which may run several times and each time does the same.

    :param kind: list, dict or set.
    :param name: of the method.
    """

    def __init__(self, kind: type, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.by_position = kind is list and (name in BY_POSITION or (name == "pop" and bool(args)))
        #: the key of a dict's item that is set, or `ABSENT`
        self.item = args[0] if kind is dict and name == "__setitem__" and args else ABSENT
        #: whether something that is given is not a plain value, and may come back as something else
        self.is_loose = False
        self._method: Callable[..., Any] = getattr(kind, name)
        self._args, self._kwargs = args, kwargs
        if name not in ONLY_LOOK:
            prepared = _prepared(kind, name, args)
            self._args = tuple([self._settled(arg) for arg in prepared])
            self._kwargs = {word: self._settled(arg) for word, arg in kwargs.items()}

    def _settled(self, value: Any) -> Any:
        plain, is_loose = settled(value)
        self.is_loose = self.is_loose or is_loose
        return plain

    def __call__(self, target: Any) -> Any:
        return self._method(target, *self._args, **self._kwargs)

    def items_it_sees(self) -> tuple[Any, ...]:
        """Which items of a container it takes for granted: the one that it sets, all of a list, or none."""
        if self.by_position:
            return (WHOLE,)
        if self.item is ABSENT:
            return ()
        try:
            hash(self.item)
        except TypeError:
            return ()  # What can't be a key is the method's matter.
        return (self.item,)

    def what_it_sees(self, target: Any) -> Any:
        """What it takes for granted: a list whose positions it means, an item that it sets; else None."""
        if self.by_position:
            return list(target)
        if self.item is ABSENT:
            return None
        try:
            return (target.get(self.item, ABSENT),)
        except TypeError:
            return None  # What can't be a key is the method's matter.


class Sorting(threading.local):
    """What the current thread is sorting.

    :ivar roots: of the lists.
    :ivar is_disturbed: whether something of them was changed by what is called for that.
    """

    roots: tuple[Any, ...] = ()
    is_disturbed = False

    def note_change(self, root: Any) -> None:
        """Take note that something is about to be changed."""
        if self.roots and root in self.roots:
            self.is_disturbed = True


sorting = Sorting()


class ModifiedDuringSort(BaseException):
    """A list is changed by what its ``sort`` has called; not to be run again, as after an `Exception`."""


class Sort(Operation):
    """A call of ``list.sort``, which may call functions that change the list."""

    def __call__(self, target: Any) -> Any:
        try:
            answer = super().__call__(target)
        except Exception as error:
            if not sorting.is_disturbed:
                raise
            raise ModifiedDuringSort from error
        if sorting.is_disturbed:
            raise ModifiedDuringSort
        return answer


def listed(items: Iterable[Any]) -> list[Any]:
    """The items in a list of their own, item by item: a wrong ``__length_hint__`` reserves no memory.

    ``list(items)`` believes it at once, where a list or set that is extended may not ask for it.
    """
    return [item for item in items]  # noqa: C416


def operand(given: Any) -> Any:
    """A set for the view of a dict, which would answer ``TAGS |= view`` itself, with a plain set."""
    return set(given) if isinstance(given, Set) and not isinstance(given, (set, frozenset)) else given


def _prepared(kind: type, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments that may be gone through several times, where that is what the method does with them."""
    if kind is dict and name in ("update", "__ior__") and len(args) == 1:
        return (dict(args[0]),)
    if kind is list and name in ("extend", "__iadd__") and len(args) == 1:
        return (listed(args[0]),)
    if kind is list and name == "__setitem__" and len(args) == 2 and isinstance(args[0], slice):
        return args[0], listed(args[1])
    if kind is set and name.startswith("__i"):
        return tuple(map(operand, args))
    if kind is set and name != "add" and not name.startswith("__"):
        return tuple([arg if isinstance(arg, (set, frozenset, Mapping)) else listed(arg) for arg in args])
    return args
