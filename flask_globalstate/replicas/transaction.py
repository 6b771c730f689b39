"""Transactions: reads and writes over several names that commit together or not at all.

Optimistic, after Kung and Robinson, "On optimistic methods for concurrency control" (1981): what is read
is noted with its revision, what is written stays here, and one commit at the end does the writes under
the condition that all that was read is as it was. So transactions are serializable.

What is read inside is of one revision too, also in a transaction that will fail: each time more is read
than before, all that was read is checked to be as it was.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ConflictError
from ..stores.base import Backend, Expected, Store
from ..system.gate import Gate
from ..values.revision import Revision
from .freshness import Look, look_at
from .replica import Replica
from .requests import current_transactions
from .ticket import WriteTickets
from .transaction_view import View


class Transaction:
    """Reads and writes that commit together or not at all; see `State.transaction`.

    It belongs to the thread that has begun it, and is over when its ``with`` statement is left, in whatever
    way: not when its context is left, since contexts are copied to other threads and outlive it.

    :param store: the store of the state.
    :param gate: what every write of the state goes through.
    :param is_left: tells whether its ``with`` statement was left.
    """

    def __init__(self, store: Store, gate: Gate, is_left: Callable[[], bool]) -> None:
        self.store = store
        self._gate = gate
        self._is_left = is_left
        self._views: dict[str, View] = {}
        self._id = f"transaction {secrets.token_hex(8)}"
        self._steps = 0
        self._looks: dict[str, Look | None] = {}
        self._thread = threading.get_ident()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether its block was left, in whatever way."""
        return self._is_over or self._is_left()

    def is_of(self, store: Backend) -> bool:
        """Whether what this thread does with a store is done in it."""
        return store is self.store and not self.is_over and threading.get_ident() == self._thread

    def check(self, name: str, gate: object, store: Backend) -> None:
        """Return unless the state has moved to another store since it began.

        :raises ConflictError: if it has: what is written now would not be a part of it.
        """
        if gate is self._gate and store is not self.store and self.is_of(self.store):
            raise ConflictError(name, None, "the store that the transaction began on", "another")

    def view(self, replica: Replica) -> View:
        """What this transaction sees of a name."""
        view = self._views.get(replica.name)
        if view is None:
            view = self._views[replica.name] = View(self, replica)
        return view

    def next_revision(self) -> Revision:
        """The revision of something written inside; of no epoch that a store has."""
        self._steps += 1
        return Revision(self._id, self._steps)

    def begin(self) -> None:
        """Let the proxies of this context use it."""
        current_transactions.set((*_live_transactions(), self))

    def end(self) -> None:
        """Let them use it no more; what was written in it is not committed yet."""
        self._is_over = True
        current_transactions.set(_live_transactions())

    def end_notes(self) -> None:
        """Let nothing that was read in it outside of requests be a condition of what is written after it."""
        for view in self._views.values():
            view.replica.end_notes()

    def commit(self) -> None:
        """Do what was written, under the condition that what was read is as it was."""
        views = list(self._views.values())
        for view in views:
            view.examine()
            view.note_changed_objects()
        if not any(view.written for view in views):
            return  # What was read was of one revision.
        written = [[key for key, _ in view.written.values()] for view in views]
        tickets = WriteTickets(view.replica.write(keys) for view, keys in zip(views, written, strict=True))
        with tickets:
            revision = self.store.commit([w for view in views for w in view.writes()], self._conditions())
            for view, keys, ticket in zip(views, written, tickets, strict=True):
                view.replica.written(keys, revision, ticket, view.removed())

    def _conditions(self) -> dict[str, Expected]:
        views = self._views.values()
        return {view.name: view.name_read_at for view in views if view.name_read_at is not None}

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Check after reading more that all that was read is of one revision.

        :raises ConflictError: if another worker has changed what was read before.
        """
        looks = self._look([name])
        had_read = any(view.read_at or view.name_read_at for view in self._views.values())
        yield
        if not had_read or self._is_unchanged():
            self._looks = {**looks, **self._looks}
        else:
            looks = self._look([*self._looks, name])
            checks = [check for view in self._views.values() for check in view.checks()]
            self.store.commit(checks, self._conditions())
            self._looks = looks
        for view in self._views.values():
            view.was_checked()

    def _look(self, names: list[str]) -> dict[str, Look | None]:
        return {name: look_at(self.store, name) for name in names}

    def _is_unchanged(self) -> bool:
        """Whether shared memory tells that what was read is as it was, and nothing is under way."""
        return all(
            look is not None and look.is_unchanged() and self.store.is_idle(name, look.seen)
            for name, look in self._looks.items()
        )


def _live_transactions() -> tuple[Transaction, ...]:
    return tuple(one for one in current_transactions.get() if not one.is_over)
