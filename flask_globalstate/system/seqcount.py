"""A few counters in shared memory that tell a reader that nothing was written since it last looked.

After Linux's seqcounts (``Documentation/locking/seqlock.rst``), with one pair of counters for each
writer, since Python has no atomic addition between processes.

The file, all in native 64-bit words::

    header       magic, layout, then the id (two words)
    row          one for each bucket of names:
      width      eight bytes: the n-th is 1 if the row reaches over the n-th number of slots in `WIDTHS`
      slot 0..N  begun, done

A commit adds one to ``begun`` in the rows of all its names, does its I/O, then brings ``done`` up to that. A
row in which each ``begun`` equals its ``done`` is idle. A reader that remembers an idle row and finds
it unchanged knows that nothing was written since and that nothing is under way.

A slot belongs to the process that holds the ``flock`` on its lock file. Its counts go on from owner to
owner: starting again at 0 would look unchanged. A process that finds no free slot waits for one.

Nobody holds a lock while he makes rows wider, since he could be stopped there: each byte of a width is set
on its own, and never taken back. What no row reaches over has no place on the disk.

A process that died in a commit leaves ``begun`` ahead. Whoever can take its slot's lock mends it, after
making sure that the dead commit can't happen any more. So does a process with a commit of its own that
was left without a word, as by the exception of a signal handler: ``done`` is not counted up, but set to what
``begun`` is without the commits that are under way, so that one mends what another has left.

On a network file system hosts map copies of their own, so nothing is counted there. Whoever makes the
store decides, and the store keeps the decision as the file's id: all or none of its clients count.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import StoreUnavailableError
from .forks import FILE_MODE, close_lock_file, open_lock_file
from .holding import Hold
from .locks import Guard

MAGIC = 0x666C61736B677331
LAYOUT = 2
BUCKETS = 64
#: how many slots a row may reach over: it is compared at each read, so no further than it must
WIDTHS = (0, 1, 2, 4, 8, 16, 64, 256, 1024)
SLOTS = WIDTHS[-1]
WORD = 8
BYTE_BITS = 8
HEADER_WORDS = 4
ROW_WORDS = 1 + 2 * SLOTS
SIZE = WORD * (HEADER_WORDS + BUCKETS * ROW_WORDS)
FILE = "seqcount"
LOCKS = "slots"
#: stands for the id of a file where there is none, because nothing is counted
UNUSED = "0" * (4 * WORD)
MOUNTS = Path("/proc/self/mountinfo")
#: file systems that several hosts write to, or a host and its guests
NETWORKED = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "coda", "glusterfs", "lustre", "ncpfs"),
    *("beegfs", "fhgfs", "gfs2", "gpfs", "ocfs2", "orangefs", "panfs", "pvfs2", "wekafs"),
    *("9p", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"),
}

#: seconds between two looks for a free slot
POLL = 0.05

#: called with the number of a slot whose owner is dead; returns when its last commit can't happen any more
MakeSure = Callable[[int], None]


def make(directory: Path) -> str:
    """The id of the file, which is made if there is none that is good; nobody else may be using it.

    `UNUSED` on a network file system, where none is made.
    """
    if not is_usable(directory):
        return UNUSED
    path = directory / FILE
    with suppress(FileNotFoundError, StoreUnavailableError), open(path, "rb") as file:
        identity = _read_id(file)
        content = _content(file)
        _check_counts(path, content, memoryview(content).cast("Q"))
        return identity
    header = struct.pack("=QQ", MAGIC, LAYOUT) + secrets.token_bytes(2 * WORD)
    new = directory / (FILE + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(header)
        file.truncate(SIZE)
    new.rename(path)
    return read_id(path)


def read_id(path: Path) -> str:
    """The id of a file.

    :raises FileNotFoundError: if there is none.
    :raises StoreUnavailableError: if it is not a file of this layout.
    """
    with open(path, "rb") as file:
        return _read_id(file)


def _read_id(file: BinaryIO) -> str:
    header = file.read(WORD * HEADER_WORDS)
    size = os.fstat(file.fileno()).st_size
    if size != SIZE or header[: 2 * WORD] != struct.pack("=QQ", MAGIC, LAYOUT):
        raise StoreUnavailableError(f"{file.name} is not a seqcount file of this release")
    return header[2 * WORD :].hex()


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _check_counts(path: Path, content: bytes, words: memoryview) -> None:
    """:raises StoreUnavailableError: if there are counts where no row reaches, as after damage.

    :param words: read after the content: a row reaches over a slot before anything is counted in it.
    """
    for first in range(HEADER_WORDS, HEADER_WORDS + BUCKETS * ROW_WORDS, ROW_WORDS):
        width = words[first]
        beyond = content[WORD * (first + 1 + 2 * _slots_of(width)) : WORD * (first + ROW_WORDS)]
        if set(width.to_bytes(WORD, "little")) - {0, 1} or beyond != bytes(len(beyond)):
            raise StoreUnavailableError(
                f"{path} is damaged; stop every process that uses it, and start them again"
            )


def _slots_of(width: int) -> int:
    """How many slots a row reaches over, given its first word."""
    return WIDTHS[(width.bit_length() + BYTE_BITS - 1) // BYTE_BITS]


def is_usable(directory: Path) -> bool:
    """Whether all processes that map a file of this directory share its memory.

    Not on a network file system. A system that doesn't tell is taken to have none.
    """
    try:
        mounts = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return True
    kind = file_system(os.stat(directory).st_dev, mounts)
    # Of a file system in user space nobody knows where its files are.
    return kind not in NETWORKED and kind.partition(".")[0] != "fuse"


def file_system(device: int, mounts: str) -> str:
    """The kind of file system that a device holds, or nothing if it is not among the mounts.

    :param device: as ``os.stat`` gives it: unlike a path it can't be hidden by a later mount.
    :param mounts: lines of ``/proc/self/mountinfo``.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        place, _, source = line.partition(" - ")
        if place.split()[2:3] == [wanted]:
            return source.partition(" ")[0]
    return ""


def bucket_of(name: bytes) -> int:
    """Which row a name counts in, the same in every process."""
    return zlib.crc32(name) % BUCKETS


class Commit(Hold[None]):
    """``with seqcount.commit(...):``: a commit is under way in the block, and done after it.

    :param buckets: of its names.
    :param make_sure: for a slot that is claimed before the first.
    :param unsettled: what may still happen after the block: it is put in and taken out in there. As long as
        there is something, the commit is not done; `Seqcount.settle` looks after it.
    """

    def __init__(
        self, seqcount: Seqcount, buckets: Iterable[int], make_sure: MakeSure, unsettled: Sequence[Any]
    ) -> None:
        self._seqcount = seqcount
        self.buckets = frozenset(buckets)
        self.make_sure = make_sure
        self.unsettled = unsettled

    def enter(self) -> None:
        self._seqcount.begin(self)

    def leave(self, error: BaseException | None) -> None:
        self._seqcount.leave(self)


class _SlotLock(Hold[bool]):
    """The lock of a slot: held in the block, and if we count in that slot until it is given back."""

    def __init__(self, seqcount: Seqcount, path: Path, number: int) -> None:
        self.number = number
        self._seqcount = seqcount
        self._path = path / str(number)
        self._descriptor: int | None = None

    def enter(self) -> bool:
        """Whether it was free."""
        self._descriptor = _open_lock(self._path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self, error: BaseException | None) -> None:
        if not self._seqcount.owns(self):
            self.close()

    def close(self) -> None:
        """Let it go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            close_lock_file(descriptor)


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(0o700, exist_ok=True)
        return open_lock_file(path)
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} can't be opened ({error.strerror}); check that the directory is there, its permissions, "
            "and the free space"
        ) from error


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
            _check_counts(self._path, _content(file), self._words)
        self._begin_empty()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The file, if it is the one that the store speaks of."""
        try:
            with open(self._path, "r+b") as file:
                if _read_id(file) != self.identity:
                    raise _other_file(self._path)
                yield file
        except FileNotFoundError as error:
            raise _other_file(self._path) from error

    def _begin_empty(self) -> None:
        """What belongs to one process."""
        self._guard = Guard("the seqcount")
        self._slot: _SlotLock | None = None
        #: those that have begun and are not known to be done
        self._commits: set[Commit] = set()
        self._is_closing = False

    # --- reading --------------------------------------------------------------------------------

    def row(self, bucket: int) -> memoryview:
        """The words that a reader of this bucket compares."""
        first = self._first_word(bucket)
        return self._words[first : first + 1 + 2 * _slots_of(self._words[first])]

    @staticmethod
    def is_idle(row: memoryview) -> bool:
        """Whether no commit was under way when ``row`` was copied, and it is as wide as it says."""
        width, *counts = row.tolist()
        return len(counts) == 2 * _slots_of(width) and counts[::2] == counts[1::2]

    def unfinished(self, bucket: int) -> list[int]:
        """The slots of other processes that have begun something and not done it."""
        counts = self.row(bucket).tolist()[1:]
        pairs = enumerate(zip(counts[::2], counts[1::2], strict=True))
        return [slot for slot, (begun, done) in pairs if begun != done and slot != self.slot]

    # --- writing --------------------------------------------------------------------------------

    def commit(self, buckets: Iterable[int], make_sure: MakeSure, unsettled: Sequence[Any] = ()) -> Commit:
        """For a ``with`` statement in which a commit is made; the parameters are those of `Commit`."""
        return Commit(self, buckets, make_sure, unsettled)

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
                    # First, so that what is counted by an attempt that is interrupted is settled.
                    self._commits.add(commit)
                    for bucket in buckets:
                        self._words[self._begun(bucket, self._slot.number)] += 1
                    self._is_closing = False
                    return
            self.claim(commit.make_sure)

    def leave(self, commit: Commit) -> None:
        """Say that its block is left, and so that it is done, unless something is unsettled."""
        if commit not in self._commits:
            return  # It could not begin, or was brought to an end before.
        buckets = iter(commit.buckets)
        with self._guard():
            if not commit.unsettled:
                self._end(commit, buckets)
            if self._is_closing:
                self._give_back(leaving=commit)

    def settle(self, settle: Callable[[Commit], None]) -> None:
        """Bring to an end what was left without one.

        :param settle: called with a commit; returns when it can't happen any more. Two threads may both do
            that with one.
        """
        for commit in tuple(self._commits):
            if commit.is_left():
                settle(commit)
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

    def claim(self, make_sure: MakeSure) -> None:
        """Have a slot, mended. Not under our lock: to make sure of a dead owner asks the store.

        :raises StoreUnavailableError: if all are taken, or none can be.
        """
        deadline = time.monotonic() + self._timeout
        while not any(self._claim(number, make_sure) for number in range(SLOTS)):
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"{SLOTS} processes write under {self._path.parent}, which is the most, and none has "
                    f"ended for {self._timeout:g} seconds; let fewer write there"
                )
            time.sleep(POLL)

    def _claim(self, number: int, make_sure: MakeSure) -> bool:
        """Have a slot, if it is free or we have one."""
        lock = _SlotLock(self, self._locks, number)
        with lock as is_free:
            if is_free:
                self._mend(number, make_sure)
                self._widen(number)
                with self._guard():
                    if self._slot is None:  # Else another thread came first.
                        self._slot = lock
        return self._slot is not None

    def owns(self, lock: _SlotLock) -> bool:
        """Whether it is the lock of the slot that this process counts in."""
        return self._slot is lock

    def mend(self, slot: int, make_sure: MakeSure) -> bool:
        """Mend the counts of a slot if its owner is dead; whether it was."""
        with _SlotLock(self, self._locks, slot) as is_free:
            if is_free:
                self._mend(slot, make_sure)
        return is_free

    def _mend(self, slot: int, make_sure: MakeSure) -> None:
        ahead = []
        for bucket in range(BUCKETS):
            begun = self._begun(bucket, slot)
            if self._words[begun] != self._words[begun + 1]:
                ahead.append(begun)
        if ahead:
            make_sure(slot)
        for begun in ahead:
            self._words[begun + 1] = self._words[begun]

    def _widen(self, slot: int) -> None:
        """Let every reader's row reach this slot, before anything is counted in it."""
        step = next(step for step, width in enumerate(WIDTHS) if width > slot)
        narrow = [
            first
            for first in map(self._first_word, range(BUCKETS))
            if _slots_of(self._words[first]) < WIDTHS[step]
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

        What is unsettled is left to whoever mends it.
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
