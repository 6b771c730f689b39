"""What the proxies have in common: a name, and the replica that a state or a store gives them."""

from __future__ import annotations

import reprlib
from typing import Any

from .replica import Replica

_short = reprlib.Repr()
_short.maxdict = _short.maxlist = _short.maxtuple = _short.maxset = 10
_short.maxstring = _short.maxother = 60


class Unbound:
    """Stands in for the replica of a proxy that has no store yet.

    :raises RuntimeError: at any use.
    """

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, attribute: str) -> Any:
        raise RuntimeError(
            f"the shared global {self._name!r} was used before its store is configured: call "
            "init_app(app) first. To give it content at import time, say "
            "state.dict(name, initial={...}) instead of writing to it"
        )


class Proxy:
    """A shared global. It stays the same object while its store is configured, changed or forked."""

    def __init__(self, name: str, replica: Replica | None = None) -> None:
        self._name = name
        self._replica: Replica = replica or Unbound(name)  # type: ignore[assignment]

    @property
    def name(self) -> str:
        """The name of this global in its store."""
        return self._name

    def _bind(self, replica: Replica | None) -> None:
        """Use another replica from now on; none at all makes every use an error."""
        self._replica = replica or Unbound(self._name)  # type: ignore[assignment]

    def _plain(self) -> Any:
        """The plain object that this proxy stands for."""
        raise NotImplementedError

    def sync(self, **ignored: Any) -> None:
        """Take over what other workers have changed.

        Needed in ``manual`` mode only. Keyword arguments are accepted and ignored, so that it can be
        connected to a signal.
        """
        self._replica.sync()

    def _contents(self) -> str:
        """What a repr shows: never an error, since a repr is read while one looks for another error."""
        if isinstance(self._replica, Unbound):
            return "no store yet"
        try:
            return _short.repr(self._plain())
        except Exception as error:
            return f"not readable: {type(error).__name__}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self._contents()}>"
