"""`SharedList` and `SharedSet`: what a user holds in place of a module-level list or set.

Their methods are those of the plain type, called on the one object that the name holds. In a store of
bytes that is a tracked container (see `flask_globalstate.tracking`), each change of which is one commit;
in a store that holds objects it is the plain one, changed in place.
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
from ..tracking.containers import Kind
from ..tracking.kinds import KINDS
from ..tracking.plain import TrackedContainer
from ..tracking.types import detached
from ..values.wording import article, kind_of
from .base import KEY, Proxy, as_array, look_of
from .value import read_value

V = TypeVar("V")
C = TypeVar("C", bound="Collection")

COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")


def methods_of(kind: Kind) -> set[str]:
    """The methods of a kind of container that other objects don't have, and its comparisons."""
    return {*vars(kind.plain), *COMPARISONS} - (set(vars(object)) - set(COMPARISONS)) - {"__class_getitem__"}


class Collection(Proxy):
    """What the proxies of containers have in common.

    :cvar _kind: the kind of container that it stands for.
    """

    __slots__ = ()

    _kind: ClassVar[Kind]

    @classmethod
    def _check_initial(cls, name: str, initial: Any) -> None:
        if initial is not None and not callable(initial) and not isinstance(initial, cls._kind.plain):
            plain, given = cls._kind.plain.__name__, type(initial).__qualname__
            raise TypeError(f"initial of {plain} {name!r} must be {article(plain)}, not {given}")

    def _first_content(self, initial: Any) -> Initial | None:
        items = super()._first_content(initial)
        return None if items is None else lambda: {KEY: self._kind.plain(items()[KEY])}

    def _value(self) -> Any:
        """Return the shared container, or an empty one if there is none yet."""
        value = read_value(self._replica, ABSENT)
        if value is ABSENT:
            return self._kind.plain()
        if not isinstance(value, self._kind.plain):
            plain = article(self._kind.plain.__name__)
            raise TypeError(f"{self._name!r} holds {kind_of(value)} in its store, and not {plain}")
        return value

    def _change(self, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a method that changes the shared container, in one commit, and return its answer."""
        with self._gate:
            while True:
                if read_value(self._replica, ABSENT) is ABSENT:
                    self._here().setdefault(KEY, self._kind.plain())
                value = self._value()
                if not (isinstance(value, TrackedContainer) or self._is_shared_itself()):
                    return self._apply(method, args, kwargs)
                try:
                    return getattr(value, method)(*args, **kwargs)
                except ConflictError:
                    # If another worker has cleared the name meanwhile, begin again.
                    if self._here().revision_of(KEY) is not ABSENT:
                        raise

    def _is_shared_itself(self) -> bool:
        """Tell whether what was read is the very object in the store, not a copy that an adapter made."""
        store = self._replica.store
        return store.holds_objects and store.replica_kind == "revisions"

    def _apply(self, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        given = [detached(arg) for arg in args]
        answer: Any = None

        def step(value: Any) -> Any:
            nonlocal answer
            answer = getattr(value, method)(*given, **kwargs)
            return value

        self._here().apply(KEY, step, self._kind.plain())
        return answer

    def _unwrap(self) -> Any:
        return self._kind.shallow(self._value())

    def __copy__(self) -> Any:
        return self._unwrap()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._unwrap(), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._kind.plain, (self._unwrap(),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, {self._contents()})"

    def __str__(self) -> str:
        return str(self._value())

    __hash__ = None  # type: ignore[assignment]


def _reader(kind: Kind, name: str) -> Callable[..., Any]:
    """Make the method of a proxy that calls a method that only reads."""

    @functools.wraps(getattr(kind.plain, name))
    def method(self: Collection, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._value(), name)(*map(_shared_object, args), **kwargs)

    return method


def _mutator(kind: Kind, name: str) -> Callable[..., Any]:
    """Make the method of a proxy that calls a method that changes the container."""
    is_operator = name.startswith("__i")

    @functools.wraps(getattr(kind.plain, name))
    def method(self: Collection, *args: Any, **kwargs: Any) -> Any:
        given = [_shared_object(arg) for arg in args]
        if is_operator:
            given = list(map(kind.operand, given))
        answer = self._change(name, given, kwargs)
        # So that ``+=`` leaves the name bound to this object.
        return self if is_operator and answer is not NotImplemented else answer

    return method


def _shared_object(argument: Any) -> Any:
    """Return the container that a proxy stands for, since plain methods know no proxies."""
    return argument._value() if isinstance(argument, Collection) else argument


def _with_the_methods_of_its_kind(proxy: type[C]) -> type[C]:
    """Give a proxy class the methods of its plain type."""
    kind = proxy._kind
    for name in methods_of(kind):
        if name not in vars(proxy):
            setattr(proxy, name, _mutator(kind, name) if name in kind.mutators else _reader(kind, name))
    return abc.update_abstractmethods(proxy)


@_with_the_methods_of_its_kind
class SharedList(Collection, MutableSequence[V]):
    """A list that every worker shares.

    It has every method and operator of a list. The differences:

    - Each change is one atomic commit. ``append``, ``extend``, ``remove``, ``pop()`` and ``+=`` act on the
      newest list, whoever has changed it meanwhile; what acts on a position (``rows[0] = x``, ``del``,
      ``insert``, ``pop(0)``, ``sort``) means the list that this worker has seen, and raises
      `ConflictError` if another worker has changed it since.
    - Each change writes the whole list. For many items use a `SharedDict`.
    - What is computed from it is plain: slices, ``+``, copies, pickles.
    """

    __slots__ = ()
    __class__ = look_of(list, "SharedList")
    _plain = list
    _kind = KINDS[list]

    def __radd__(self, other: Any) -> list[Any]:
        if not isinstance(other, list):
            return NotImplemented
        return other + self._unwrap()  # type: ignore[no-any-return]

    if TYPE_CHECKING:  # The decorator makes these.

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

    It has every method and operator of a set. Each change is one atomic commit: it acts on the newest set
    and writes the whole of it. What is computed from it is plain. A change during iteration, here or in
    another worker, doesn't disturb the iteration.
    """

    __slots__ = ()
    __class__ = look_of(set, "SharedSet")
    __array__ = as_array
    _plain = set
    _kind = KINDS[set]

    def __iter__(self) -> Iterator[V]:
        # What another thread adds must not end the iteration with an error.
        return iter(tuple(self._value()))

    if TYPE_CHECKING:  # The decorator makes these.

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


#: the collection that stands for a plain type
COLLECTIONS: dict[type, type[Collection]] = {list: SharedList, set: SharedSet}
