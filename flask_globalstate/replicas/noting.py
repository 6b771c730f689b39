"""What readers have read of a name, and what requests were handed of it, noted to be compared later.

What the only reader of a process has read needs no note, see `flask_globalstate.replicas.cache.Values`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ..errors import ConflictError, EncodingError
from ..stores.base import ABSENT, Mark
from ..values import keys
from ..values.revision import Revision
from .base import Access
from .cache import Held
from .requests import NONE, Reader, RequestRef, known_reader_here, noting, reader_here, request_here

#: the largest encoding, in bytes, of a value that is compared at the end of a request
LARGEST_EXAMINED = 64 * 1024


class Conflicts(Protocol):
    """What to do about lost updates."""

    #: whether a write depends on what was read
    checked: bool

    def met(self, error: ConflictError) -> None:
        """Note one; return to write all the same.

        :raises ConflictError: if that is not wanted.
        """

    def met_change_in_place(self, name: str, key: Any) -> None:
        """Note a value that was changed and not given back."""


class Noting(Access):
    """The notes of a replica."""

    _held: Held
    _conflicts: Conflicts | None
    #: whether a write depends on what was read
    _takes_notes: bool

    # --- lost updates ---------------------------------------------------------------------------

    def _begin_notes(self, owner: Any) -> Mapping[Any, int]:
        """Let what stands in `Values` be flushed later; what is noted elsewhere for the one who reads."""
        noting.add(weakref.ref(self))
        reader = owner() if isinstance(owner, RequestRef) else owner
        reads = None if reader is None else reader.reads.get(self)
        return {} if reads is None else reads.numbers

    def _noted_read(self, key: Any) -> Any:
        """The value of a key that is held, noted for who reads."""
        value = self._held.read_for(reader_here(), self, key)
        self._hand_out(key, value)
        return value

    def note(self, numbers: Mapping[Any, int]) -> None:
        """Note for who reads at which number keys were last changed."""
        if self._takes_notes:
            self._held.note_for(reader_here(), self, numbers)

    def note_order(self, order: Mapping[Any, Any]) -> None:
        """Note for who reads that these keys are all there are; they are not to be changed."""
        if not self._takes_notes:
            return
        reader = reader_here()
        reads = reader.reads.get(self)
        if reads is None or reads.order is not order or reads.epoch != self._held.epoch:
            self._held.note_order_for(reader, self, order)

    def note_read(self, key: Any, at: Revision | Mark) -> None:
        self.note({key: at.number if isinstance(at, Revision) else NONE})

    def note_found(self, key: Any, is_there: bool) -> None:
        """Note for who reads whether there is such a key; that there is says nothing of its value."""
        reader = known_reader_here() if self._takes_notes else None
        reads = None if reader is None else reader.reads.get(self)
        was_absent = reads is not None and reads.epoch == self._held.epoch and reads.number_of(key) == NONE
        if not is_there and not was_absent:
            self.note({key: NONE})
        elif is_there and was_absent and reader is not None:
            self._held.note_presence_for(reader, self, key)

    def noted(self, items: Iterable[Any], reader: Reader | None = None) -> dict[Any, Revision | Mark]:
        """At which revision a reader has read keys, of those that it has read.

        :param reader: who writes in this context, if none is given.
        """
        if not self._takes_notes:
            return {}
        reader = reader or self._writer(items)
        if reader is None:
            return {}
        epoch, found = self._held.noted_for(reader, self, items)
        if epoch is None:
            return {}
        return {key: Revision(epoch, n) if n != NONE else ABSENT for key, n in found.items()}

    def _writer(self, items: Iterable[Any]) -> Reader | None:
        """Who writes, if it may have read any of these keys: a hit is not noted."""
        reader = known_reader_here()
        if reader is None and any(key in self._held.noted for key in items):
            return reader_here()
        return reader

    def met(self, error: ConflictError) -> None:
        """Note a lost update; return to write all the same.

        Who reads the key again, to try once more, must not be given again what is older than that.

        :raises ConflictError: if conflicts are to raise.
        """
        assert self._conflicts is not None
        self._held.forget([error.key])
        self._conflicts.met(error)

    def noted_before_assignment(self, key: Any) -> int | None:
        reader = self._writer([key]) if self._takes_notes else None
        return None if reader is None else self._held.noted_before_assignment(reader, self, key)

    def overwrites(self, key: Any, found: Revision, error: ConflictError) -> None:
        noted = self.noted_before_assignment(key)
        if self._conflicts is not None and noted is not None and noted != found.number:
            self._conflicts.met(error)

    def _note_written(self, numbers: Mapping[Any, int], epoch: str) -> None:
        reader = known_reader_here() if self._takes_notes else None
        if reader is not None:
            self._held.note_written(reader, self, numbers, epoch)

    def _note_cleared(self, epoch: str) -> None:
        reader = known_reader_here() if self._takes_notes else None
        if reader is not None:
            self._held.note_cleared(reader, self, epoch)

    def end_notes(self) -> None:
        """Let what was read up to here outside of requests be no condition of what is written."""
        reader = known_reader_here()
        if reader is not None and not reader.notes_own_writes:
            self._held.end_notes(reader, self)

    def flush_notes(self, newcomer: Reader | None) -> None:
        """Note apart what the only reader has read, since it is the only one no more."""
        self._held.flush_notes(self, newcomer)

    # --- changes in place -----------------------------------------------------------------------

    def _hand_out(self, key: Any, value: Any) -> None:
        """Remember what a value is now, in a request at whose end that is compared."""
        held, request = self._held, request_here()
        if request is None or not request.examined or key not in held.changeable:
            return
        number = held.number_of(key, value)
        if number is None:
            return
        if request.handed_out.get((self, key), (None,))[0] == number:
            return
        encoded = self.encoded(key, value)
        if encoded is not None:
            request.handed_out[self, key] = number, encoded
            return
        held.take_for_unchangeable(key, number)

    def encoded(self, key: Any, value: Any) -> bytes | None:
        """A value encoded, to see whether it changes; None if it is too large, or can't be encoded."""
        with suppress(EncodingError):
            encoded = self.codec.encode(self.name, keys.to_string(key), value)
            return encoded if len(encoded) <= LARGEST_EXAMINED else None
        return None

    def met_change_in_place(self, key: Any) -> None:
        """Note a value that was changed and not given back."""
        if self._conflicts is not None:
            self._conflicts.met_change_in_place(self.name, key)

    def examine(self, key: Any, number: int, encoded: bytes) -> None:
        """Drop a value that isn't what it was when it was handed out, if no commit has changed it."""
        shown = self._held.shown(key, number)
        if shown is None or not shown.is_changeable:
            return
        with suppress(EncodingError):
            if self.codec.encode(self.name, keys.to_string(key), shown.value) == encoded:
                return
        self._held.drop(key, number)
        self.met_change_in_place(key)
