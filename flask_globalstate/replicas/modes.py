"""When a replica is brought up to date: the sync modes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal

from ..errors import ConfigurationError, DecodingError, StoreUnavailableError
from ..stores.base import Entry, Store
from ..values import keys
from ..values.revision import Revision
from .base import stored_key
from .cache import NONE, Cache, CachedValue
from .freshness import ManualFreshness, RequestFreshness
from .replica import Replica
from .ticket import WriteTicket

#: what a user may ask for
Mode = Literal["request", "read", "manual"]
#: how often the parts of a change are asked for, before all is loaded
PARTS_TRIED = 3


class RequestReplica(Replica):
    """``request`` mode."""

    make_freshness = RequestFreshness


class ManualReplica(Replica):
    """``manual`` mode: the whole name is loaded at first use; reads never ask the store after that.

    What is cached is of one revision, the base, as long as the order of the keys is. A write of this
    worker brings it to the revision of that write, what others have changed included, as ``sync()`` does.
    Whatever ends the base (another epoch, a write of which it is not known whether it was made, a newer
    value that was shown) makes the next use load again.
    """

    make_freshness = ManualFreshness

    @staticmethod
    def _make_cache(name: str, store: Store) -> Cache:
        return Cache(name, None, is_base=True)

    def refresh(self) -> None:
        if self.row != self.remembered:
            self.freshness.resume_hits(self)
        self.order()

    def sync(self) -> None:
        """Load what other workers have changed."""
        for _ in range(PARTS_TRIED):
            if self._load_changes():
                return
        while not self._load():
            pass

    def read(self, key: Any) -> Any:
        keys.to_find(key)
        if key not in self.order():
            self.read_sets.note({key: NONE})
            raise KeyError(key)
        try:
            return self.values[key]
        except KeyError:
            return super().read(key)  # It could not be decoded.

    def order(self) -> dict[Any, None]:
        while True:
            order = self.cache.order
            if order is not None:
                return order
            self.sync()

    def _snapshot(self) -> tuple[dict[Any, Any], dict[Any, int]]:
        while True:
            self.order()
            items = self.cache.whole_items()
            if items is None:
                continue  # Another thread has ended the base.
            found, numbers, lacking = items
            if not lacking:
                return found, numbers
            self.read(lacking[0])  # Raises, unless it can be decoded by now: then there is a newer base.

    def _finds(self, key: Any) -> bool:
        keys.to_find(key)
        if key in self.order():
            return True
        self.read_sets.note({key: NONE})
        return False

    def _load_changes(self) -> bool:
        """Load what has changed since the base; false if there is none, or the parts don't fit together."""
        self.seed()
        ticket, base = self.ask(), self.cache.base()
        if base is None:
            return False
        start, order = base
        changes = self.store.changes(self.name, start)
        revision = changes.revision
        if changes.reset or revision.epoch != start.epoch:
            return False
        entries = changes.entries
        if changes.changed.keys() - entries.keys():
            at, entries = self.store.fetch(self.name, changes.changed)
            if at != revision:
                return False
        found = {
            stored_key(self.name, text): self._open_if_possible(text, entry, revision)
            for text, entry in entries.items()
        }
        removed = {stored_key(self.name, text) for text in changes.removed}
        new = [key for key in found if key not in order or key in removed]
        if len(new) > 1:
            at, texts = self.store.keys(self.name)
            if at != revision:
                return False
            order = dict.fromkeys(stored_key(self.name, text) for text in texts)
        else:
            order = {**{key: None for key in order if key not in removed}, **dict.fromkeys(new)}
        opened = {key: one for key, one in found.items() if one is not None}
        return ticket.move_base(opened, [*removed, *(found.keys() - opened)], order, start, revision)

    def _open_if_possible(self, text: str, entry: Entry, at: Revision) -> CachedValue | None:
        try:
            return self._open(stored_key(self.name, text), text, entry, Revision(at.epoch, entry.number))
        except DecodingError:
            return None  # Raised when that key is read.

    def _load(self) -> bool:
        """Load all; false if a newer answer was seen meanwhile."""
        ticket, (revision, entries) = self._answer(lambda: self.store.fetch(self.name))
        with suppress(DecodingError):  # Raised when that key is read.
            self._take(revision, entries, ticket, is_whole=True)
        if self.cache.order is None:
            return False
        self.freshness.trust(self)
        return True

    def written(
        self, written: Iterable[Any], revision: Revision, ticket: WriteTicket, removed: Iterable[Any] = ()
    ) -> None:
        written = list(written)
        if self.cache.base() is None:
            super().written(written, revision, ticket, removed)
            return
        self.read_sets.note_written(
            {**dict.fromkeys(written, revision.number), **dict.fromkeys(removed, NONE)}, revision.epoch
        )
        # The write was made, whatever comes of reading it.
        try:
            self.sync()
        except (StoreUnavailableError, DecodingError):
            self.cache.evict(written)


MODES: dict[str, type[Replica]] = {"request": RequestReplica, "read": Replica, "manual": ManualReplica}


def find_mode(name: str, sync: Mode | None, autosync: bool | None) -> Mode | None:
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
