"""`SharedCounter`: what a user holds in place of a module-level int that is counted up."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from .base import KEY, Proxy
from .mapping import whole
from .value import read_value


def _number(other: Any) -> Any:
    return other.value if isinstance(other, SharedCounter) else other


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
        operand = whole(_number(other))
        with self._gate:
            self._here().apply(KEY, lambda number: whole(operation(number, operand)), 0)
        return self

    return method


class SharedCounter(Proxy):
    """An int that every worker counts up, exact under any number of them.

    ``HITS += 1`` and its kin are one atomic commit each, and the name stays bound to this object; what
    gives no int, as ``HITS /= 2`` does, is a TypeError. Everywhere else it stands for its current number:
    in comparisons, arithmetic (which gives plain ints), formatting and ``int()``. It is not hashable,
    since its value changes.
    """

    @classmethod
    def _check_initial(cls, name: str, initial: Any) -> None:
        if initial is not None and not callable(initial) and type(initial) is not int:
            raise TypeError(f"initial of counter {name!r} must be an int, not {type(initial).__qualname__}")

    def _called(self, initial: Callable[[], Any]) -> Any:
        number = initial()
        self._check_initial(self._name, number)
        return number

    @property
    def value(self) -> int:
        """The current number, an int."""
        return self._plain()

    def increment(self, by: int = 1) -> int:
        """Add to the number and return the new one; exact, however many workers do it at once.

        :param by: what to add, an int, which may be negative.
        :returns: the new number. As long as it only grows, no two calls in any worker return the same.
        :raises TypeError: if ``by`` is not an int (a bool is not); nothing was written.
        :raises UnsupportedOperationError: if the store can't do it atomically.
        """
        with self._gate:
            return self._here().increment(KEY, whole(by))

    def set(self, number: int) -> None:
        """Set the number, whatever it was, in one atomic commit.

        :param number: an int.
        :raises TypeError: if it is not an int (a bool is not); nothing was written.
        """
        with self._gate:
            self._here().assign({KEY: whole(number)})

    def _plain(self) -> int:
        return read_value(self._replica, 0)  # type: ignore[no-any-return]

    def __iadd__(self, by: int) -> SharedCounter:  # type: ignore[misc]
        self.increment(_number(by))
        return self

    def __isub__(self, by: int) -> SharedCounter:  # type: ignore[misc]
        self.increment(-whole(_number(by)))
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
        return int, (self.value,)
