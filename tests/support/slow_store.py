"""A replica over a store whose answers can be held back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.replicas.replica import Replica
from flask_globalstate.stores.base import Changes, Fetched, Revision, Store, Write
from flask_globalstate.stores.memory import MemoryStore

NAME = "DATA"


class SlowStore(MemoryStore):
    """Counts what it is asked, and can answer late.

    :ivar along: whether changed values come along with a sync.
    """

    def __init__(self) -> None:
        super().__init__()
        self.along = False
        self.asked: list[str] = []
        self.meanwhile: dict[str, Callable[[], None]] = {}
        self.down = False

    def _late(self, method: str, answer: Any) -> Any:
        if self.down:
            raise StoreUnavailableError("down")
        self.asked.append(method)
        then = self.meanwhile.pop(method, None)
        if then is not None:
            then()
        return answer

    def fetch(self, name: str, keys: Any = None) -> Fetched:
        return self._late("fetch", super().fetch(name, keys))

    def changes(self, name: str, since: Revision) -> Changes:
        changes = super().changes(name, since)
        if self.along:
            changes = changes._replace(entries=super().fetch(name, changes.changed).entries)
        return self._late("changes", changes)

    def keys(self, name: str) -> Any:
        return self._late("keys", super().keys(name))

    def begin_epoch(self) -> None:
        """Lose everything, as a server does that is started without its data."""
        self._epoch, self._number, self._names = "another epoch", 0, {}


def write(store: Store, **items: Any) -> None:
    """Another worker commits."""
    store.commit([Write(NAME, key, value) for key, value in items.items()])


def read(replica: Replica, key: str) -> Any:
    """A read as SharedDict does it, without a check for freshness."""
    try:
        return replica.values[key]
    except KeyError:
        return replica.read(key)
