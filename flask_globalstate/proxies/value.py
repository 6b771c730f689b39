"""`SharedValue`: what a user holds in place of a module-level name that is rebound at run time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..stores.base import ABSENT
from ..tracking.types import is_in_place, unwrap
from .base import KEY, Proxy, as_array
from .editing import Edit

V = TypeVar("V")
P = TypeVar("P", bound=Proxy)

#: the names of the methods, without their underscores, with what to call them in an error
OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "matmul": "@",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "divmod": "divmod()",
    "pow": "**",
    "lshift": "<<",
    "rshift": ">>",
    "and": "&",
    "or": "|",
    "xor": "^",
    "neg": "-",
    "pos": "+",
    "abs": "abs()",
    "invert": "~",
}
UNARY = ("neg", "pos", "abs", "invert")
METHODS = {
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "len": "len()",
    "iter": "iteration",
    "contains": "in",
    "getitem": "item",
    "setitem": "item",
    "delitem": "item",
    "int": "int()",
    "float": "float()",
    "enter": "with block",
    "exit": "with block",
}


def _refused(operation: str) -> Callable[..., Any]:
    def refuse(self: SharedValue[Any], *_: Any) -> Any:
        raise TypeError(f"a SharedValue has no {operation}: use {self._name}.value")

    return refuse


def _without_operators(proxy: type[P]) -> type[P]:
    """Let each operator of a proxy raise an error that names ``.value``; the plain one names only a type."""
    for name, operation in OPERATORS.items():
        for method in (name,) if name in UNARY else (name, f"r{name}", f"i{name}"):
            setattr(proxy, f"__{method}__", _refused(operation))
    for name, operation in METHODS.items():
        setattr(proxy, f"__{name}__", _refused(operation))
    return proxy


@_without_operators
class SharedValue(Proxy, Generic[V]):
    """One value that every worker shares: ``THEME.value``, ``THEME.value = "light"``.

    A value that was never set and has no ``initial`` is None. Reading is as fresh and setting as atomic as
    in a `SharedDict`.

    It is equal to what its value is equal to, true if that is, and printed and formatted as that is. For
    anything else, such as ``<``, ``+``, ``len`` or an attribute, use ``.value``: those raise a TypeError, or
    an AttributeError, that says so. It is not hashable, since its value changes.
    """

    __slots__ = ()

    @property
    def value(self) -> V:
        """The value, of any type; setting it is one atomic commit."""
        return self._unwrap()  # type: ignore[no-any-return]

    @value.setter
    def value(self, value: V) -> None:
        with self._gate:
            if not is_in_place(self, KEY, value):
                self._here().assign({KEY: unwrap(value)})

    def apply(self, function: Callable[[V], V], default: Any = ABSENT) -> V:
        """Replace the value by what a function makes of it, in one atomic commit.

        :param function: as of `SharedDict.apply`.
        :param default: what the function is given if the value was never set and has no ``initial``.
        :returns: the new value.
        :raises KeyError: if it was never set, and there is neither ``initial`` nor ``default``.
        :raises UnsupportedOperationError: if the store can't do it atomically.
        """
        with self._gate:
            return self._here().apply(KEY, function, default)  # type: ignore[no-any-return]

    def edit(self, default: Any = ABSENT, *, retry: int | None = None) -> Edit[V]:
        """A ``with`` block, or a decorator, with a private copy of the value; see `SharedDict.edit`.

        :param default: what is changed if the value was never set and has no ``initial``.
        :param retry: as of `SharedDict.edit`.
        :returns: an `Edit`: a context manager that gives the copy, and with ``retry`` a decorator.
        :raises KeyError: at the start, if it was never set, and there is neither ``initial`` nor
            ``default``.
        :raises ConflictError: at the end, if another worker has set it; nothing was written.
        """
        return Edit(self, KEY, default, retry)

    def _unwrap(self) -> Any:
        return read_value(self._replica, None)

    def __getattr__(self, attribute: str) -> Any:
        raise AttributeError(
            f"a SharedValue has no attribute {attribute!r}: use {self._name}.value.{attribute}",
            name=attribute,
            obj=self,
        )

    def __eq__(self, other: object) -> Any:
        return self.value == (other.value if isinstance(other, SharedValue) else other)

    def __ne__(self, other: object) -> Any:
        return self.value != (other.value if isinstance(other, SharedValue) else other)

    __array__ = as_array
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.value)

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, specification: str) -> str:
        return format(self.value, specification)

    def __copy__(self) -> V:
        return self.value

    def __deepcopy__(self, memo: dict[int, Any]) -> V:
        return copy.deepcopy(self.value, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (unwrap(self.value),)


def _itself(value: Any) -> Any:
    return value


def read_value(replica: Any, default: Any) -> Any:
    """Return the one object that such a name holds, or ``default``."""
    here = replica.fresh()
    try:
        return here.values[KEY]
    except KeyError:
        pass
    try:
        return here.read(KEY)
    except KeyError:
        return default
