"""What a worker holds of a name, and the rules that keep it right; this is memory only.

Each rule has a test in ``tests/test_replica.py`` that fails without it. (Rule 1, in `Replica.sync`: the
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
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from . import forks, keys
from .revision import Revision
from .scope import Request, current_request, lone
from .stores.base import Changes

#: once for all, since it runs at the first read of each key in each request
request_of_context = current_request.get


class Values(dict[Any, Any]):
    """What was read since the last request began, if it runs alone; else nothing.

    :param held: all that is held.
    :param look_up: gives the value of a key that is held, and notes who has read it.
    :param on_first: called before the first is put in here.
    """

    __slots__ = ("_held", "_lock", "_look_up", "_on_first", "owner")

    def __init__(self, held: Held, look_up: Callable[[Any], Any], on_first: Callable[[], None]) -> None:
        super().__init__()
        self._held = held.values
        self._lock = held.lock
        self._look_up = look_up
        self._on_first = on_first
        #: the request that has read what is in here
        self.owner: Request | None = None

    def __missing__(self, key: Any) -> Any:
        if not self:
            self._on_first()
        with self._lock:
            # Whoever begins to run beside this request takes the lock after having said so.
            request = request_of_context()
            if request is lone.request:
                if not self:
                    self.owner = request
                value = self[key] = self._held[key]
                return value
        return self._look_up(key)


class Held:
    """The entries of one name that a worker has read, under the user's own keys.

    Every method that changes something is called with ``lock`` held, and none is left half done.

    :param most: how many values are kept; None for all.
    """

    #: see `forks.Holder`
    waits = False

    def __init__(self, most: int | None) -> None:
        self.lock = threading.Lock()
        self.values: dict[Any, Any] = {}
        #: of those, what is read without a note; the same dict where no notes are taken
        self.noted = self.values
        #: the numbers at which what was read and then dropped had been
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
        self._most = most
        forks.hold_while_forking(self)

    def hold(self) -> None:
        """Keep every thread out, so that a fork copies no half change."""
        self.lock.acquire()

    def release(self) -> None:
        """Let them in again, in the parent and in the child."""
        self.lock.release()

    def is_whole(self) -> bool:
        """Whether what is held is of one revision: no answer was newer than the last sync."""
        return self.floor == self.synced

    def knows(self, key: Any) -> bool:
        """Whether a key was read, be it here or absent."""
        return key in self.values or key in self.absent

    def take_changes(self, changes: Changes, resets: int) -> bool:
        """Apply an answer; false if another thread has met a new epoch since it was asked for."""
        revision = changes.revision
        if revision.epoch != self.epoch:
            if resets != self.resets:
                return False
            self._reset(revision)
            return True
        if changes.reset:
            self.empty()
        for text, number in (*changes.changed.items(), *changes.removed.items()):
            self.drop_older(known_key(text), number)
        if self.order is not None and self._moved(changes):
            self.order = None
        self.synced = max(self.synced, revision.number)
        self.floor = max(self.floor, revision.number)
        return True

    def drop_older(self, key: Any, number: int) -> None:
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

    def _reset(self, revision: Revision) -> None:
        self.epoch = revision.epoch
        self.synced = self.floor = revision.number
        self.resets += 1
        self.empty()
        self.forget_notes()

    def empty(self) -> None:
        """Forget every key."""
        if self.noted is not self.values:
            self.dropped = self.notes()
            self.noted.clear()
        self.values.clear()
        self.numbers.clear()
        self.absent.clear()
        self.changeable.clear()
        self.order = None

    def meets(self, revision: Revision, resets: int) -> bool:
        """Whether what came with ``revision`` may be kept."""
        if revision.epoch != self.epoch:
            if resets != self.resets:
                return False
            self._reset(revision)
        if revision.number < self.floor:
            return False
        self.floor = revision.number
        return True

    def keep(self, key: Any, value: Any, number: int) -> Any:
        """Keep a value, and give the worker's one copy of it."""
        if self.numbers.get(key) == number:
            return self.values[key]
        self.forget(key)
        self.numbers[key] = number
        self.values[key] = value
        if self._most is not None and len(self.values) > self._most:
            self._remove(next(iter(self.values)))
        return value

    def keep_absent(self, key: Any, number: int) -> None:
        """Remember that there is no such key."""
        self.drop_older(key, number + 1)
        self.absent[key] = number
        if self.order is not None and key in self.order:
            # Another one, since a thread may be going through this one.
            self.order = {other: None for other in self.order if other != key}

    def set_order(self, order: Iterable[Any], number: int) -> None:
        """Keep the order of the keys as of a revision, and nothing that was read of others before."""
        self.order, self.order_at = dict.fromkeys(order), number
        for key in self.values.keys() - self.order.keys():
            self._remove(key)
        for key in self.absent.keys() & self.order.keys():
            del self.absent[key]

    def forget(self, key: Any) -> None:
        """Know nothing of a key any more."""
        if key in self.values:
            self._remove(key)
        self.absent.pop(key, None)

    def notes(self) -> dict[Any, int]:
        """At which number what was read since the last request began had been changed."""
        # Another thread may be reading, and so adding to it.
        noted = {key: self.numbers[key] for key in list(self.noted) if key in self.numbers}
        return {**self.dropped, **noted}

    @property
    def notes_of(self) -> Request | None:
        """The request that the notes are of, if it was one that has read."""
        return self.noted.owner if isinstance(self.noted, Values) else None

    def forget_notes(self) -> None:
        """Begin anew to take note of what is read."""
        if isinstance(self.noted, Values):
            self.noted.clear()
            self.noted.owner = None
            self.dropped.clear()

    def _remove(self, key: Any) -> None:
        if self.noted is not self.values and key in self.noted:
            del self.noted[key]
            self.dropped[key] = self.numbers[key]
        del self.values[key], self.numbers[key]
        self.changeable.discard(key)


def known_key(text: str) -> Any:
    """The key, or for one that this package did not write, something that is never held."""
    try:
        return keys.from_string(text)
    except ValueError:
        return object()
