"""`Kind`: what differs between kinds of containers; the kinds themselves are in `kinds`."""

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
#: stands for all items of a container
WHOLE: Any = object()

#: makes an item of a new container from one of the old
Convert = Callable[[Any], Any]
#: whether two items are equal
Alike = Callable[[Any, Any], bool]
#: items of one container, or of a column of several; a function that replaces all of them; and for each its
#: container, its key or position there, and the item
Group = tuple[Collection[Any], Callable[[list[Any]], None], Iterable[tuple[Any, Any, Any]]]


def are_frozen(items: Iterable[Any]) -> bool:
    """Tell whether all items are of types that can't be changed."""
    return FROZEN.issuperset(map(type, items))


class Kind:
    """What must be known of a kind of container, such as the lists, to track it.

    :cvar plain: the plain type.
    :cvar shallow: makes a plain copy of a container, with the same items.
    :cvar mutators: the methods that change a container; one without any is not tracked itself.
    :cvar positional: those of them that act on positions.
    :cvar overrides: other attributes of the tracked type.
    :cvar holds_containers: whether an item can be a container or hold one.
    :cvar is_hashed: whether iterating over a container gives hashable objects.
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
        #: the type of a container that comes out of a store; `flask_globalstate.tracking.types` makes it
        self.tracked: type[Any] = self.plain

    # --- what is in a container -----------------------------------------------------------------

    def items(self, container: Any) -> Collection[Any]:
        """The items of a container: of a dict, the values."""
        return container  # type: ignore[no-any-return]

    def all_items(self, containers: Iterable[Any]) -> Iterator[Any]:
        """The items of several containers."""
        return chain.from_iterable(containers)

    def steps(self, container: Any) -> list[tuple[Any, Any]]:
        """The items that may be or hold a container, each after its key or position."""
        return []

    def groups(self, containers: list[Any]) -> Iterator[Group]:
        """The items of several containers, in as few groups as possible."""
        for container in containers:
            yield self.items(container), partial(self.fill, container), self._places(container)

    def _places(self, container: Any) -> Iterator[tuple[Any, Any, Any]]:
        for step, item in self.steps(container):
            yield container, step, item

    # --- changing what is in a container --------------------------------------------------------

    def convert(self, container: Any, function: Convert) -> Any:
        """Return a plain container with ``function(item)`` for each item that is not frozen."""
        raise NotImplementedError

    def fill(self, container: Any, items: Any) -> None:
        """Replace all items of a container by others, in the same order."""
        raise NotImplementedError

    def show(self, container: Any, items: Any) -> None:
        """Make a tracked container equal to a plain one, without a commit."""
        raise NotImplementedError

    # --- comparing an old container with a new one ------------------------------------------------

    def pairs(self, old: Any, new: Any, alike: Alike) -> Iterator[tuple[Any, Any]]:
        """The items of a container, each with its counterpart in a newer one where that is certain."""
        return iter(())

    def changes(self, old: Any, new: Any, alike: Alike) -> set[Any]:
        """The keys of the items that a newer container changes, or `WHOLE`."""
        return set() if len(old) == len(new) and alike(old, new) else {WHOLE}

    # --- calls of methods -------------------------------------------------------------------------

    def is_positional(self, method: str, args: tuple[Any, ...]) -> bool:
        """Tell whether a call acts on positions, and so depends on the whole container."""
        return method in self.positional

    def item_set(self, method: str, args: tuple[Any, ...]) -> Any:
        """The key of the only item that a call sets, or `ABSENT`."""
        return ABSENT

    def operand(self, given: Any) -> Any:
        """Convert the operand of an operator like ``|=``, so that its own type doesn't answer instead."""
        return given

    def prepare(self, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Convert the arguments of a call so that they can be iterated over several times."""
        return args
