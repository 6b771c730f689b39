"""`SharedList` and `SharedSet`: what a user holds in place of a module-level list or set.

Their methods are those of the plain type, called on the one object that the name holds. On a store of
bytes that is a tracked one (see `tracking`), of which each change is one commit; on one that holds the
objects themselves it is the plain one, changed in place.
"""

from __future__ import annotations

import abc
import copy
import functools
from collections.abc import Callable, Iterator, MutableSequence, MutableSet
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import ConflictError
from ..replicas.options import Initial
from ..stores.base import ABSENT
from ..tracking.mutations import operand
from ..tracking.types import TRACKED, Tracked, settle
from .base import KEY, Proxy
from .value import read_value

V = TypeVar("V")
C = TypeVar("C", bound="Collection")

COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
#: what each type can do that any object can't: the methods that are called on what is shared
METHODS: dict[type, tuple[str, ...]] = {
    kind: (*(set(vars(kind)) - set(vars(object)) - {"__class_getitem__"}), *COMPARISONS)
    for kind in (list, set)
}
#: of these, what changes it: whatever the tracked type does in its own way
MUTATORS: dict[type, frozenset[str]] = {
    kind: frozenset(name for name in names if getattr(TRACKED[kind], name) is not getattr(kind, name))
    for kind, names in METHODS.items()
}


class Collection(Proxy):
    """What the two have in common."""

    #: the plain type
    _kind: ClassVar[type[Any]]

    @classmethod
    def _check_initial(cls, name: str, initial: Any) -> None:
        if initial is not None and not callable(initial) and not isinstance(initial, cls._kind):
            kind = cls._kind.__name__
            raise TypeError(f"initial of {kind} {name!r} must be a {kind}, not {type(initial).__qualname__}")

    def _first_content(self, initial: Any) -> Initial | None:
        items = super()._first_content(initial)
        return None if items is None else lambda: {KEY: self._kind(items()[KEY])}

    def _value(self) -> Any:
        """The object that is shared, or an empty one if there is none yet."""
        value = read_value(self._replica, ABSENT)
        if value is ABSENT:
            return self._kind()
        if not isinstance(value, self._kind):
            held, kind = type(value).__qualname__, self._kind.__name__
            raise TypeError(f"{self._name!r} holds a {held} in its store, and not a {kind}")
        return value

    def _change(self, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What a method answers that changes what is shared; one commit."""
        with self._gate:
            while True:
                if read_value(self._replica, ABSENT) is ABSENT:
                    self._here().setdefault(KEY, self._kind())
                value = self._value()
                if not (isinstance(value, Tracked) or self._is_shared_itself()):
                    return self._apply(method, args, kwargs)
                try:
                    return getattr(value, method)(*args, **kwargs)
                except ConflictError:
                    # If another worker has cleared the name meanwhile, it is made again.
                    if self._here().revision_of(KEY) is not ABSENT:
                        raise

    def _is_shared_itself(self) -> bool:
        """Whether the object that was read is the one in the store, and no copy of what a class gave."""
        store = self._replica.store
        return store.holds_objects and store.replica_kind == "revisions"

    def _apply(self, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        settled = [settle(arg) for arg in args]
        answer: Any = None

        def step(value: Any) -> Any:
            nonlocal answer
            answer = getattr(value, method)(*settled, **kwargs)
            return value

        self._here().apply(KEY, step, self._kind())
        return answer

    def _plain(self) -> Any:
        return self._kind(self._value())

    def __copy__(self) -> Any:
        return self._plain()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._plain(), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._kind, (self._plain(),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, {self._contents()})"

    def __str__(self) -> str:
        return str(self._value())

    __hash__ = None  # type: ignore[assignment]


def _reader(kind: type, name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(kind, name))
    def method(self: Collection, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._value(), name)(*map(_unwrapped, args), **kwargs)

    return method


def _mutator(kind: type, name: str) -> Callable[..., Any]:
    is_operator = name.startswith("__i")

    @functools.wraps(getattr(kind, name))
    def method(self: Collection, *args: Any, **kwargs: Any) -> Any:
        given = [_unwrapped(arg) for arg in args]
        if is_operator and kind is set:
            given = list(map(operand, given))
        answer = self._change(name, given, kwargs)
        # So that ``+=`` leaves the name bound to this object.
        return self if is_operator and answer is not NotImplemented else answer

    return method


def _unwrapped(argument: Any) -> Any:
    """What the plain methods, which know no proxies, are given for one."""
    return argument._value() if isinstance(argument, Collection) else argument


def _with_the_methods_of_its_kind(proxy: type[C]) -> type[C]:
    kind = proxy._kind
    for name in METHODS[kind]:
        if name not in vars(proxy):
            make = _mutator if name in MUTATORS[kind] else _reader
            setattr(proxy, name, make(kind, name))
    return abc.update_abstractmethods(proxy)


@_with_the_methods_of_its_kind
class SharedList(Collection, MutableSequence[V]):
    """A list that every worker shares.

    It has every method and operator of a list. What differs:

    - A change is one atomic commit. ``append``, ``extend``, ``remove``, ``pop()`` and ``+=`` are done on
      the newest list, whoever has changed it meanwhile; what goes by position (``rows[0] = x``, ``del``,
      ``insert``, ``pop(0)``, ``sort``) means the list that this worker has seen, and raises
      `ConflictError` if another worker has changed it since.
    - The whole list is written at each change. For many items use a `SharedDict`.
    - What is computed from it is plain: slices, ``+``, copies, pickles.
    """

    _kind = list

    def __radd__(self, other: Any) -> list[Any]:
        if not isinstance(other, list):
            return NotImplemented
        return other + self._plain()  # type: ignore[no-any-return]

    if TYPE_CHECKING:  # What the decorator makes.

        def __getitem__(self, index: Any) -> Any: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __delitem__(self, index: Any) -> None: ...
        def __len__(self) -> int: ...
        def __add__(self, other: list[V] | SharedList[V]) -> list[V]: ...
        def __mul__(self, times: int) -> list[V]: ...
        def __rmul__(self, times: int) -> list[V]: ...
        def __imul__(self, times: int) -> SharedList[V]: ...
        def copy(self) -> list[V]: ...
        def insert(self, index: int, value: V) -> None: ...
        def sort(self, *, key: Callable[[V], Any] | None = None, reverse: bool = False) -> None: ...


@_with_the_methods_of_its_kind
class SharedSet(Collection, MutableSet[V]):
    """A set that every worker shares.

    It has every method and operator of a set. A change is one atomic commit, done on the newest set; the
    whole set is written at each. What is computed from it is plain. A change during iteration, here or
    elsewhere, disturbs nothing.
    """

    _kind = set

    def __iter__(self) -> Iterator[V]:
        # What another thread adds must not end the iteration with an error.
        return iter(tuple(self._value()))

    if TYPE_CHECKING:  # What the decorator makes.

        def __contains__(self, value: object) -> bool: ...
        def __len__(self) -> int: ...
        def add(self, value: V) -> None: ...
        def discard(self, value: V) -> None: ...
        def copy(self) -> set[V]: ...
        def difference(self, *others: Any) -> set[V]: ...
        def difference_update(self, *others: Any) -> None: ...
        def intersection(self, *others: Any) -> set[V]: ...
        def intersection_update(self, *others: Any) -> None: ...
        def issubset(self, other: Any) -> bool: ...
        def issuperset(self, other: Any) -> bool: ...
        def symmetric_difference(self, other: Any) -> set[V]: ...
        def symmetric_difference_update(self, other: Any) -> None: ...
        def union(self, *others: Any) -> set[V]: ...
        def update(self, *others: Any) -> None: ...
