"""What each reader has read of a name: its read set.

A write that depends on what was read is checked against it, and so a lost update is found. A hit must cost
nothing for that: what the only reader of a process has read is what is in `SoleReads`, and that is all of
its read set. While there are several readers, every read that is the first of its key is noted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import ConflictError
from ..stores.base import ABSENT, Mark
from ..system.statements import Place, caller, only_reaches
from ..values.revision import Revision
from .cache import NONE, Cache
from .options import Conflicts
from .requests import (
    MOST_NOTES,
    Reader,
    RequestRef,
    current_reader,
    keep_last,
    known_reader_here,
    reader_here,
    sole,
    unflushed,
)

HandOut = Callable[[Any, Any], None]
#: once for all, since it runs at the first read of each key by each reader
reader_of_context = current_reader.get


class ReadSet:
    """What a reader has read of a name: the number of the commit that had last changed each key.

    :param epoch: of the numbers.
    :param most: how many keys are noted, the last that were read; None for all.
    """

    __slots__ = ("_free", "_most", "epoch", "moved", "numbers", "order")

    def __init__(self, epoch: str | None, most: int | None = None) -> None:
        self.epoch = epoch
        self.numbers: dict[Any, int] = {}
        #: of keys that were read again at another number: the number before, and where that was done
        self.moved: dict[Any, tuple[int, Place | None]] = {}
        #: all the keys there were when all of them were last read; not to be changed
        self.order: Mapping[Any, Any] | None = None
        #: of the others, those that may be written whatever was read
        self._free: set[Any] = set()
        self._most = most

    def note_order(self, order: Mapping[Any, Any]) -> None:
        """Note that these keys are all there are."""
        if NONE in self.numbers.values():
            # What is there by now was not read: which value it has was not seen.
            for key in [key for key, number in self.numbers.items() if number == NONE and key in order]:
                del self.numbers[key]
        for key in self.numbers.keys() - order.keys():
            self.numbers[key] = NONE
        self.order = order
        self._free.clear()

    def number_of(self, key: Any) -> int | None:
        """At which number a key was read, or None if it was not."""
        number = self.numbers.get(key)
        if number is None and self.order is not None and key not in self.order and key not in self._free:
            return NONE
        return number

    def take_presence(self, key: Any) -> None:
        """Let a key that was found absent count as not read, since it was found to be there."""
        if self.number_of(key) == NONE:
            self.take_own(key, None)

    def note(self, numbers: Mapping[Any, int]) -> None:
        """Note keys as just read."""
        noted = self.numbers
        for key in [key for key, number in numbers.items() if noted.get(key, number) != number]:
            self.moved[key] = noted[key], caller()
        if self._most is not None:
            for key in numbers.keys() & noted.keys():
                del noted[key]  # Put in again at the end: the first is the oldest.
        noted.update(numbers)
        if self._most is not None:
            keep_last(noted, self._most)
            keep_last(self.moved, self._most)

    def before_assignment(self, key: Any, last: int | None) -> int | None:
        """The number at which a key was read, but by the statement that is about to set a part of it.

        :param last: the number at which it was last read.
        """
        before, place = self.moved.get(key, (None, None))
        return before if only_reaches(place, caller()) else last

    def take_own(self, key: Any, number: int | None) -> None:
        """Let a key that was read count as read at this number, or as not read for None."""
        self.moved.pop(key, None)
        if self.number_of(key) is None:
            return
        if number is not None:
            self.numbers[key] = number
            return
        self.numbers.pop(key, None)
        if self.number_of(key) is not None:
            self._free.add(key)


class SoleReads(dict[Any, Any]):
    """What the only reader of this process has read; empty while there are several.

    :param cache: of the name.
    :param look_up: gives the value of a key that is cached, and notes who has read it.
    :param on_first: called before the first is put in here; gives the numbers that are noted elsewhere for
        a reader.
    """

    __slots__ = ("_cached", "_elsewhere", "_guard", "_look_up", "_numbers", "_on_first", "owner")

    def __init__(
        self, cache: Cache, look_up: Callable[[Any], Any], on_first: Callable[[Any], Mapping[Any, int]]
    ) -> None:
        super().__init__()
        self._cached, self._numbers = cache.values, cache.numbers
        self._guard = cache.guard
        self._look_up = look_up
        self._on_first = on_first
        self._elsewhere: Mapping[Any, int] = {}
        #: who has read what is in here, as `current_reader` says it
        self.owner: Any = None

    def __missing__(self, key: Any) -> Any:
        reader = reader_of_context()
        if reader is sole.reader and (reader.__class__ is RequestRef or reader.is_here()):
            with self._guard():
                # Whoever begins to read beside this one takes the lock after having said so, if there is
                # something to flush: that there will be is said before it is seen that nobody has begun.
                if not self:
                    self._elsewhere = self._on_first(reader)
                noted = self._elsewhere.get(key)
                if reader is sole.reader and (noted is None or noted == self._numbers.get(key)):
                    if not self:
                        self.owner = reader
                    value = self[key] = self._cached[key]
                    return value
        return self._look_up(key)


class ReadSets:
    """The read sets of one name, of every reader of this process.

    :param cache: of the name.
    :param conflicts: what to do about lost updates; None if nothing is to be noted.
    :param hand_out: called with a key and its value when a reader reads it for the first time.
    """

    def __init__(self, cache: Cache, conflicts: Conflicts | None, hand_out: HandOut) -> None:
        self._cache = cache
        self._conflicts = conflicts
        self._hand_out = hand_out
        #: whether a write depends on what was read
        self.is_checked = conflicts is not None and conflicts.checked
        #: what is read without a note
        self.values: dict[Any, Any] = cache.values
        #: the numbers at which what the owner of `SoleReads` has read had been when it was evicted
        self._evicted: dict[Any, int] = {}
        if conflicts is not None:
            self.values = SoleReads(cache, self._read, self._begin)
            cache.on_evict, cache.on_reset = self._on_evict, self._forget

    # --- what was read --------------------------------------------------------------------------

    def _begin(self, owner: Any) -> Mapping[Any, int]:
        """Let what is in `SoleReads` be flushed later; what is noted elsewhere for the one who reads."""
        unflushed.add(weakref.ref(self))
        reader = owner() if isinstance(owner, RequestRef) else owner
        read_set = None if reader is None else reader.read_sets.get(self)
        return {} if read_set is None else read_set.numbers

    def _read(self, key: Any) -> Any:
        """The value of a key that is cached, noted for who reads."""
        cache, reader = self._cache, reader_here()
        with cache.guard():
            value = cache.values[key]
            self._of(reader).note({key: cache.numbers[key]})
        self._hand_out(key, value)
        return value

    def note(self, numbers: Mapping[Any, int]) -> None:
        """Note for who reads at which number keys were last changed."""
        if not self.is_checked:
            return
        reader = reader_here()
        with self._cache.guard():
            read_set = self._of(reader)
            if self._is_owner(reader):
                for key in numbers.keys() & self._evicted.keys():
                    read_set.numbers[key] = self._evicted.pop(key)
            read_set.note(numbers)

    def note_order(self, order: Mapping[Any, Any]) -> None:
        """Note for who reads that these keys are all there are; they are not to be changed."""
        if not self.is_checked:
            return
        reader = reader_here()
        read_set = reader.read_sets.get(self)
        if read_set is not None and read_set.order is order and read_set.epoch == self._cache.epoch:
            return
        with self._cache.guard():
            read_set = self._of(reader)
            if self._is_owner(reader):
                for key in self._evicted.keys() - order.keys():
                    read_set.numbers[key] = self._evicted.pop(key)
            read_set.note_order(order)

    def note_found(self, key: Any, is_there: bool) -> None:
        """Note for who reads whether there is such a key; that there is says nothing of its value."""
        reader = known_reader_here() if self.is_checked else None
        read_set = None if reader is None else reader.read_sets.get(self)
        if read_set is not None and read_set.epoch != self._cache.epoch:
            read_set = None
        was_absent = read_set is not None and read_set.number_of(key) == NONE
        if not is_there and not was_absent:
            self.note({key: NONE})
        elif is_there and was_absent and reader is not None:
            with self._cache.guard():
                self._of(reader).take_presence(key)

    # --- what a write depends on ----------------------------------------------------------------

    def revisions(self, items: Iterable[Any], reader: Reader | None = None) -> dict[Any, Revision | Mark]:
        """At which revision a reader has read keys, of those that it has read.

        :param reader: who writes in this context, if none is given.
        """
        reader = (reader or self._writer(items)) if self.is_checked else None
        if reader is None:
            return {}
        with self._cache.guard():
            epoch, read_set = self._cache.epoch, self._of(reader)
            newer = self._sole_numbers() if self._is_owner(reader) else {}
            numbers = {key: newer[key] if key in newer else read_set.number_of(key) for key in items}
        if epoch is None:
            return {}
        return {
            key: Revision(epoch, number) if number != NONE else ABSENT
            for key, number in numbers.items()
            if number is not None
        }

    def number_before_assignment(self, key: Any) -> int | None:
        """The number of the last change of a key as who asks has last read it, if that is noted.

        To read it in the statement that sets a part of it doesn't count.
        """
        reader = self._writer([key]) if self.is_checked else None
        if reader is None:
            return None
        with self._cache.guard():
            read_set = self._of(reader)
            last = read_set.number_of(key)
            if self._is_owner(reader):
                last = self._sole_numbers().get(key, last)
            return read_set.before_assignment(key, last)

    def _writer(self, items: Iterable[Any]) -> Reader | None:
        """Who writes, if it may have read any of these keys: a hit is not noted."""
        reader = known_reader_here()
        if reader is None and any(key in self.values for key in items):
            return reader_here()
        return reader

    def met(self, error: ConflictError) -> None:
        """Note a lost update; return to write all the same.

        Who reads the key again, to try once more, must not be given again what is older than that.

        :raises ConflictError: if conflicts are to raise.
        """
        assert self._conflicts is not None
        self._cache.evict([error.key])
        self._conflicts.met(error)

    def overwrites(self, key: Any, found: Revision, error: ConflictError) -> None:
        """Note that a part of a value is overwritten which somebody has changed since it was seen.

        :param found: the revision at which that was met.
        :raises ConflictError: if who asks has read it, and conflicts are to raise.
        """
        noted = self.number_before_assignment(key)
        if self._conflicts is not None and noted is not None and noted != found.number:
            self._conflicts.met(error)

    # --- own writes -----------------------------------------------------------------------------

    def note_written(self, numbers: Mapping[Any, int], epoch: str) -> None:
        """Note what was written here of what was read: that is no conflict for who has written it."""
        reader = known_reader_here() if self.is_checked else None
        if reader is None:
            return
        with self._cache.guard():
            read_set = self._of(reader, epoch)
            is_owner = self._is_owner(reader)
            for key, number in numbers.items():
                if is_owner and self._evicted.pop(key, None) is not None:
                    read_set.numbers.setdefault(key, number)
                read_set.take_own(key, number if reader.notes_own_writes else None)

    def note_cleared(self, epoch: str) -> None:
        """The same for who has removed all."""
        reader = known_reader_here() if self.is_checked else None
        if reader is None:
            return
        with self._cache.guard():
            read_set = self._of(reader, epoch)
            if self._is_owner(reader):
                read_set.numbers.update(self._sole_numbers())
                self._forget()
            for key in list(read_set.numbers):
                read_set.take_own(key, NONE if reader.notes_own_writes else None)

    def end(self) -> None:
        """Let what was read up to here outside of requests be no condition of what is written."""
        reader = known_reader_here()
        if reader is not None and not reader.notes_own_writes:
            with self._cache.guard():
                reader.read_sets.pop(self, None)
                if self._is_owner(reader):
                    self._forget()

    def flush(self, newcomer: Reader | None) -> None:
        """Give what is in `SoleReads` to the one who has read it, and to one who may have.

        A newcomer hasn't read what was evicted meanwhile, unless it began to read before that.
        """
        with self._cache.guard():
            owner = self._owner()
            if owner is not None and not owner.over and owner is not newcomer:
                self._of(owner).note(self._sole_numbers())
            if newcomer is not None and isinstance(self.values, SoleReads):
                self._of(newcomer).note({key: self._cache.numbers[key] for key in self.values})
            self._forget()

    # Called with the lock held.

    def _of(self, reader: Reader, epoch: str | None = None) -> ReadSet:
        """What a reader has read in an epoch, or in the present one; what was of others is forgotten."""
        epoch = epoch or self._cache.epoch
        read_set: ReadSet | None = reader.read_sets.get(self)
        if read_set is None or read_set.epoch != epoch:
            read_set = reader.read_sets[self] = ReadSet(epoch, reader.most)
        return read_set

    def _owner(self) -> Reader | None:
        owner = self.values.owner if isinstance(self.values, SoleReads) else None
        return owner() if isinstance(owner, RequestRef) else owner

    def _is_owner(self, reader: Reader) -> bool:
        return self._owner() is reader

    def _sole_numbers(self) -> dict[Any, int]:
        """At which number what the owner has read had been changed."""
        numbers = self._cache.numbers
        # Another thread may be reading, and so adding to it.
        return {**self._evicted, **{key: numbers[key] for key in list(self.values) if key in numbers}}

    def _forget(self) -> None:
        if isinstance(self.values, SoleReads):
            self.values.clear()
            self.values.owner = None
            self._evicted.clear()

    def _on_evict(self, key: Any, number: int) -> None:
        if isinstance(self.values, SoleReads) and key in self.values:
            self._evicted.pop(key, None)
            self._evicted[key] = number
            if len(self._evicted) > MOST_NOTES and not isinstance(self.values.owner, RequestRef):
                keep_last(self._evicted, MOST_NOTES)
            self.values.pop(key, None)
