"""When a replica is brought up to date: the sync modes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from . import keys
from .errors import ConfigurationError, DecodingError, StoreUnavailableError
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
    """``manual`` mode: the whole name is loaded at first use; reads never ask the store after that.

    What is held is loaded as long as the order of the keys is held: whatever makes that unknown (another
    epoch, a write of which it is not known whether it was made) makes the next use load again.
    """

    def refresh(self) -> None:
        self.order()

    def _watch(self) -> memoryview | None:
        return None

    def sync(self) -> None:
        """Load what other workers have changed."""
        while True:
            super().sync()
            if self._load():
                return

    def read(self, key: Any) -> Any:
        if key not in self.order():
            keys.to_string(key)
            self._note({key: NONE})
            raise KeyError(key)
        # Only what could not be decoded is in the order and not in the values.
        return super().read(key)

    def order(self) -> dict[Any, None]:
        while True:
            order = self._held.order
            if order is not None:
                return order
            self.sync()

    def _snapshot(self) -> tuple[dict[Any, Any], dict[Any, int]]:
        held = self._held
        order = self.order()
        with held.lock:
            if held.order is not None and all(key in held.values for key in held.order):
                return {key: held.values[key] for key in held.order}, dict(held.numbers)
        found = {}
        for key in order:
            with suppress(KeyError):  # Another worker has removed what is not held.
                found[key] = held.values[key] if key in held.values else self.read(key)
        return found, dict(held.numbers)

    def contains(self, key: Any) -> bool:
        keys.to_string(key)
        return key in self.order()

    def _load(self) -> bool:
        """Load all; false if a newer answer was seen meanwhile."""
        self.seed()
        held = self._held
        resets = held.resets
        revision, entries = self.store.fetch(self.name)
        with suppress(DecodingError):  # Raised when that key is read.
            self._keep_all(revision, entries, resets)
        with held.lock:
            if not held.meets(revision, resets):
                return False
            held.set_order((stored_key(self.name, text) for text in entries), revision.number)
        # What a hit compares is equal from now on, whatever others write.
        self._remember(self.row, self.row)
        return True

    def _written(
        self, written: Iterable[Any], revision: Revision, resets: int, removed: Iterable[Any] = ()
    ) -> None:
        written, gone = list(written), set(removed)
        super()._written(written, revision, resets, gone)
        with self._held.lock:
            if self._held.order is None:
                return
        for key in written:
            # The write was made, whatever comes of reading it.
            try:
                if key not in gone and self.fetch(key, keys.to_string(key))[0] is ABSENT:
                    gone.add(key)
            except (StoreUnavailableError, DecodingError):
                continue
            except BaseException:
                self.forget(written)
                raise
        with self._held.lock:
            if self._held.order is not None:
                order = {**self._held.order, **dict.fromkeys(written)}
                self._held.order = {key: None for key in order if key not in gone}

    def forget(self, written: Iterable[Any]) -> None:
        super().forget(written)
        with self._held.lock:
            self._held.order = None


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
