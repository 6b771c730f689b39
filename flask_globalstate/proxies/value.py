"""`SharedValue`: what a user holds in place of a module-level name that is rebound at run time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..stores.base import ABSENT
from ..tracking.types import is_in_place, unwrap
from .base import KEY, Proxy
from .editing import Edit

V = TypeVar("V")


class SharedValue(Proxy, Generic[V]):
    """One value that every worker shares: ``THEME.value``, ``THEME.value = "light"``.

    A value that was never set and has no ``initial`` is None. Reading is as fresh and setting as atomic as
    in a `SharedDict`.
    """

    @property
    def value(self) -> V:
        """The value; setting it is one atomic commit."""
        return self._unwrap()  # type: ignore[no-any-return]

    @value.setter
    def value(self, value: V) -> None:
        with self._gate:
            if not is_in_place(self, KEY, value):
                self._here().assign({KEY: unwrap(value)})

    def apply(self, function: Callable[[V], V], default: Any = ABSENT) -> V:
        """Replace the value by ``function(value)`` and return that; see `SharedDict.apply`."""
        with self._gate:
            return self._here().apply(KEY, function, default)  # type: ignore[no-any-return]

    def edit(self, default: Any = ABSENT, *, retry: int | None = None) -> Edit:
        """Edit a private copy of the value; see `SharedDict.edit`."""
        return Edit(self, KEY, default, retry)

    def _unwrap(self) -> Any:
        return read_value(self._replica, None)

    def __bool__(self) -> bool:
        raise TypeError(f"a SharedValue is neither true nor false: ask for the .value of {self._name!r}")

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
