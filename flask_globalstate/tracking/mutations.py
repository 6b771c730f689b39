"""A call of a mutating method, to be run on copies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..stores.base import ABSENT
from .containers import WHOLE, Kind
from .plain import detach

#: which methods only look for what they are given, or hand it back
ONLY_LOOK = frozenset({"pop", "remove", "discard", "sort", "__delitem__", "__imul__"})


class Operation:
    """One call of a mutating method, which may run several times and each time does the same.

    :param kind: of the container.
    :param name: of the method.
    """

    def __init__(self, kind: Kind, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.by_position = kind.is_positional(name, args)
        #: the key of the one item that is set, or `ABSENT`
        self.item = kind.item_set(name, args)
        #: whether something that is given is not a plain value, and may come back as something else
        self.has_untracked = False
        self._method: Callable[..., Any] = getattr(kind.plain, name)
        self._args, self._kwargs = args, kwargs
        if name not in ONLY_LOOK:
            self._args = tuple([self._detached(arg) for arg in kind.prepare(name, args)])
            self._kwargs = {word: self._detached(arg) for word, arg in kwargs.items()}

    def _detached(self, value: Any) -> Any:
        plain, has_untracked = detach(value)
        self.has_untracked = self.has_untracked or has_untracked
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

    :ivar tracked_values: those that the lists are in.
    :ivar is_disturbed: whether something of them was changed by what is called for that.
    """

    tracked_values: tuple[Any, ...] = ()
    is_disturbed = False

    def note_change(self, tracked: Any) -> None:
        """Take note that something is about to be changed."""
        if self.tracked_values and tracked in self.tracked_values:
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
