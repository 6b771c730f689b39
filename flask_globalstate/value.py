"""`SharedValue`: what a user holds in place of a module-level name that is bound again at run time."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from .proxy import KEY, Proxy

V = TypeVar("V")


class SharedValue(Proxy, Generic[V]):
    """One value that every worker shares: ``THEME.value``, ``THEME.value = "light"``.

    A value that was never set and has no ``initial`` is None. Reading is as fresh, and setting as
    atomic, as in a `SharedDict`.
    """

    @property
    def value(self) -> V:
        """The value; setting it is one atomic commit."""
        return self._plain()  # type: ignore[no-any-return]

    @value.setter
    def value(self, value: V) -> None:
        self._replica.commit({KEY: value})

    def _plain(self) -> Any:
        return read_value(self._replica, None)


def read_value(replica: Any, default: Any) -> Any:
    """What a name holds that holds one object, or ``default``."""
    replica.refresh()
    try:
        return replica.values[KEY]
    except KeyError:
        pass
    try:
        return replica.read(KEY)
    except KeyError:
        return default
