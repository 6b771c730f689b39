"""`Kind`: all that differs between one kind of container and another; the kinds themselves are in `kinds`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import Any, ClassVar
from uuid import UUID

from ..stores.base import ABSENT

#: types whose instances can't be changed, nor hold anything that can
FROZEN = frozenset(
    {str, int, float, bool, type(None), bytes, complex, frozenset}
    | {datetime, date, time, timedelta, timezone, Decimal, UUID}
)
#: stands for all that is in a container
WHOLE: Any = object()

#: makes an item from another one
Convert = Callable[[Any], Any]
#: whether two items are equal
Alike = Callable[[Any, Any], bool]
#: items that are looked at together, of one container or a column of several; what puts others in the place
#: of all of them; and where each is: its container, its key or position there, and the item itself
Group = tuple[Collection[Any], Callable[[list[Any]], None], Iterable[tuple[Any, Any, Any]]]


def are_frozen(items: Iterable[Any]) -> bool:
    """Whether nothing in it can be changed."""
    return FROZEN.issuperset(map(type, items))


class Kind:
    """A kind of container.

    :cvar plain: the type of the caller's containers.
    :cvar shallow: a plain copy of a container, with the same items.
    :cvar mutators: which methods change a container. Without any it needs not be tracked.
    :cvar positional: of these, which mean positions as the caller has seen them.
    :cvar overrides: what else the tracked type does in its own way.
    :cvar holds_containers: whether an item can be a container, or hold one.
    :cvar is_hashed: whether iterating over a container gives what is hashable.
    """

    plain: ClassVar[type[Any]]
    shallow: Callable[[Any], Any]
    mutators: ClassVar[tuple[str, ...]] = ()
    positional: ClassVar[frozenset[str]] = frozenset()
    overrides: ClassVar[Mapping[str, Any]] = {}
    holds_containers: ClassVar[bool] = True
    is_hashed: ClassVar[bool] = False

    def __init__(self) -> None:
        self.is_tracked = bool(self.mutators)
        #: the type of those that come out of a store; `flask_globalstate.tracking.types` makes it
        self.tracked: type[Any] = self.plain

    # --- what is in a container -----------------------------------------------------------------

    def items(self, container: Any) -> Collection[Any]:
        """What is in a container, without what it is found by."""
        return container  # type: ignore[no-any-return]

    def all_items(self, containers: Iterable[Any]) -> Iterator[Any]:
        """What is in any of several containers."""
        return chain.from_iterable(containers)

    def steps(self, container: Any) -> list[tuple[Any, Any]]:
        """The items that are not frozen and can be or hold a container, each with its key or position."""
        return []

    def groups(self, containers: list[Any]) -> Iterator[Group]:
        """The items of several containers, in as few groups as they can be looked at in."""
        for container in containers:
            yield self.items(container), partial(self.fill, container), self._places(container)

    def _places(self, container: Any) -> Iterator[tuple[Any, Any, Any]]:
        for step, item in self.steps(container):
            yield container, step, item

    # --- making and filling ---------------------------------------------------------------------

    def convert(self, container: Any, function: Convert) -> Any:
        """A plain container of what a function makes of each item; it is not asked of what is frozen."""
        raise NotImplementedError

    def fill(self, container: Any, items: Any) -> None:
        """Put others in the place of all items, in the same order."""
        raise NotImplementedError

    def show(self, container: Any, items: Any) -> None:
        """Make a tracked container equal to a plain one, without a commit."""
        raise NotImplementedError

    # --- an old and a new container ---------------------------------------------------------------

    def pairs(self, old: Any, new: Any, alike: Alike) -> Iterator[tuple[Any, Any]]:
        """Items of a container with what each is in a newer one; what is not found for sure is left out."""
        return iter(())

    def changes(self, old: Any, new: Any, alike: Alike) -> set[Any]:
        """Which items a newer container changes: their keys, or `WHOLE`."""
        return set() if alike(old, new) else {WHOLE}

    # --- calls of methods -------------------------------------------------------------------------

    def is_positional(self, method: str, args: tuple[Any, ...]) -> bool:
        """Whether a call means positions as the caller has seen them."""
        return method in self.positional

    def item_set(self, method: str, args: tuple[Any, ...]) -> Any:
        """The key of the one item that a call sets, or `ABSENT`."""
        return ABSENT

    def operand(self, given: Any) -> Any:
        """What an operator like ``|=`` is given instead, so that no operator of another type answers."""
        return given

    def prepare(self, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of a call in a form that can be gone through several times."""
        return args
