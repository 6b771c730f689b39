"""What a worker remembers of a name, and the rules that keep it right; this is memory only.

Each rule has a test in ``tests/replicas/test_replica.py`` that fails without it. (Rule 1, in `Replica.sync`:
the row of the seqcount is read before `Store.changes` is asked; it is remembered after the evictions, and
only if it was idle.)

2. ``synced`` is moved only by an answer of `Store.changes` or by a reset; ``high_water`` is the highest
   revision seen in any answer for this name, own commits included. Neither goes back in an epoch.
   If a fetch or an own commit moved ``synced``, the changes in between would never be evicted.
3. A value is put here only if the answer that brought it is not below ``high_water``. A slow fetch of one
   thread must not put back what a sync of another has evicted, nor hide a write of one's own.
4. A key that is already here at the revision that `Store.changes` names is not evicted.
5. Another epoch, or a log that doesn't reach back far enough, empties the cache; but an answer whose
   question was sent before the last reset doesn't reset again: it may be of an epoch that is gone.
6. Whatever is shown, cached or not, evicts what is older of the keys that it speaks of: reads never go
   back. What looks at the whole name is asked for anew whenever any answer was newer than the last sync.

Here are the steps. `Ticket` puts them together: what each kind of answer may do.
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

P = ParamSpec("P")
R = TypeVar("R")

#: in place of the number of a commit: the key was absent
NONE = 0
#: how many absent keys are remembered of a name, and how long their key strings may be
MOST_ABSENT, LONGEST_ABSENT = 1000, 200


class CachedValue(NamedTuple):
    """A value that an answer has brought, opened.

    :ivar number: of the commit that had last changed it.
    :ivar is_mutable: whether it can be changed in place without our knowing.
    """

    value: Any
    number: int
    is_mutable: bool


def alone(method: Callable[Concatenate[Cache, P], R]) -> Callable[Concatenate[Cache, P], R]:
    """Run a method of `Cache` with its lock held, and let what it evicts go afterwards.

    Dropping a value may run a finalizer of the user, which may come back here.
    """

    @functools.wraps(method)
    def run_alone(self: Cache, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.guard():
            answer = method(self, *args, **kwargs)
        self.let_go()
        return answer

    return run_alone


class Cache:
    """The entries of one name that a worker has read, under the user's own keys.

    Any thread may call any method; those with an underscore only with the lock held.

    :param name: the name.
    :param most: how many values are kept; None for all.
    :param is_base: whether what is here is always the whole name at one revision. Then the order of the
        keys is here as long as that is so; whatever would bring in a part of another revision ends it.
    """

    #: see `forks.Holder`
    waits = False

    def __init__(self, name: str, most: int | None, *, is_base: bool = False) -> None:
        self.guard = Guard(f"{name!r}")
        self.values: dict[Any, Any] = {}
        self.numbers: dict[Any, int] = {}
        self.absent: dict[Any, int] = {}
        self.order: dict[Any, None] | None = None
        self.order_at = 0
        self.epoch: str | None = None
        self.synced = 0
        self.high_water = 0
        #: how often this was emptied for another epoch
        self.generation = 0
        #: keys whose values can be changed in place without our knowing
        self.mutable_keys: set[Any] = set()
        #: what was evicted and may run a finalizer when it goes
        self.evicted_values: list[Any] = []
        #: called with the lock held: with key and number before a value goes, and after a reset
        self.on_evict: Callable[[Any, int], None] | None = None
        self.on_reset: Callable[[], None] | None = None
        self.is_base = is_base
        self._most = most
        forks.hold_while_forking(self)

    def hold(self) -> None:
        """Keep every thread out, so that a fork copies no half change."""
        self.guard.lock.acquire()

    def release(self) -> None:
        """Let them in again, in the parent and in the child."""
        self.guard.lock.release()

    def let_go(self) -> None:
        """Run the finalizers of what was evicted; called after each change, without the lock."""
        if self.evicted_values:
            values, self.evicted_values = self.evicted_values, []
            values.clear()

    # --- looking --------------------------------------------------------------------------------

    def is_whole(self) -> bool:
        """Whether what is here is of one revision: no answer was newer than the last sync."""
        return self.high_water == self.synced

    @alone
    def synced_at(self) -> Revision | None:
        """The revision of the last sync, or None if nothing is here."""
        return None if self.epoch is None else Revision(self.epoch, self.synced)

    @alone
    def whole_order(self) -> dict[Any, None] | None:
        """The keys in order, if they are here and nothing newer was seen."""
        return self.order if self.is_whole() else None

    @alone
    def whole_items(self) -> tuple[dict[Any, Any], dict[Any, int], list[Any]] | None:
        """Values and numbers of what is here, in order and of one revision, and the keys that lack."""
        if self.order is None or not (self.is_base or self.is_whole()):
            return None
        lacking = [key for key in self.order if key not in self.values]
        return {key: self.values[key] for key in self.order if key in self.values}, {**self.numbers}, lacking

    @alone
    def base(self) -> tuple[Revision, dict[Any, None]] | None:
        """The revision of all that is here, and the keys in order; None if it is not of one revision."""
        if self.order is None or self.epoch is None:
            return None
        return Revision(self.epoch, self.order_at), self.order

    @alone
    def cached(self, key: Any, number: int) -> CachedValue | None:
        """The cached value of a key, or None if it is not of that commit."""
        if self.numbers.get(key) != number or key not in self.values:
            return None
        return CachedValue(self.values[key], number, key in self.mutable_keys)

    @alone
    def number_of(self, key: Any, value: Any) -> int | None:
        """The number of the commit that a value is of, or None if it is not the one that is here."""
        return self.numbers.get(key) if self.values.get(key) is value else None

    # --- what needs no answer of the store ------------------------------------------------------

    @alone
    def put_own(self, key: Any, cached: CachedValue, epoch: str) -> None:
        """Cache what a commit of this worker has written, if nothing newer is known."""
        if epoch == self.epoch and self._accept(Revision(epoch, cached.number), self.generation):
            if self.values.get(key, cached.value) is not cached.value:
                self._evict(key)
            self._put(key, cached)

    @alone
    def evict(self, written: Iterable[Any]) -> None:
        """Know nothing of keys any more."""
        for key in written:
            self._evict(key)
        if self.is_base:
            self.order = None

    @alone
    def evict_if_at(self, key: Any, number: int) -> None:
        """Evict a key, if what is here of it is of that commit."""
        if self.numbers.get(key) == number:
            self._evict(key)

    @alone
    def take_for_immutable(self, key: Any, number: int) -> None:
        """Let a value count as one that nobody changes in place, if it is of that commit."""
        if self.numbers.get(key) == number:
            self.mutable_keys.discard(key)

    @alone
    def empty(self) -> None:
        """Evict every key."""
        self._empty()

    # --- called with the lock held ------------------------------------------------------------------
    #
    # An exception of a signal handler may cut any of these short. Each does its steps in such an order
    # that what is here then is right, and at worst less than it could be.

    def _knows(self, key: Any) -> bool:
        """Whether a key was read, be it here or absent."""
        return key in self.values or key in self.absent

    def _accept(self, revision: Revision, generation: int) -> bool:
        """Record an answer of the store at ``revision``.

        :param generation: of when the question was sent.
        :returns: False if a newer answer was seen, so that this one must not be cached.
        """
        if revision.epoch != self.epoch:
            if generation != self.generation:
                return False
            self._reset(revision)
        if revision.number < self.high_water:
            return False
        self.high_water = revision.number
        return True

    def _reset(self, revision: Revision) -> None:
        self._empty()
        if self.on_reset is not None:
            self.on_reset()
        self.epoch = None
        self.synced = self.high_water = revision.number
        self.generation += 1
        self.epoch = revision.epoch

    def _end_base(self, revision: Revision) -> None:
        """Have no base any more, since a part of a newer revision is known."""
        if self.is_base and revision.number > self.order_at:
            self.order = None

    def _put(self, key: Any, cached: CachedValue) -> Any:
        """Cache a value, and give the worker's one copy of it."""
        if self.numbers.get(key) != cached.number or key not in self.values:
            self._evict(key)
            self.numbers[key] = cached.number
            if cached.is_mutable:
                self.mutable_keys.add(key)
            self.values[key] = cached.value
            if self._most is not None and len(self.values) > self._most:
                self._remove(next(iter(self.values)))
        elif cached.is_mutable:
            self.mutable_keys.add(key)
        return self.values.get(key, cached.value)

    def _put_new(self, found: Mapping[Any, CachedValue], revision: Revision) -> dict[Any, Any]:
        """Cache the values of an accepted answer."""
        if found:
            self._end_base(revision)  # It is set again if this was all.
        return {key: self._put(key, cached) for key, cached in found.items()}

    def _put_absent(self, key: Any, number: int) -> None:
        """Remember that there is no such key, unless that costs too much."""
        if len(keys.to_string(key)) <= LONGEST_ABSENT:
            if key not in self.absent and len(self.absent) >= MOST_ABSENT:
                del self.absent[next(iter(self.absent))]
            self.absent[key] = number

    def _put_order(self, order: Iterable[Any], revision: Revision) -> None:
        """Cache the order of the keys if nothing newer is known, and nothing older of other keys."""
        if revision.epoch != self.epoch:
            return
        order = dict.fromkeys(order)
        for key in self.values.keys() - order.keys():
            self._evict_older(key, revision.number + 1)
        for key in self.absent.keys() & order.keys():
            self._evict_older(key, revision.number + 1)
        if revision.number == self.high_water:
            self.order_at, self.order = revision.number, order

    def _move_base(
        self,
        found: Mapping[Any, CachedValue],
        removed: Iterable[Any],
        order: Iterable[Any],
        revision: Revision,
    ) -> None:
        """Change all that lies between the base and that revision."""
        self.order = None
        for key in removed:
            self._evict(key)
        for key, cached in found.items():
            self._put(key, cached)
        self._synced_to(revision)
        self.order_at, self.order = revision.number, dict.fromkeys(order)

    def _show(self, numbers: Mapping[Any, int], revision: Revision, may_be_put: bool) -> None:
        """Evict what is older of keys than what is shown of them."""
        for key, number in numbers.items():
            # What can't be decoded is in the order and has no number.
            is_gone = number == NONE and self.order is not None and key in self.order
            if is_gone or number != self.numbers.get(key, NONE):
                self._end_base(revision)
            self._evict_older(key, number or revision.number + 1)
            if may_be_put and number == NONE:
                self._put_absent(key, revision.number)

    def _invalidate(self, changes: Changes) -> None:
        """Evict what was changed."""
        if changes.reset:
            self._empty()
        for text, number in (*changes.changed.items(), *changes.removed.items()):
            self._evict_older(known_key(text), number)
        if self.order is not None and self._is_reordered(changes):
            self.order = None
        self._synced_to(changes.revision)

    def _synced_to(self, revision: Revision) -> None:
        self.high_water = max(self.high_water, revision.number)
        self.synced = max(self.synced, revision.number)

    def _evict_older(self, key: Any, number: int) -> None:
        """Evict what is here of a key that was changed by that commit."""
        if self.numbers.get(key, number) < number:
            self._remove(key)
        if self.absent.get(key, number) < number:
            del self.absent[key]

    def _is_reordered(self, changes: Changes) -> bool:
        """Whether a key was created or removed after the order was read."""
        assert self.order is not None
        if any(number > self.order_at for number in changes.removed.values()):
            return True
        return any(
            number > self.order_at and known_key(text) not in self.order
            for text, number in changes.changed.items()
        )

    def _empty(self) -> None:
        if self.on_evict is not None:
            for key, number in self.numbers.items():
                self.on_evict(key, number)
        self.evicted_values.extend(self.values.values())
        self.values.clear()
        self.numbers.clear()
        self.absent.clear()
        self.mutable_keys.clear()
        self.order = None

    def _evict(self, key: Any) -> None:
        """Know nothing of a key any more."""
        if key in self.values:
            self._remove(key)
        self.absent.pop(key, None)

    def _remove(self, key: Any) -> None:
        if self.is_base:
            self.order = None
        if self.on_evict is not None:
            self.on_evict(key, self.numbers[key])
        # A value that is here has its number, whatever cuts this short: so it goes first.
        self.evicted_values.append(self.values.pop(key, None))
        self.numbers.pop(key, None)
        self.mutable_keys.discard(key)


def known_key(text: str) -> Any:
    """The key, or for one that this package did not write, something that is never here."""
    try:
        return keys.from_string(text)
    except ValueError:
        return object()
