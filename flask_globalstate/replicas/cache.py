"""What a worker holds of a name, and the rules that keep it right; this is memory only.

Each rule has a test in ``tests/replicas/`` that fails without it. (Rule 1, in `Replica.sync`: the
row of the seqcount is read before `Store.changes` is asked; it is remembered after the drops are done,
and only if it was idle.)

2. ``synced`` is moved only by an answer of `Store.changes` or by a reset; ``floor`` is the highest
   revision seen in any answer for this name, own commits included. Neither goes back in an epoch.
   If a fetch or an own commit moved ``synced``, the changes in between would never be dropped.
3. A value is kept only if the answer that brought it is not below ``floor``. A slow fetch of one
   thread must not put back what a sync of another has dropped, nor hide a write of one's own.
4. A key that is already held at the revision that `Store.changes` names is not dropped.
5. Another epoch, or a log that doesn't reach back far enough, empties the replica; but an answer
   asked for before the last reset doesn't reset again: it may be of an epoch that is gone.
6. Whatever is shown, kept or not, evicts what is older of the keys that it speaks of: reads never go
   back. What looks at the whole name is asked for anew whenever any answer was newer than the last sync.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from ..stores.base import Changes
from ..system import forks
from ..system.locks import Guard
from ..values import keys
from ..values.revision import Revision
from .requests import MOST_NOTES, NONE, Reader, RequestRef, current_reader, keep_last, sole

P = ParamSpec("P")
R = TypeVar("R")

#: how many absent keys are remembered of a name, and how long their key strings may be
MOST_ABSENT, LONGEST_ABSENT = 1000, 200
#: once for all, since it runs at the first read of each key by each reader
reader_of_context = current_reader.get


class Values(dict[Any, Any]):
    """What the only reader of this process has read; empty while there are several.

    :param held: all that is held.
    :param look_up: gives the value of a key that is held, and notes who has read it.
    :param on_first: called before the first is put in here; gives the numbers that are noted elsewhere for
        a reader.
    """

    __slots__ = ("_elsewhere", "_guard", "_held", "_look_up", "_numbers", "_on_first", "owner")

    def __init__(
        self, held: Held, look_up: Callable[[Any], Any], on_first: Callable[[Any], Mapping[Any, int]]
    ) -> None:
        super().__init__()
        self._held, self._numbers = held.values, held.numbers
        self._guard = held.guard
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
                    value = self[key] = self._held[key]
                    return value
        return self._look_up(key)


class Shown(NamedTuple):
    """A value that an answer has brought.

    :ivar number: of the commit that had last changed it.
    :ivar is_changeable: whether it can be changed in place without our knowing.
    """

    value: Any
    number: int
    is_changeable: bool


def alone(method: Callable[Concatenate[Held, P], R]) -> Callable[Concatenate[Held, P], R]:
    """Run a method of `Held` with its lock held, and let what it drops go afterwards.

    Dropping a value may run a finalizer of the user, which may come back here.
    """

    @functools.wraps(method)
    def run_alone(self: Held, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.guard():
            answer = method(self, *args, **kwargs)
        if self.dropped_values:
            self.let_go()
        return answer

    return run_alone


class Held:
    """The entries of one name that a worker has read, under the user's own keys.

    Any thread may call any method, but those with an underscore.

    :param name: the name.
    :param most: how many values are kept; None for all.
    :param is_base: whether what is held is always the whole name at one revision. Then the order of the
        keys is held as long as that is so; whatever would bring in a part of another revision ends it.
    """

    #: see `forks.Holder`
    waits = False

    def __init__(self, name: str, most: int | None, *, is_base: bool = False) -> None:
        self.guard = Guard(f"{name!r}")
        self.values: dict[Any, Any] = {}
        #: of those, what is read without a note; the same dict where no notes are taken
        self.noted = self.values
        #: the numbers at which what the owner of the notes has read and was then dropped had been
        self.dropped: dict[Any, int] = {}
        self.numbers: dict[Any, int] = {}
        self.absent: dict[Any, int] = {}
        self.order: dict[Any, None] | None = None
        self.order_at = 0
        self.epoch: str | None = None
        self.synced = 0
        self.floor = 0
        self.resets = 0
        #: keys whose values can be changed in place without our knowing
        self.changeable: set[Any] = set()
        #: what was dropped and may run a finalizer when it goes
        self.dropped_values: list[Any] = []
        self._most = most
        self._is_base = is_base
        forks.hold_while_forking(self)

    def hold(self) -> None:
        """Keep every thread out, so that a fork copies no half change."""
        self.guard.lock.acquire()

    def release(self) -> None:
        """Let them in again, in the parent and in the child."""
        self.guard.lock.release()

    def let_go(self) -> None:
        """Run the finalizers of what was dropped; not under the lock."""
        values, self.dropped_values = self.dropped_values, []
        values.clear()

    # --- looking --------------------------------------------------------------------------------

    def is_whole(self) -> bool:
        """Whether what is held is of one revision: no answer was newer than the last sync."""
        return self.floor == self.synced

    @alone
    def synced_at(self) -> Revision | None:
        """The revision of the last sync, or None if nothing is held."""
        return None if self.epoch is None else Revision(self.epoch, self.synced)

    @alone
    def whole_order(self) -> dict[Any, None] | None:
        """The keys in order, if they are held and nothing newer was seen."""
        return self.order if self.is_whole() else None

    @alone
    def whole_items(self) -> tuple[dict[Any, Any], dict[Any, int], list[Any]] | None:
        """Values and numbers of what is held, in order and of one revision, and the keys that lack."""
        if self.order is None or not (self._is_base or self.is_whole()):
            return None
        lacking = [key for key in self.order if key not in self.values]
        return {key: self.values[key] for key in self.order if key in self.values}, {**self.numbers}, lacking

    @alone
    def shown(self, key: Any, number: int) -> Shown | None:
        """What is held of a key, if it is of that commit."""
        if self.numbers.get(key) != number or key not in self.values:
            return None
        return Shown(self.values[key], number, key in self.changeable)

    @alone
    def number_of(self, key: Any, value: Any) -> int | None:
        """Of which commit a value is, if it is what is held of a key."""
        return self.numbers.get(key) if self.values.get(key) is value else None

    # --- answers of the store -------------------------------------------------------------------

    @alone
    def take_changes(self, changes: Changes, resets: int) -> list[str] | None:
        """Apply an answer; the key strings of what came along and somebody here has read.

        None if another thread has met a new epoch since it was asked for.
        """
        wanted = [text for text in changes.entries if self._knows(known_key(text))]
        revision = changes.revision
        if revision.epoch != self.epoch:
            if resets != self.resets:
                return None
            self._reset(revision)
            return wanted
        if changes.reset:
            self._empty()
        for text, number in (*changes.changed.items(), *changes.removed.items()):
            self._drop_older(known_key(text), number)
        if self.order is not None and self._moved(changes):
            self.order = None
        self.floor = max(self.floor, revision.number)
        self.synced = max(self.synced, revision.number)
        return wanted

    @alone
    def meet(self, revision: Revision, resets: int) -> int | None:
        """Take note of an answer; how often this was emptied up to its epoch, or None if that is gone."""
        self._meets(revision, resets)
        return self.resets if revision.epoch == self.epoch else None

    @alone
    def take(self, found: Mapping[Any, Shown], revision: Revision, resets: int) -> dict[Any, Any]:
        """Keep values that an answer has brought, if nothing newer is known; what to show for each."""
        return self._take(found, revision, resets)

    @alone
    def take_all(
        self, found: Mapping[Any, Shown], order: Iterable[Any], revision: Revision, resets: int
    ) -> dict[Any, Any]:
        """The same for an answer that holds all there is.

        :param order: of all keys, also those whose values can't be decoded.
        """
        values = self._take(found, revision, resets)
        self._see_order(order, revision)
        return values

    @alone
    def take_base(
        self,
        found: Mapping[Any, Shown],
        removed: Iterable[Any],
        order: Iterable[Any],
        revisions: tuple[Revision, Revision],
        resets: int,
    ) -> bool:
        """Move the base to a newer revision in one step; false if it isn't at the one that this starts at.

        :param revisions: where it starts, and where it leads to.
        """
        start, revision = revisions
        if self.order is None or resets != self.resets or start != (self.epoch, self.order_at):
            return False
        self.order = None
        for key in removed:
            self._forget(key)
        for key, shown in found.items():
            self._keep(key, shown)
        self.floor = max(self.floor, revision.number)
        self.synced = max(self.synced, revision.number)
        self.order_at, self.order = revision.number, dict.fromkeys(order)
        return True

    @alone
    def base(self) -> tuple[Revision, dict[Any, None]] | None:
        """The revision of all that is held, and the keys in order; None if it is not of one revision."""
        if self.order is None or self.epoch is None:
            return None
        return Revision(self.epoch, self.order_at), self.order

    @alone
    def take_order(self, order: Iterable[Any], revision: Revision, resets: int) -> None:
        """Keep the order of the keys, if nothing newer is known."""
        self._meets(revision, resets)
        self._see_order(order, revision)

    @alone
    def see(self, numbers: Mapping[Any, int], revision: Revision, resets: int) -> None:
        """Take note of what somebody was shown: keys with the number of their last change, or `NONE`."""
        may_be_kept = self._meets(revision, resets)
        if revision.epoch != self.epoch:
            return
        for key, number in numbers.items():
            # What can't be decoded is in the order and has no number.
            is_gone = number == NONE and self.order is not None and key in self.order
            if is_gone or number != self.numbers.get(key, NONE):
                self._end_base(revision)
            self._drop_older(key, number or revision.number + 1)
            if may_be_kept and number == NONE:
                self._keep_absent(key, revision.number)

    @alone
    def take_own(self, key: Any, shown: Shown, epoch: str) -> None:
        """Keep what a commit of this worker has written, if nothing newer is known."""
        if epoch == self.epoch and self._meets(Revision(epoch, shown.number), self.resets):
            if self.values.get(key, shown.value) is not shown.value:
                self._forget(key)
            self._keep(key, shown)

    @alone
    def take_written(self, written: Iterable[Any], revision: Revision, resets: int) -> None:
        """Forget what a commit of this worker has replaced, and nothing older may be kept any more."""
        self._meets(revision, resets)
        for key in written:
            self._forget(key)

    @alone
    def forget(self, written: Iterable[Any]) -> None:
        """Know nothing of keys any more."""
        for key in written:
            self._forget(key)
        if self._is_base:
            self.order = None

    @alone
    def drop(self, key: Any, number: int) -> None:
        """Forget a key, if what is held of it is of that commit."""
        if self.numbers.get(key) == number:
            self._forget(key)

    @alone
    def take_for_unchangeable(self, key: Any, number: int) -> None:
        """Let a value count as one that nobody changes in place, if it is of that commit."""
        if self.numbers.get(key) == number:
            self.changeable.discard(key)

    @alone
    def empty(self) -> None:
        """Forget every key."""
        self._empty()

    @alone
    def take_clear(self, revision: Revision, resets: int) -> None:
        """Forget every key, since this worker has removed all."""
        self._meets(revision, resets)
        self._empty()

    # --- notes ----------------------------------------------------------------------------------

    @alone
    def read_for(self, reader: Reader, replica: Any, key: Any) -> Any:
        """The value of a key that is held, noted for a reader."""
        value = self.values[key]
        reader.reads_of(replica, self.epoch).note({key: self.numbers[key]})
        return value

    @alone
    def note_for(self, reader: Reader, replica: Any, numbers: Mapping[Any, int]) -> None:
        """Note for a reader at which number it has read keys."""
        reads = reader.reads_of(replica, self.epoch)
        if self._is_owner(reader):
            dropped = {key: self.dropped.pop(key) for key in numbers.keys() & self.dropped.keys()}
            reads.numbers.update(dropped)
        reads.note(numbers)

    @alone
    def noted_for(
        self, reader: Reader, replica: Any, items: Iterable[Any]
    ) -> tuple[str | None, dict[Any, int]]:
        """The epoch, and at which number in it a reader has read keys, of those that it has read."""
        reads = reader.reads_of(replica, self.epoch)
        newer = self._notes() if self._is_owner(reader) else {}
        found = {key: newer[key] if key in newer else reads.number_of(key) for key in items}
        return self.epoch, {key: number for key, number in found.items() if number is not None}

    @alone
    def note_order_for(self, reader: Reader, replica: Any, order: Mapping[Any, Any]) -> None:
        """Note for a reader that it has seen these keys to be all there are."""
        reads = reader.reads_of(replica, self.epoch)
        if self._is_owner(reader):
            for key in self.dropped.keys() - order.keys():
                reads.numbers[key] = self.dropped.pop(key)
        reads.note_order(order)

    @alone
    def note_presence_for(self, reader: Reader, replica: Any, key: Any) -> None:
        """Note for a reader that a key is there which it had found absent."""
        reader.reads_of(replica, self.epoch).take_presence(key)

    @alone
    def noted_before_assignment(self, reader: Reader, replica: Any, key: Any) -> int | None:
        """The same for a key of which a part is about to be set: to reach it is not to read it."""
        reads = reader.reads_of(replica, self.epoch)
        last = reads.number_of(key)
        if self._is_owner(reader):
            last = self._notes().get(key, last)
        return reads.before_assignment(key, last)

    @alone
    def note_written(self, reader: Reader, replica: Any, numbers: Mapping[Any, int], epoch: str) -> None:
        """Note what a reader has written of what it has read: that is no conflict for itself."""
        reads = reader.reads_of(replica, epoch)
        is_owner = self._is_owner(reader)
        for key, number in numbers.items():
            if is_owner and self.dropped.pop(key, None) is not None:
                reads.numbers.setdefault(key, number)
            reads.take_own(key, number if reader.notes_own_writes else None)

    @alone
    def note_cleared(self, reader: Reader, replica: Any, epoch: str) -> None:
        """The same for a reader that has removed all."""
        reads = reader.reads_of(replica, epoch)
        if self._is_owner(reader):
            reads.numbers.update(self._notes())
            self._forget_notes()
        for key in list(reads.numbers):
            reads.take_own(key, NONE if reader.notes_own_writes else None)

    @alone
    def end_notes(self, reader: Reader, replica: Any) -> None:
        """Let what a reader has read up to here be no condition of what it writes."""
        reader.reads.pop(replica, None)
        if self._is_owner(reader):
            self._forget_notes()

    @alone
    def flush_notes(self, replica: Any, newcomer: Reader | None) -> None:
        """Give what stands in `Values` to the one who has read it, and to one who may have.

        A newcomer hasn't read what was dropped meanwhile, unless it began to read before that.
        """
        owner = self._owner()
        if owner is not None and not owner.over and owner is not newcomer:
            owner.reads_of(replica, self.epoch).note(self._notes())
        if newcomer is not None and self.noted is not self.values:
            newcomer.reads_of(replica, self.epoch).note({k: self.numbers[k] for k in self.noted})
        self._forget_notes()

    def _owner(self) -> Reader | None:
        owner = self.noted.owner if isinstance(self.noted, Values) else None
        return owner() if isinstance(owner, RequestRef) else owner

    def _is_owner(self, reader: Reader) -> bool:
        return self._owner() is reader

    def _notes(self) -> dict[Any, int]:
        """At which number what the owner has read had been changed."""
        # Another thread may be reading, and so adding to it.
        noted = {key: self.numbers[key] for key in list(self.noted) if key in self.numbers}
        return {**self.dropped, **noted}

    def _forget_notes(self) -> None:
        if isinstance(self.noted, Values):
            self.noted.clear()
            self.noted.owner = None
            self.dropped.clear()

    # --- called with the lock held ------------------------------------------------------------------
    #
    # An exception of a signal handler may cut any of these short. Each does its steps in such an order
    # that what is held then is right, and at worst less than it could be.

    def _knows(self, key: Any) -> bool:
        """Whether a key was read, be it here or absent."""
        return key in self.values or key in self.absent

    def _meets(self, revision: Revision, resets: int) -> bool:
        if revision.epoch != self.epoch:
            if resets != self.resets:
                return False
            self._reset(revision)
        if revision.number < self.floor:
            return False
        self.floor = revision.number
        return True

    def _reset(self, revision: Revision) -> None:
        self._empty()
        self._forget_notes()
        self.epoch = None
        self.synced = self.floor = revision.number
        self.resets += 1
        self.epoch = revision.epoch

    def _take(self, found: Mapping[Any, Shown], revision: Revision, resets: int) -> dict[Any, Any]:
        if self._meets(revision, resets):
            if found:
                self._end_base(revision)  # It is set again if this was all.
            return {key: self._keep(key, shown) for key, shown in found.items()}
        if revision.epoch == self.epoch:
            for key, shown in found.items():
                self._drop_older(key, shown.number)
        return {key: shown.value for key, shown in found.items()}

    def _end_base(self, revision: Revision) -> None:
        """Hold no base any more, since a part of a newer revision is known."""
        if self._is_base and revision.number > self.order_at:
            self.order = None

    def _keep(self, key: Any, shown: Shown) -> Any:
        """Keep a value, and give the worker's one copy of it."""
        if self.numbers.get(key) != shown.number or key not in self.values:
            self._forget(key)
            self.numbers[key] = shown.number
            if shown.is_changeable:
                self.changeable.add(key)
            self.values[key] = shown.value
            if self._most is not None and len(self.values) > self._most:
                self._remove(next(iter(self.values)))
        elif shown.is_changeable:
            self.changeable.add(key)
        return self.values.get(key, shown.value)

    def _keep_absent(self, key: Any, number: int) -> None:
        """Remember that there is no such key, unless that costs too much."""
        if len(keys.to_string(key)) <= LONGEST_ABSENT:
            if key not in self.absent and len(self.absent) >= MOST_ABSENT:
                del self.absent[next(iter(self.absent))]
            self.absent[key] = number

    def _see_order(self, order: Iterable[Any], revision: Revision) -> None:
        """Keep the order of the keys if nothing newer is known, and nothing older of other keys."""
        if revision.epoch != self.epoch:
            return
        order = dict.fromkeys(order)
        for key in self.values.keys() - order.keys():
            self._drop_older(key, revision.number + 1)
        for key in self.absent.keys() & order.keys():
            self._drop_older(key, revision.number + 1)
        if revision.number == self.floor:
            self.order_at, self.order = revision.number, order

    def _drop_older(self, key: Any, number: int) -> None:
        """Forget what is held of a key that was changed by that commit."""
        if self.numbers.get(key, number) < number:
            self._remove(key)
        if self.absent.get(key, number) < number:
            del self.absent[key]

    def _moved(self, changes: Changes) -> bool:
        """Whether a key was created or removed after the order was read."""
        assert self.order is not None
        if any(number > self.order_at for number in changes.removed.values()):
            return True
        return any(
            number > self.order_at and known_key(text) not in self.order
            for text, number in changes.changed.items()
        )

    def _empty(self) -> None:
        if self.noted is not self.values:
            self.dropped = self._notes()
            self.noted.clear()
        self.dropped_values.extend(self.values.values())
        self.values.clear()
        self.numbers.clear()
        self.absent.clear()
        self.changeable.clear()
        self.order = None

    def _forget(self, key: Any) -> None:
        """Know nothing of a key any more."""
        if key in self.values:
            self._remove(key)
        self.absent.pop(key, None)

    def _remove(self, key: Any) -> None:
        if self._is_base:
            self.order = None
        if isinstance(self.noted, Values) and key in self.noted:
            self.dropped.pop(key, None)
            self.dropped[key] = self.numbers[key]
            if len(self.dropped) > MOST_NOTES and not isinstance(self.noted.owner, RequestRef):
                keep_last(self.dropped, MOST_NOTES)
            self.noted.pop(key, None)
        # A value that is held has its number, whatever cuts this short: so it goes first.
        self.dropped_values.append(self.values.pop(key, None))
        self.numbers.pop(key, None)
        self.changeable.discard(key)


def known_key(text: str) -> Any:
    """The key, or for one that this package did not write, something that is never held."""
    try:
        return keys.from_string(text)
    except ValueError:
        return object()
