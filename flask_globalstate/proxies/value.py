"""`SharedValue`: what a user holds in place of a module-level name that is bound again at run time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..stores.base import ABSENT
from ..tracking.types import is_in_place, plain
from .base import KEY, Proxy
from .editing import Edit

V = TypeVar("V")


class SharedValue(Proxy, Generic[V]):
    """One value that every worker shares: ``THEME.value``, ``THEME.value = "light"``.

    A value that was never set and has no ``initial`` is None. Reading is as fresh, and setting as
    atomic, as in a `SharedDict`.
    """

    @property
    def value(self) -> V:
        """The value, of any type; setting it is one atomic commit."""
        return self._plain()  # type: ignore[no-any-return]

    @value.setter
    def value(self, value: V) -> None:
        with self._gate:
            if not is_in_place(self, KEY, value):
                self._here().assign({KEY: plain(value)})

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

    def _plain(self) -> Any:
        return read_value(self._replica, None)

    def __bool__(self) -> bool:
        raise TypeError(f"a SharedValue is neither true nor false: ask for the .value of {self._name!r}")

    def __copy__(self) -> V:
        return self.value

    def __deepcopy__(self, memo: dict[int, Any]) -> V:
        return copy.deepcopy(self.value, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (plain(self.value),)


def _itself(value: Any) -> Any:
    return value


def read_value(replica: Any, default: Any) -> Any:
    """What a name holds that holds one object, or ``default``."""
    here = replica.fresh()
    try:
        return here.values[KEY]
    except KeyError:
        pass
    try:
        return here.read(KEY)
    except KeyError:
        return default
