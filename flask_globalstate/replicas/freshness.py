"""When a replica must ask the store: what a hit compares, and what the sync modes promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Protocol

from ..errors import StoreUnavailableError
from ..stores.base import Store
from ..system.clock import now
from ..system.locks import Guard
from .base import NEVER
from .requests import request_here


class Ending(Protocol):
    """As much of a transaction as is known here."""

    @property
    def is_over(self) -> bool:
        """Whether its ``with`` statement was left."""
        ...


class Outage:
    """How long the store has been out of reach, and for how long that is tolerated.

    :param tolerance: seconds for which reads may be served from what is cached.
    """

    def __init__(self, tolerance: float = 0) -> None:
        self._tolerance = tolerance
        self._began: float | None = None

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Let a sync fail silently while the tolerance lasts."""
        try:
            yield
        except StoreUnavailableError:
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            if now - self._began >= self._tolerance:
                raise
        else:
            self._began = None


@dataclass(frozen=True)
class Staleness:
    """How old what a request reads may be.

    :param limit: seconds, above 0.
    :param sync_names: brings every name of a networked store up to date, in one round trip if nothing
        changed.
    """

    limit: float = 1.0
    sync_names: Callable[[], None] | None = None


class Look(NamedTuple):
    """A look at the shared memory that tells of changes of a name.

    :ivar row: the memory; it changes with every commit.
    :ivar seen: what was in it.
    """

    # Both are memoryviews of words: comparing them takes half the time of comparing a slice with bytes.
    row: memoryview
    seen: memoryview

    def is_unchanged(self) -> bool:
        """Whether nothing was written since."""
        return self.row == self.seen


def look_at(store: Store, name: str) -> Look | None:
    """Look at the memory of a name; None if the store has none."""
    row = store.watch(name)
    return None if row is None else Look(row, memoryview(row.tobytes()).cast("Q"))


class HitPath(Protocol):
    """What a hit compares: as much of a replica as is known here."""

    #: shared memory that changes with each commit
    row: memoryview
    #: what was in it at the last sync; while the two differ every read asks `Freshness`
    remembered: memoryview

    def sync(self) -> None:
        """Ask the store what has changed, and evict that."""


class Freshness:
    """When a replica is brought up to date. As it is: at each read, so that each is linearizable.

    It writes the two attributes of the replica that a hit compares. The replica is handed to each call, so
    that neither keeps the other alive.

    :param store: where the name lives.
    :param name: the name.
    :param guard: of the cache.
    :param outage: for how long a sync may fail.
    :param staleness: how old what a request reads may be.
    """

    #: when the store was last asked, or that was tried and its failure is tolerated
    asked_at = -inf

    def __init__(self, store: Store, name: str, guard: Guard, outage: Outage, staleness: Staleness) -> None:
        self._store = store
        self._name = name
        self._guard = guard
        self._outage = outage
        self._staleness = staleness
        #: what is remembered while no transaction runs; while one does, no hit is compared with anything
        self._seen = NEVER
        self._transactions: set[Ending] = set()

    def refresh(self, replica: HitPath) -> None:
        """Be as fresh as the mode promises to whoever reads next; called where no hit is possible."""
        if self.is_unchanged(replica):
            self.resume_hits(replica)
            return
        with self._outage.tolerated():
            replica.sync()

    def look(self) -> Look | None:
        """Look at the shared memory; called before the store is asked, so that no commit is missed."""
        return look_at(self._store, self._name)

    def take(self, replica: HitPath, look: Look | None) -> None:
        """Let hits compare with what was seen, if nothing was under way; after the evictions."""
        if look is not None and self._store.is_idle(self._name, look.seen):
            self._remember(replica, look.row, look.seen)

    def trust(self, replica: HitPath) -> None:
        """Let every read be a hit, whatever others write."""
        self._remember(replica, replica.row, replica.row)

    def is_unchanged(self, replica: HitPath) -> bool:
        """Whether shared memory tells that nothing was written since the last sync."""
        return replica.row == self._seen

    def begin_transaction(self, replica: HitPath, transaction: Ending) -> None:
        """Let every read ask, so that it is found out which transaction it is in."""
        with self._guard():
            self._transactions.add(transaction)
            replica.remembered = NEVER

    def end_transaction(self, replica: HitPath, transaction: Ending) -> None:
        """The opposite; the second time nothing is done."""
        with self._guard():
            self._transactions.discard(transaction)
            replica.remembered = NEVER if self._transactions else self._seen

    def resume_hits(self, replica: HitPath) -> None:
        """End transactions whose own end was cut short; while one runs there are no hits."""
        if replica.remembered is NEVER and all(one.is_over for one in self._transactions):
            self._transactions.clear()
            self._remember(replica, replica.row, self._seen)

    def _remember(self, replica: HitPath, row: memoryview, seen: memoryview) -> None:
        with self._guard():
            replica.row, self._seen = row, seen
            replica.remembered = NEVER if self._transactions else seen


class RequestFreshness(Freshness):
    """``request`` mode: fresh as of the start of the request; outside of one as `Freshness`.

    What a request reads is no older than `Staleness` allows, too. The age counts from before the store was
    asked, for whichever request of this process.
    """

    def refresh(self, replica: HitPath) -> None:
        # As `is_unchanged`, without a call: after a write of anybody this is what each read costs.
        request = None if replica.row == self._seen else request_here()
        began = None if request is None else request.fresh_at.get(self._store)
        if began is None:
            super().refresh(replica)
            return
        at = now()
        if at - max(began, self.asked_at) < self._staleness.limit:
            return
        sync_names = self._staleness.sync_names
        if sync_names is None or self._store.host_local:
            super().refresh(replica)
            self.asked_at = at
        else:
            sync_names()


class ManualFreshness(Freshness):
    """``manual`` mode: fresh as of the first use and of each ``sync()``."""

    def look(self) -> None:
        """Nothing: a hit is compared with nothing that others write."""
