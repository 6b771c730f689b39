"""Calls of mutating methods, made to run on plain copies, and again on newer ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..stores.base import ABSENT
from .containers import WHOLE, Kind
from .plain import detach

#: methods that store nothing of what they are given
ONLY_LOOK = frozenset({"pop", "remove", "discard", "sort", "__delitem__", "__imul__"})


class Operation:
    """One call of a mutating method, which does the same each time it runs.

    :param kind: the kind of the container.
    :param name: the name of the method.
    """

    def __init__(self, kind: Kind, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.by_position = kind.is_positional(name, args)
        #: the key of the item that it sets, or `ABSENT`
        self.item = kind.item_set(name, args)
        #: whether it stores something untracked, which may come out of the store as something else
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
        """The items whose present values it depends on: the one that it sets, the whole list, or none."""
        if self.by_position:
            return (WHOLE,)
        if self.item is ABSENT:
            return ()
        try:
            hash(self.item)
        except TypeError:
            return ()  # The method itself will refuse it as a key.
        return (self.item,)

    def what_it_sees(self, target: Any) -> Any:
        """The present values of what it depends on: of the whole list, of the item that it sets, or None."""
        if self.by_position:
            return list(target)
        if self.item is ABSENT:
            return None
        try:
            return (target.get(self.item, ABSENT),)
        except TypeError:
            return None  # The method itself will refuse it as a key.


class Sorting(threading.local):
    """The tracked values in which the current thread is sorting lists.

    :ivar is_disturbed: whether a key function or a comparison has changed one of them.
    """

    tracked_values: tuple[Any, ...] = ()
    is_disturbed = False

    def note_change(self, tracked: Any) -> None:
        """Note that a tracked value is about to be changed."""
        if self.tracked_values and tracked in self.tracked_values:
            self.is_disturbed = True


sorting = Sorting()


class ModifiedDuringSort(BaseException):
    """A key function or a comparison has changed the list that is sorted.

    It is no `Exception`, so that the sort is not run again.
    """


class Sort(Operation):
    """A call of ``sort``, which may call functions that change the list."""

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
