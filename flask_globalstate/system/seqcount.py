"""A few counters in shared memory that tell a reader that nothing was written since it last looked.

After Linux's seqcounts (``Documentation/locking/seqlock.rst``), with one pair of counters for each
writer, since Python has no atomic addition between processes. `seqcount_file` says how they lie.

A commit adds one to ``begun`` in the rows of all its names, does its I/O, then brings ``done`` up to that. A
row in which each ``begun`` equals its ``done`` is idle. A reader that remembers an idle row and finds
it unchanged knows that nothing was written since and that nothing is under way.

A slot belongs to the process that holds the ``flock`` on its lock file. Its counts go on from owner to
owner: starting again at 0 would look unchanged. A process that finds no free slot waits for one.

Nobody holds a lock while he makes rows wider, since he could be stopped there: each byte of a width is set
on its own, and never taken back.

A process that died in a commit leaves ``begun`` ahead. Whoever can take its slot's lock repairs it, after
fencing the dead process: its commit can't happen any more. So does a process with a commit of its own that
was left without a word, as by the exception of a signal handler: ``done`` is not counted up, but set to what
``begun`` is without the commits that are under way, so that one repairs what another has left.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import StoreUnavailableError
from .holding import Hold
from .locks import Guard
from .seqcount_file import (
    BUCKETS,
    FILE,
    HEADER_WORDS,
    LOCKS,
    ROW_WORDS,
    SIZE,
    SLOTS,
    UNUSED,
    WIDTHS,
    WORD,
    SlotLock,
    check_counts,
    content_of,
    id_in,
    slots_of,
)

#: seconds between two looks for a free slot
POLL = 0.05

#: called with the number of a slot whose owner is dead; returns when its last commit can't happen any more
Fence = Callable[[int], None]


class Commit(Hold[None]):
    """``with seqcount.commit(...):``: a commit is under way in the block, and done after it.

    :param buckets: of its names.
    :param fence: for a slot that is claimed before the first.
    :param in_doubt: what may still happen after the block: it is put in and taken out in there. As long as
        there is something, the commit is not done; `Seqcount.resolve` looks after it.
    """

    def __init__(
        self, seqcount: Seqcount, buckets: Iterable[int], fence: Fence, in_doubt: Sequence[Any]
    ) -> None:
        self._seqcount = seqcount
        self.buckets = frozenset(buckets)
        self.fence = fence
        self.in_doubt = in_doubt

    def enter(self) -> None:
        self._seqcount.begin(self)

    def leave(self, error: BaseException | None) -> None:
        self._seqcount.leave(self)


class Seqcount:
    """The counters of one directory, mapped into this process.

    :param directory: where the file is.
    :param identity: the id that the store says its file has.
    :param timeout: seconds to wait for a slot, where every one is taken.
    :raises StoreUnavailableError: if the file is missing or another one; a second is never made here.
    """

    def __init__(self, directory: Path, identity: str, timeout: float) -> None:
        self._path = directory / FILE
        self.identity = identity
        self._timeout = timeout
        self._locks = directory / LOCKS
        with self._opened() as file:
            mapped = memoryview(mmap.mmap(file.fileno(), SIZE))
            self._words, self._bytes = mapped.cast("Q"), mapped
            check_counts(self._path, content_of(file), self._words)
        self._begin_empty()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The file, if it is the one that the store speaks of."""
        try:
            with open(self._path, "r+b") as file:
                if id_in(file) != self.identity:
                    raise _other_file(self._path)
                yield file
        except FileNotFoundError as error:
            raise _other_file(self._path) from error

    def _begin_empty(self) -> None:
        """Begin with no slot and no commits, as each process does."""
        self._guard = Guard("the seqcount")
        self._slot: SlotLock | None = None
        #: those that have begun and are not known to be done
        self._commits: set[Commit] = set()
        self._is_closing = False

    # --- reading --------------------------------------------------------------------------------

    def row(self, bucket: int) -> memoryview:
        """The words that a reader of this bucket compares."""
        first = self._first_word(bucket)
        return self._words[first : first + 1 + 2 * slots_of(self._words[first])]

    @staticmethod
    def is_idle(row: memoryview) -> bool:
        """Return whether no commit was under way when ``row`` was copied, and it is as wide as it says."""
        width, *counts = row.tolist()
        return len(counts) == 2 * slots_of(width) and counts[::2] == counts[1::2]

    def unfinished(self, bucket: int) -> list[int]:
        """The slots of other processes that have begun something and not done it."""
        counts = self.row(bucket).tolist()[1:]
        pairs = enumerate(zip(counts[::2], counts[1::2], strict=True))
        return [slot for slot, (begun, done) in pairs if begun != done and slot != self.slot]

    # --- writing --------------------------------------------------------------------------------

    def commit(self, buckets: Iterable[int], fence: Fence, in_doubt: Sequence[Any] = ()) -> Commit:
        """Give what to hold in a ``with`` statement while a commit is made; parameters as of `Commit`."""
        return Commit(self, buckets, fence, in_doubt)

    def begin(self, commit: Commit) -> None:
        """Say that a commit begins.

        :raises StoreUnavailableError: if no slot can be claimed.
        """
        while True:
            # Nothing is made while the lock is held: the garbage collector would come, with finalizers that
            # may use the store.
            buckets = iter(commit.buckets)
            with self._guard():
                if self._slot is not None:
                    # First, so that what is counted by an attempt that is interrupted is resolved.
                    self._commits.add(commit)
                    for bucket in buckets:
                        self._words[self._begun(bucket, self._slot.number)] += 1
                    self._is_closing = False
                    return
            self.claim(commit.fence)

    def leave(self, commit: Commit) -> None:
        """Say that its block is left, and so that it is done, unless something is in doubt."""
        if commit not in self._commits:
            return  # It could not begin, or was brought to an end before.
        buckets = iter(commit.buckets)
        with self._guard():
            if not commit.in_doubt:
                self._end(commit, buckets)
            if self._is_closing:
                self._give_back(leaving=commit)

    def resolve(self, resolve: Callable[[Commit], None]) -> None:
        """Bring to an end the commits of this process that were left without one.

        :param resolve: called with a commit; returns when it can't happen any more. Two threads may both do
            that with one.
        """
        for commit in tuple(self._commits):
            if commit.is_left():
                resolve(commit)
                buckets = iter(commit.buckets)
                with self._guard():
                    self._end(commit, buckets)

    def _end(self, commit: Commit, buckets: Iterator[int]) -> None:
        if self._slot is None or commit not in self._commits:
            return  # In a child that was forked meanwhile, or another thread came first.
        is_alone = len(self._commits) == 1
        for bucket in buckets:
            begun = self._begun(bucket, self._slot.number)
            others = 0 if is_alone else self._others(commit, bucket)
            # Not back: one of the others may have been interrupted before it was counted.
            self._words[begun + 1] = max(self._words[begun + 1], self._words[begun] - others)
        self._commits.discard(commit)

    def _others(self, commit: Commit, bucket: int) -> int:
        return sum(bucket in other.buckets for other in self._commits if other is not commit)

    @property
    def slot(self) -> int | None:
        """The slot of this process, once it has claimed one."""
        slot = self._slot
        return None if slot is None else slot.number

    # --- slots ----------------------------------------------------------------------------------

    def claim(self, fence: Fence) -> None:
        """Claim a slot, and repair it. Not under our lock: to fence a dead owner asks the store.

        :raises StoreUnavailableError: if all are taken, or none can be.
        """
        deadline = time.monotonic() + self._timeout
        while not any(self._claim(number, fence) for number in range(SLOTS)):
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"{SLOTS} processes write under {self._path.parent}, which is the most, and none has "
                    f"ended for {self._timeout:g} seconds; let fewer write there"
                )
            time.sleep(POLL)

    def _claim(self, number: int, fence: Fence) -> bool:
        """Claim a slot if it is free; return whether we have one now."""
        lock = SlotLock(self, self._locks, number)
        with lock as is_free:
            if is_free:
                self._repair(number, fence)
                self._widen(number)
                with self._guard():
                    if self._slot is None:  # Else another thread came first.
                        self._slot = lock
        return self._slot is not None

    def owns(self, lock: SlotLock) -> bool:
        """Return whether it is the lock of the slot that this process counts in."""
        return self._slot is lock

    def repair(self, slot: int, fence: Fence) -> bool:
        """Repair the counts of a slot if its owner is dead; return whether it was."""
        with SlotLock(self, self._locks, slot) as is_free:
            if is_free:
                self._repair(slot, fence)
        return is_free

    def _repair(self, slot: int, fence: Fence) -> None:
        ahead = []
        for bucket in range(BUCKETS):
            begun = self._begun(bucket, slot)
            if self._words[begun] != self._words[begun + 1]:
                ahead.append(begun)
        if ahead:
            fence(slot)
        for begun in ahead:
            self._words[begun + 1] = self._words[begun]

    def _widen(self, slot: int) -> None:
        """Let every reader's row reach this slot, before anything is counted in it."""
        step = next(step for step, width in enumerate(WIDTHS) if width > slot)
        narrow = [
            first
            for first in map(self._first_word, range(BUCKETS))
            if slots_of(self._words[first]) < WIDTHS[step]
        ]
        if not narrow:
            return
        try:
            with self._opened() as file:
                for first in narrow:
                    # A process that writes to memory for which the disk has no place is ended.
                    os.posix_fallocate(file.fileno(), WORD * first, WORD * (1 + 2 * WIDTHS[step]))
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._path} can't grow ({error.strerror}); check the free space"
            ) from error
        place = step - 1 if sys.byteorder == "little" else WORD - step
        for first in narrow:
            self._bytes[WORD * first + place] = 1

    @staticmethod
    def _first_word(bucket: int) -> int:
        return HEADER_WORDS + bucket * ROW_WORDS

    @staticmethod
    def _begun(bucket: int, slot: int) -> int:
        """The place of ``begun``; that of ``done`` is the next."""
        return HEADER_WORDS + bucket * ROW_WORDS + 1 + 2 * slot

    # --- life -----------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Leave the parent's slot to the parent."""
        self._begin_empty()

    def close(self) -> None:
        """Give the slot back, as soon as nothing is under way: what ends later must end what it began.

        What is in doubt is left to whoever repairs it.
        """
        with self._guard():
            self._is_closing = True
            self._give_back()

    def _give_back(self, leaving: Commit | None = None) -> None:
        if all(commit is leaving or commit.is_left() for commit in self._commits):
            # Forgotten first: nobody may count in a slot that is free.
            slot, self._slot = self._slot, None
            self._commits = set()
            if slot is not None:
                slot.close()


def open_seqcount(directory: Path, identity: str, timeout: float) -> Seqcount | None:
    """The counters of a directory, or None where the store says that nothing is counted.

    :raises StoreUnavailableError: as `Seqcount`.
    """
    return None if identity == UNUSED else Seqcount(directory, identity, timeout)


def _other_file(path: Path) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{path} is missing or not the one that the store was started with; stop every process that uses "
        "this directory, and start them again"
    )
