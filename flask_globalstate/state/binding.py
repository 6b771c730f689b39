"""A store and what hangs on it: the replicas of a state's names, what seals values, what is counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import EncodingError
from ..proxies.base import Proxy, make_codec
from ..replicas.factory import make_replica
from ..replicas.freshness import Outage, Staleness
from ..replicas.modes import RequestReplica
from ..replicas.options import ReplicaOptions
from ..replicas.replica import Replica
from ..replicas.requests import current_transactions
from ..replicas.transaction import Transaction
from ..system.clock import now
from ..system.locks import ThreadLock
from ..values.encodings import PickleEncoding
from ..values.envelope import encoded
from .config import Config
from .stats import Stats

logger = logging.getLogger("flask_globalstate")

Secrets = Callable[[], Sequence[bytes]]


class Global(NamedTuple):
    """One name of a state: its proxy, and how it was asked for."""

    proxy: Proxy
    initial: Any
    sync: str | None


class Binding:
    """A state's store, and the replicas of its names.

    :param config: what the store is made from.
    :param app_secrets: returns the application's own secrets, for a store that keeps none.
    :param check: called with name, key and value of each write to a store that holds objects.
    """

    def __init__(
        self,
        config: Config,
        app_secrets: Secrets = tuple,
        check: Callable[[str, str, Any], None] | None = None,
    ) -> None:
        self.config = config
        self.store = config.make_store()
        self.outage = Outage(config.stale_if_down)
        self._staleness = Staleness(config.max_staleness, self.sync)
        self.replicas: dict[str, Replica] = {}
        self.stats = Stats(config.on_conflict)
        self.app_secrets = app_secrets
        #: the transactions that are running
        self._transactions: set[Transaction] = set()
        self._lock = ThreadLock(reentrant=True)
        #: whether the state has moved to another store
        self.is_left = False
        self.codec = make_codec(self.store, config.encoding, config.old_encoding, self._secrets, check)

    def replica(self, name: str, made: Global) -> Replica:
        """The replica of a name, made at the first call."""
        with self._lock():
            if name not in self.replicas:
                proxy = made.proxy
                options = ReplicaOptions(
                    proxy._first_content(made.initial), self.outage, self._staleness, proxy._wrap, self.stats
                )
                mode = made.sync or self.config.sync
                if mode == "request" and self.config.max_staleness == 0:
                    mode = "read"
                replica = make_replica(mode, name, self.store, self.codec, options)
                for transaction in self._transactions:
                    replica.begin_transaction(transaction)
                # A new dict, since a request may be iterating over this one.
                self.replicas = {**self.replicas, name: replica}
            return self.replicas[name]

    def forget(self, name: str) -> None:
        """Drop the replica of a name, so that the next use makes a new one."""
        with self._lock():
            self.replicas = {other: replica for other, replica in self.replicas.items() if other != name}

    def any_replica(self, name: str) -> Replica:
        """The replica of any name in the store, whether or not this process has a proxy for it."""
        return self.replicas.get(name) or make_replica("read", name, self.store, self.codec)

    def check(self, made: Mapping[str, Global]) -> None:
        """Raise now what would be raised at the first use of these names, and write nothing."""
        for name, one in made.items():
            self.replica(name, one)
        self.store.check()

    def begin_transaction(self, transaction: Transaction) -> None:
        """Make every read check whether it is in this transaction."""
        with self._lock():
            self._transactions.add(transaction)
            for replica in self.replicas.values():
                replica.begin_transaction(transaction)

    def end_transaction(self, transaction: Transaction) -> None:
        """Undo `begin_transaction`; a second call does nothing."""
        with self._lock():
            self._transactions.discard(transaction)
            for replica in self.replicas.values():
                replica.end_transaction(transaction)

    def is_in_transaction(self) -> bool:
        """Whether this context is in a transaction of this store."""
        return any(transaction.is_of(self.store) for transaction in current_transactions.get())

    def sync(self) -> None:
        """Bring the names in ``request`` mode up to date, in one round trip if nothing changed."""
        in_use = []
        for replica in self.replicas.values():
            if replica.row != replica.remembered and isinstance(replica, RequestReplica) and replica.in_use:
                in_use.append(replica)
        if not in_use:
            return
        store, asked_at = in_use[0].store, now()
        with self.outage.tolerated():
            if store.host_local:
                for replica in in_use:
                    replica.sync()
            else:
                revisions = store.revisions([replica.name for replica in in_use])
                for replica, revision in zip(in_use, revisions, strict=True):
                    if not replica.synced_at(revision):
                        replica.sync()
        for replica in in_use:
            replica.freshness.asked_at = asked_at

    def _secrets(self) -> Sequence[bytes]:
        config = self.config
        if config.secret_key is not None:
            return [config.secret_key, *config.secret_key_fallbacks]
        own = self.store.secret()
        secrets = self.app_secrets() if own is None else [own]
        return [*secrets, *config.secret_key_fallbacks]


def warn_of_unshareable_value(name: str, key: str, value: Any) -> None:
    """Warn about a value that a shared store would refuse, while developing on one that holds objects."""
    try:
        encoded(PickleEncoding(), name, key, value)
    except EncodingError as error:
        logger.warning("a shared store would refuse this value: %s", error)
