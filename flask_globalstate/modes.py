"""When a replica is brought up to date: the sync modes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from . import keys
from .errors import ConfigurationError, DecodingError
from .replica import Replica, stored_key
from .revision import Revision
from .scope import NONE, request_here
from .stores.base import ABSENT


class RequestReplica(Replica):
    """``request`` mode: fresh as of the start of the request; outside of one as `Replica`."""

    def refresh(self) -> None:
        if self.is_unchanged():
            return
        request = request_here()
        if request is None or self.store not in request.fresh_stores:
            super().refresh()


class ManualReplica(Replica):
    """``manual`` mode: the whole name is loaded at first use; reads never ask the store after that."""

    _loaded = False

    def refresh(self) -> None:
        if not self._loaded:
            self.sync()

    def _watch(self) -> memoryview | None:
        return None

    def sync(self) -> None:
        """Load what other workers have changed."""
        super().sync()
        self._load()

    def read(self, key: Any) -> Any:
        order = self._held.order
        if order is None or key not in order:
            keys.to_string(key)
            self._note({key: NONE})
            raise KeyError(key)
        # Only what could not be decoded is in the order and not in the values.
        return super().read(key)

    def order(self) -> dict[Any, None]:
        self.refresh()
        return self._held.order or {}

    def _snapshot(self) -> tuple[dict[Any, Any], dict[Any, int]]:
        values = self._held.values
        found = {key: values[key] if key in values else self.read(key) for key in self.order()}
        return found, dict(self._held.numbers)

    def contains(self, key: Any) -> bool:
        self.refresh()
        keys.to_string(key)
        return key in self.order()

    def _load(self) -> None:
        self.seed()
        resets = self._held.resets
        revision, entries = self.store.fetch(self.name)
        with suppress(DecodingError):  # Raised when that key is read.
            self._keep_all(revision, entries, resets)
        with self._held.lock:
            self._held.set_order((stored_key(self.name, text) for text in entries), revision.number)
            self._loaded = True
        # What a hit compares is equal from now on, whatever others write.
        self._remember(self.row, self.row)

    def _written(
        self, written: Iterable[Any], revision: Revision, resets: int, removed: Iterable[Any] = ()
    ) -> None:
        written = list(written)
        super()._written(written, revision, resets, removed)
        if not self._loaded:
            return
        for key in written:
            value, _ = self.fetch(key, keys.to_string(key))
            with self._held.lock:
                if self._held.order is None:
                    continue
                order = dict(self._held.order)
                if value is ABSENT:
                    order.pop(key, None)
                else:
                    order.setdefault(key)
                self._held.order = order

    def clear(self) -> None:
        super().clear()
        with self._held.lock:
            self._held.order = {}


MODES: dict[str, type[Replica]] = {"request": RequestReplica, "read": Replica, "manual": ManualReplica}


def find_mode(name: str, sync: str | None, autosync: bool | None) -> str | None:
    """The sync mode that is asked for in either word, or None if in none.

    :param name: the global, for the error.
    :param autosync: durabledict's word: True is ``read``, False is ``manual``.
    :raises ConfigurationError: if it is no mode, or if both are given.
    """
    if autosync is not None:
        if sync is not None or not isinstance(autosync, bool):
            raise ConfigurationError(
                f"autosync of {name!r} is {autosync!r} and sync is {sync!r}; give one of them: autosync is "
                'True, which is sync="read", or False, which is sync="manual"'
            )
        return "read" if autosync else "manual"
    if sync is not None and sync not in MODES:
        raise ConfigurationError(f"sync of {name!r} is {sync!r}; it must be one of {', '.join(MODES)}")
    return sync
