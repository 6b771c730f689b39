"""The names of a state: each has one proxy, which gets a replica of whatever store the state is bound to."""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

from ..errors import ConfigurationError
from ..proxies.base import Proxy
from ..system.gate import Gate
from ..system.locks import ThreadLock
from ..values.wording import article, kind_of
from .binding import Binding, Global

P = TypeVar("P", bound=Proxy)

#: the names of every state of this process
live_names: weakref.WeakSet[Names] = weakref.WeakSet()


class Names:
    """The names of a state, and the store that they are bound to.

    :param gate: what every write to them goes through.
    """

    def __init__(self, gate: Gate) -> None:
        self.binding: Binding | None = None
        self._gate = gate
        self._globals: dict[str, Global] = {}
        #: those that are globals of modules, whose code can't be edited
        self.of_modules: set[str] = set()
        self._lock = ThreadLock(reentrant=True)
        live_names.add(self)

    def __contains__(self, name: object) -> bool:
        return name in self._globals

    def get(self, name: str) -> Global | None:
        """The proxy of a name and how it was asked for, if it was."""
        return self._globals.get(name)

    def bound(self) -> Binding:
        """The store that the names are bound to.

        :raises RuntimeError: if there is none.
        """
        if self.binding is None:
            raise RuntimeError("this state has no store yet: call init_app(app), or use from_config")
        return self.binding

    def proxy(self, kind: type[P], name: str, initial: Any, sync: str | None) -> P:
        """The proxy of a name; the same object at each call.

        :raises ConfigurationError: if the name was asked for as another kind or with other options.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a shared global must be a str, not {type(name).__qualname__}")
        kind._check_initial(name, initial)
        with self._lock():
            made = self._globals.get(name)
            if made is None:
                made = Global(kind(name), initial, sync)
                made.proxy._gate = self._gate
                self._attach(name, made)
                self._globals[name] = made  # Whole, for a child that is forked meanwhile.
            elif type(made.proxy) is not kind:
                raise ConfigurationError(
                    f"{name!r} is {kind_of(made.proxy)} already, and can't be {article(kind.__name__)} too"
                )
            elif not (_same_option(initial, made.initial) and _same_option(sync, made.sync)):
                raise ConfigurationError(f"{name!r} exists already with another initial or sync")
            return made.proxy  # type: ignore[return-value]

    def forget(self, name: str) -> None:
        """Let a name be asked for anew, as another kind or with another ``initial``."""
        with self._lock():
            self._globals.pop(name, None)
            if self.binding is not None:
                self.binding.forget(name)

    def check(self, binding: Binding) -> None:
        """Raise now what would be raised at the first use of the names on another store; write nothing."""
        binding.check(self._globals)

    def bind(self, binding: Binding | None) -> None:
        """Give every proxy a replica of another store; the old store is left as it is."""
        with self._lock():
            old, self.binding = self.binding, binding
            if binding is not None:
                binding.is_left = False  # It may be one that comes back.
                binding.stats.of_modules = self.of_modules
            for name, made in self._globals.items():
                self._attach(name, made)
        if old is not None:
            old.is_left = True
            old.store.close()

    def _attach(self, name: str, made: Global) -> None:
        made.proxy._bind(None if self.binding is None else self.binding.replica(name, made))


def _same_option(asked: Any, made: Any) -> bool:
    return asked is None or asked is made or bool(asked == made)
