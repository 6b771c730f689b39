"""`SharedCounter`: what a user holds in place of a module-level int that is counted up."""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..replicas.options import Initial
from .base import KEY, Proxy, as_array
from .mapping import whole
from .value import read_value


def _number(other: Any) -> Any:
    return other.value if isinstance(other, SharedCounter) else other


def _checked(number: Any) -> Any:
    if type(number) not in (int, float):
        raise TypeError(f"a counter takes an int or a float, and not {number!r}")
    return number


def _forward(operation: Callable[[Any, Any], Any]) -> Callable[[SharedCounter, Any], Any]:
    def method(self: SharedCounter, other: Any) -> Any:
        return operation(self.value, _number(other))

    return method


def _backward(operation: Callable[[Any, Any], Any]) -> Callable[[SharedCounter, Any], Any]:
    def method(self: SharedCounter, other: Any) -> Any:
        return operation(other, self.value)

    return method


def _in_place(operation: Callable[[Any, Any], Any]) -> Callable[[SharedCounter, Any], SharedCounter]:
    def method(self: SharedCounter, other: Any) -> SharedCounter:
        operand = _checked(_number(other))
        self._apply(lambda number: operation(number, operand))
        return self

    return method


class SharedCounter(Proxy):
    """A number that all workers count up together, and none of their counts is lost.

    ``HITS += 1`` and the like are one atomic commit each, and the name stays bound to this object. A counter
    is of ints, which are exact, or with ``initial=0.0`` of floats. What gives another type, such as
    ``HITS /= 2`` for ints, raises TypeError. Everywhere else it stands for its current number: in
    comparisons, arithmetic (which gives plain numbers), formatting and ``int()``. It is not hashable, since
    its value changes.
    """

    __slots__ = ("_is_of_floats",)

    @classmethod
    def _check_initial(cls, name: str, initial: Any) -> None:
        if initial is not None and not callable(initial) and type(initial) not in (int, float):
            given = type(initial).__qualname__
            raise TypeError(f"initial of counter {name!r} must be an int or a float, not {given}")

    def _first_content(self, initial: Any) -> Initial | None:
        self._is_of_floats = type(initial) is float
        return super()._first_content(initial)

    def _called(self, initial: Callable[[], Any]) -> Any:
        number = initial()
        self._check_initial(self._name, number)
        self._is_of_floats = type(number) is float
        return number

    @property
    def value(self) -> int:
        """The current number: an int, or of a counter of floats a float."""
        return self._unwrap()

    def increment(self, by: float = 1) -> int:
        """Add to the number and return the new one; exact, however many workers do it at once.

        :param by: what to add, an int, which may be negative; a counter of floats takes floats, too.
        :returns: the new number. As long as it only grows, no two calls in any worker return the same.
        :raises TypeError: if ``by`` is of another type (a bool is no int); nothing was written.
        :raises UnsupportedOperationError: if the store can't do it atomically.
        """
        if type(_checked(by)) is int and not self._is_of_floats:
            with suppress(TypeError), self._gate:  # There is a float.
                return self._here().increment(KEY, int(by))
        return self._apply(lambda number: number + by)

    def set(self, number: float) -> None:
        """Set the number, whatever it was, in one atomic commit.

        :param number: an int; a counter of floats takes floats, too.
        :raises TypeError: if it is of another type (a bool is no int); nothing was written.
        """
        with self._gate:
            self._here().assign({KEY: float(number) if self._is_of_floats else whole(number)})

    def _apply(self, change: Callable[[Any], Any]) -> int:
        with self._gate:
            return self._here().apply(  # type: ignore[no-any-return]
                KEY, lambda number: self._alike(number, change(number)), 0
            )

    def _alike(self, number: Any, new: Any) -> Any:
        """Return a new number if a counter that holds ``number`` can hold it: ints are exact, and stay so."""
        if (self._is_of_floats or type(number) is float) and type(new) in (int, float):
            return float(new)
        if type(new) is not int:
            raise TypeError(
                f"counter {self._name!r} is of ints, which are exact, and can't become {new!r}; "
                "make one of floats with initial=0.0"
            )
        return new

    def _unwrap(self) -> int:
        return read_value(self._replica, 0)  # type: ignore[no-any-return]

    def __iadd__(self, by: float) -> SharedCounter:  # type: ignore[misc]
        self.increment(_number(by))
        return self

    def __isub__(self, by: float) -> SharedCounter:  # type: ignore[misc]
        self.increment(-_checked(_number(by)))
        return self

    __imul__ = _in_place(operator.mul)
    __ifloordiv__ = _in_place(operator.floordiv)
    __imod__ = _in_place(operator.mod)
    __ipow__ = _in_place(operator.pow)
    __itruediv__ = _in_place(operator.truediv)

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return self.value != 0

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, specification: str) -> str:
        return format(self.value, specification)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == _number(other))

    __array__ = as_array
    __hash__ = None  # type: ignore[assignment]

    __lt__ = _forward(operator.lt)
    __le__ = _forward(operator.le)
    __gt__ = _forward(operator.gt)
    __ge__ = _forward(operator.ge)

    __add__ = _forward(operator.add)
    __sub__ = _forward(operator.sub)
    __mul__ = _forward(operator.mul)
    __truediv__ = _forward(operator.truediv)
    __floordiv__ = _forward(operator.floordiv)
    __mod__ = _forward(operator.mod)
    __pow__ = _forward(operator.pow)
    __divmod__ = _forward(divmod)

    __radd__ = _backward(operator.add)
    __rsub__ = _backward(operator.sub)
    __rmul__ = _backward(operator.mul)
    __rtruediv__ = _backward(operator.truediv)
    __rfloordiv__ = _backward(operator.floordiv)
    __rmod__ = _backward(operator.mod)
    __rpow__ = _backward(operator.pow)
    __rdivmod__ = _backward(divmod)

    def __neg__(self) -> int:
        return -self.value

    def __pos__(self) -> int:
        return self.value

    def __abs__(self) -> int:
        return abs(self.value)

    def __round__(self, digits: int | None = None) -> int:
        return round(self.value, digits) if digits is not None else self.value

    def __copy__(self) -> int:
        return self.value

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return self.value

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        value = self.value
        return type(value), (value,)
