"""A few counters in shared memory that tell a reader that nothing was written since it last looked.

After Linux's seqcounts (``Documentation/locking/seqlock.rst``), with one pair of counters for each
writer, since Python has no atomic addition between processes.

The file, all in native 64-bit words::

    header       magic, layout, then the id (two words)
    row          one for each bucket of names:
      width      how many slots were ever claimed
      slot 0..N  begun, done

A commit adds one to ``begun`` in the rows of all its names, does its I/O, then adds one to ``done``. A
row in which each ``begun`` equals its ``done`` is idle. A reader that remembers an idle row and finds
it unchanged knows that nothing was written since and that nothing is under way.

A slot belongs to the process that holds the ``flock`` on its lock file. Its counts go on from owner to
owner: starting again at 0 would look unchanged. Processes that find no free slot share the last one;
they hold its lock file shared, and add under a second lock.

A process that died in a commit leaves ``begun`` ahead. Whoever can take its slot's lock mends it, after
making sure that the dead commit can't happen any more.

On a network file system hosts map copies of their own, so nothing is counted there. Whoever makes the
store decides, and the store keeps the decision as the file's id: all or none of its clients count.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .errors import StoreUnavailableError
from .forks import FILE_MODE, close_lock_file, open_lock_file

MAGIC = 0x666C61736B677331
LAYOUT = 1
BUCKETS = 64
SLOTS = 64
OVERFLOW = SLOTS
WORD = 8
HEADER_WORDS = 4
ROW_WORDS = 1 + 2 * (SLOTS + 1)
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
        _check_counts(path, memoryview(file.read()).cast("Q"), 0)
        return identity
    content = bytearray(SIZE)
    struct.pack_into("=QQ", content, 0, MAGIC, LAYOUT)
    content[2 * WORD : 4 * WORD] = secrets.token_bytes(2 * WORD)
    new = directory / (FILE + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(content)
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


def _check_counts(path: Path, words: memoryview, first: int = HEADER_WORDS) -> None:
    """:raises StoreUnavailableError: if there are counts where no row reaches, as after damage."""
    for row in range(first, first + BUCKETS * ROW_WORDS, ROW_WORDS):
        # The counts first: a slot is within reach before anything is counted in it.
        counts = words[row + 1 : row + ROW_WORDS].tolist()
        if any(counts[2 * words[row] :]) or words[row] > SLOTS + 1:
            raise StoreUnavailableError(
                f"{path} is damaged; stop every process that uses it, and start them again"
            )


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


class Seqcount:
    """The counters of one directory, mapped into this process.

    :param directory: where the file is.
    :param identity: the id that the store says its file has.
    :raises StoreUnavailableError: if the file is missing or another one; a second is never made here.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        path = directory / FILE
        self.identity = identity
        self._locks = directory / LOCKS
        try:
            with open(path, "r+b") as file:
                if _read_id(file) != identity:
                    raise _other_file(path)
                self._words = memoryview(mmap.mmap(file.fileno(), SIZE)).cast("Q")
                _check_counts(path, self._words)
        except FileNotFoundError as error:
            raise _other_file(path) from error
        self._begin_empty()

    def _begin_empty(self) -> None:
        """What belongs to one process."""
        self._lock = threading.Lock()
        self._slot: int | None = None
        #: of the slot, and of the additions to one that is shared
        self._slot_locks: list[int] = []
        self._under_way = 0
        self._is_closing = False

    # --- reading --------------------------------------------------------------------------------

    def row(self, bucket: int) -> memoryview:
        """The words that a reader of this bucket compares."""
        first = self._first_word(bucket)
        return self._words[first : first + 1 + 2 * self._words[first]]

    @staticmethod
    def is_idle(row: memoryview) -> bool:
        """Whether no commit was under way when ``row`` was copied, and it is as wide as it says."""
        width, *counts = row.tolist()
        return len(counts) == 2 * width and counts[::2] == counts[1::2]

    def unfinished(self, bucket: int) -> list[int]:
        """The slots of other processes that have begun something and not done it."""
        first = self._first_word(bucket)
        return [
            slot
            for slot in range(self._words[first])
            if slot != self._slot and self._words[first + 1 + 2 * slot] != self._words[first + 2 + 2 * slot]
        ]

    # --- writing --------------------------------------------------------------------------------

    def begin(self, buckets: Iterable[int], make_sure: MakeSure) -> None:
        """Say that a commit begins; a slot is claimed before the first.

        :raises StoreUnavailableError: if none can be claimed.
        """
        while True:
            with self._lock:
                if self._slot is not None:
                    self._add(buckets, 1)
                    self._under_way += 1
                    self._is_closing = False
                    return
            self._claim(make_sure)

    def end(self, buckets: Iterable[int]) -> None:
        """Say that it is done, or can't happen any more."""
        with self._lock:
            if self._slot is None:
                return  # In a child that was forked meanwhile.
            self._add(buckets, 2)
            self._finish_one()

    def leave(self) -> None:
        """Leave something that has begun to whoever mends the slot when it is given back."""
        with self._lock:
            self._finish_one()

    def _finish_one(self) -> None:
        self._under_way -= 1
        if self._is_closing:
            self._give_back()

    @property
    def slot(self) -> int | None:
        """The slot of this process, once it has begun a commit."""
        return self._slot

    def _add(self, buckets: Iterable[int], word: int) -> None:
        assert self._slot is not None
        shared = self._slot_locks[1:]
        for descriptor in shared:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            for bucket in set(buckets):
                self._words[self._first_word(bucket) + 2 * self._slot + word] += 1
        finally:
            for descriptor in shared:
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    # --- slots ----------------------------------------------------------------------------------

    def _claim(self, make_sure: MakeSure) -> None:
        """Have a slot, mended. Not under our lock: to make sure of a dead owner asks the store."""
        slot, locks = self._lock_slot()
        try:
            if slot == OVERFLOW:
                # Kept open, so that nothing can keep a commit from being counted as done.
                locks.append(self._open_lock("addition"))
            else:
                self._mend(slot, make_sure)
            self._widen(slot)
            with self._lock:
                if self._slot is None:  # Else another thread came first.
                    self._slot, self._slot_locks, locks = slot, locks, []
        finally:
            for descriptor in locks:
                close_lock_file(descriptor)

    def _lock_slot(self) -> tuple[int, list[int]]:
        for slot in range(SLOTS):
            descriptor = self._try_lock(slot, fcntl.LOCK_EX)
            if descriptor is not None:
                return slot, [descriptor]
        descriptor = self._open_lock(str(OVERFLOW))
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return OVERFLOW, [descriptor]

    def mend(self, slot: int, make_sure: MakeSure) -> bool:
        """Mend the counts of a slot if its owner is dead; whether it was."""
        descriptor = self._try_lock(slot, fcntl.LOCK_EX)
        if descriptor is None:
            return False
        try:
            self._mend(slot, make_sure)
        finally:
            close_lock_file(descriptor)
        return True

    def _mend(self, slot: int, make_sure: MakeSure) -> None:
        ahead = []
        for bucket in range(BUCKETS):
            begun = self._first_word(bucket) + 1 + 2 * slot
            if self._words[begun] != self._words[begun + 1]:
                ahead.append(begun)
        if ahead:
            make_sure(slot)
        for begun in ahead:
            self._words[begun + 1] = self._words[begun]

    def _widen(self, slot: int) -> None:
        """Let every reader's row reach this slot, before anything is counted in it."""
        descriptor = self._open_lock("width")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for bucket in range(BUCKETS):
                first = self._first_word(bucket)
                if self._words[first] <= slot:
                    self._words[first] = slot + 1
        finally:
            close_lock_file(descriptor)

    def _try_lock(self, slot: int, kind: int) -> int | None:
        descriptor = self._open_lock(str(slot))
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            close_lock_file(descriptor)
            return None
        return descriptor

    def _open_lock(self, name: str) -> int:
        try:
            self._locks.mkdir(0o700, exist_ok=True)
            return open_lock_file(self._locks / name)
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._locks / name} can't be opened ({error.strerror}); check that the directory is "
                "there, its permissions, and the free space"
            ) from error

    def _first_word(self, bucket: int) -> int:
        return HEADER_WORDS + bucket * ROW_WORDS

    # --- life -----------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Leave the parent's slot to the parent."""
        self._begin_empty()

    def close(self) -> None:
        """Give the slot back, as soon as nothing is under way: what ends later must end what it began."""
        with self._lock:
            self._is_closing = True
            self._give_back()

    def _give_back(self) -> None:
        if self._under_way == 0:
            for descriptor in self._slot_locks:
                close_lock_file(descriptor)
            self._slot, self._slot_locks = None, []


def open_seqcount(directory: Path, identity: str) -> Seqcount | None:
    """The counters of a directory, or None where the store says that nothing is counted.

    :raises StoreUnavailableError: as `Seqcount`.
    """
    return None if identity == UNUSED else Seqcount(directory, identity)


def _other_file(path: Path) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{path} is missing or not the one that the store was started with; stop every process that uses "
        "this directory, and start them again"
    )
