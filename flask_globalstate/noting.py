"""What requests have read of a name, and what they were handed of it, noted to be compared later.

What a request that runs alone has read needs no note, see `flask_globalstate.held.Values`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from . import keys
from .access import Access
from .errors import ConflictError, EncodingError
from .held import Held
from .revision import Revision
from .scope import NONE, request_here, running
from .stores.base import ABSENT, Mark

#: the replicas of this process in which it is noted what was read since the last request began
noting: set[Any] = set()
#: the largest encoding, in bytes, of a value that is compared at the end of a request
LARGEST_EXAMINED = 64 * 1024


def begin_notes() -> None:
    """Let what a request reads that begins now be noted, whichever state it asks."""
    for replica in tuple(noting):
        noting.discard(replica)
        replica.begin_request()


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

    # --- lost updates ---------------------------------------------------------------------------

    def _noted_read(self, key: Any) -> Any:
        """The value of a key that is held, noted for the request of this context."""
        held, request = self._held, request_here()
        with held.lock:
            value = held.values[key]
            if request is not None:
                request.reads_of(self, held.epoch).numbers[key] = held.numbers[key]
        self._hand_out(key, value)
        return value

    def _note(self, numbers: dict[Any, int]) -> None:
        """Note for the request of this context at which revision it has read keys."""
        request = request_here()
        if request is not None and self._conflicts is not None:
            with self._held.lock:
                request.reads_of(self, self._held.epoch).numbers.update(numbers)
                for key in numbers.keys() & self._held.dropped.keys():
                    del self._held.dropped[key]

    def begin_request(self) -> None:
        """Let what the next one reads be noted; what one that ran alone has read is noted apart."""
        held = self._held
        with held.lock:
            owner = held.notes_of
            if owner is not None and not owner.over:
                owner.reads_of(self, held.epoch).numbers.update(held.notes())
            held.forget_notes()

    def overwrites(self, key: Any, found: Revision, error: ConflictError) -> None:
        noted = self._read_in_this_request([key]).get(key, found)
        if self._conflicts is not None and noted != found:
            self._conflicts.met(error)

    def _read_in_this_request(self, items: Iterable[Any]) -> dict[Any, Revision | Mark]:
        request = request_here()
        if self._conflicts is None or not self._conflicts.checked or request is None:
            return {}
        held = self._held
        with held.lock:
            epoch = held.epoch
            numbers = request.reads_of(self, epoch).numbers
            if held.notes_of is request:
                numbers = {**numbers, **held.notes()}
            found = {key: numbers[key] for key in items if key in numbers}
        if epoch is None:
            return {}
        return {key: Revision(epoch, n) if n != NONE else ABSENT for key, n in found.items()}

    def _all_reads(self, revision: Revision) -> list[dict[Any, int]]:
        """What the running requests have noted, of the epoch of a revision."""
        found = [request.reads.get(self) for request in tuple(running)]
        return [reads.numbers for reads in found if reads is not None and reads.epoch == revision.epoch]

    # --- changes in place -----------------------------------------------------------------------

    def _hand_out(self, key: Any, value: Any) -> None:
        """Remember what a value is now, in a request at whose end that is compared."""
        held, request = self._held, request_here()
        if request is None or not request.examined or key not in held.changeable:
            return
        with held.lock:
            if held.values.get(key) is not value:
                return
            number = held.numbers[key]
        if request.handed_out.get((self, key), (None,))[0] == number:
            return
        encoded = self.encoded(key, value)
        if encoded is not None:
            request.handed_out[self, key] = number, encoded
            return
        with held.lock:
            if held.numbers.get(key) == number:
                held.changeable.discard(key)

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
        held = self._held
        with held.lock:
            if held.numbers.get(key) != number or key not in held.changeable:
                return
            value = held.values[key]
        with suppress(EncodingError):
            if self.codec.encode(self.name, keys.to_string(key), value) == encoded:
                return
        with held.lock:
            if held.numbers.get(key) == number:
                held.forget(key)
        self.met_change_in_place(key)
