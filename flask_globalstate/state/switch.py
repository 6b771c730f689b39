"""Leading a state from one store to another, with its data, while it is in use."""

from __future__ import annotations

from typing import NamedTuple

from ..system.gate import Gate
from ..system.locks import ThreadLock
from .binding import Binding
from .config import Config
from .migration import Move
from .names import Names


class Unfinished(NamedTuple):
    """A move that has not ended: from where, to where."""

    old: Binding
    new: Binding
    move: Move


class Switch:
    """Leads the names of a state to another store.

    :param names: the names.
    :param gate: what their writes go through; it is closed while the last of them are moved.
    """

    def __init__(self, names: Names, gate: Gate) -> None:
        self._names = names
        self._gate = gate
        self._lock = ThreadLock()
        #: a move that has failed
        self._unfinished: Unfinished | None = None

    def to(self, config: Config) -> None:
        """Move to another store, with every name that it doesn't hold yet.

        Other threads go on meanwhile: they use the old store until the new one holds everything.
        """
        with self._lock():
            old = self._names.binding
            if old is None:
                binding = Binding(config)
                self._names.check(binding)
                self._names.bind(binding)
            elif old.config != config:
                self._move(self._begun(old, config))

    def to_none(self) -> None:
        """Let go of the store."""
        with self._lock():
            self._give_up()
            self._names.bind(None)

    def _begun(self, old: Binding, config: Config) -> Unfinished:
        """The move between these two, which may have been tried before."""
        begun = self._unfinished
        if begun is None or begun.old is not old or begun.new.config != config:
            self._give_up()
            new = Binding(config, old.app_secrets)
            self._names.check(new)
            begun = Unfinished(old, new, Move((old.store, old.codec), (new.store, new.codec)))
            self._unfinished = begun
        return begun

    def _move(self, begun: Unfinished) -> None:
        # What a failed attempt has copied is brought up to date like everything else.
        begun.move.begin()
        # From here on writers wait, until they are led to the new store.
        self._gate.close()
        try:
            begun.move.finish()
            begun.old.is_left = True
            self._names.bind(begun.new)
        finally:
            self._gate.open()
        self._unfinished = None

    def _give_up(self) -> None:
        if self._unfinished is not None:
            self._unfinished.new.store.close()
        self._unfinished = None
