"""The transactions of a state."""

from __future__ import annotations

import weakref

from ..errors import ConflictError
from ..replicas.transaction import Transaction
from ..stores.base import Store
from ..system.gate import Gate
from ..system.holding import Hold
from .binding import Binding
from .names import Names


class TransactionBlock(Hold[None]):
    """A transaction of a state, for a ``with`` statement; see `State.transaction`.

    :param names: the state's names.
    :param gate: what the state's writes go through.
    """

    may_be_entered_by_hand = True

    def __init__(self, names: Names, gate: Gate) -> None:
        self._names = names
        self._gate = gate
        self._running: tuple[Transaction, Binding] | None = None

    def enter(self) -> None:
        binding = self._names.bound()
        store = binding.store
        if not (store.conditional and isinstance(store, Store)):
            store.refuse("commit several keys together, so it has no transactions")
        if binding.is_in_transaction():
            return  # One inside of another joins it.
        block = weakref.ref(self)
        transaction = Transaction(store, self._gate, lambda: _is_left(block()))
        self._running = transaction, binding
        binding.begin_transaction(transaction)
        transaction.begin()

    def leave(self, error: BaseException | None) -> None:
        if self._running is None:
            return
        transaction, binding = self._running
        try:
            transaction.end()
        finally:
            binding.end_transaction(transaction)
        self._running = None
        if error is None:
            self._commit(transaction, binding)
            transaction.end_notes()  # Not where it has failed: it may be tried again with what was read.

    def _commit(self, transaction: Transaction, binding: Binding) -> None:
        with self._gate:
            if binding.is_left:
                raise ConflictError("this state", None, "the store that the transaction began on", "another")
            transaction.commit()


def _is_left(block: TransactionBlock | None) -> bool:
    return block is None or block.is_left()
