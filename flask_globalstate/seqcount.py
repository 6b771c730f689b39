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

#: called with the number of a slot whose owner is dead; returns when its last commit can't happen any more
MakeSure = Callable[[int], None]


def make(directory: Path) -> str:
    """Make the file if there is none that is good, and give its id. Nobody else may be using it."""
    path = directory / FILE
    with suppress(FileNotFoundError, StoreUnavailableError):
        return read_id(path)
    content = bytearray(SIZE)
    identity = secrets.token_bytes(2 * WORD)
    struct.pack_into("=QQ", content, 0, MAGIC, LAYOUT)
    content[2 * WORD : 4 * WORD] = identity
    new = directory / (FILE + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(content)
    new.rename(path)
    return identity.hex()


def read_id(path: Path) -> str:
    """The id of a file.

    :raises FileNotFoundError: if there is none.
    :raises StoreUnavailableError: if it is not a file of this layout.
    """
    with open(path, "rb") as file:
        header = file.read(WORD * HEADER_WORDS)
        size = os.fstat(file.fileno()).st_size
    if size != SIZE or header[: 2 * WORD] != struct.pack("=QQ", MAGIC, LAYOUT):
        raise StoreUnavailableError(f"{path} is not a seqcount file of this release")
    return header[2 * WORD :].hex()


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
        try:
            found = read_id(path)
        except FileNotFoundError:
            found = "none"
        if found != identity:
            raise StoreUnavailableError(
                f"{path} is missing or not the one that the store was started with; stop every "
                "process that uses this directory, and start them again"
            )
        self.identity = identity
        self._locks = directory / LOCKS
        with open(path, "r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), SIZE)).cast("Q")
        self._lock = threading.Lock()
        self._slot: int | None = None
        self._slot_lock: int | None = None

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
        """Say that a commit begins; a slot is claimed before the first."""
        with self._lock:
            if self._slot is None:
                self._claim(make_sure)
            self._add(buckets, 1)

    def end(self, buckets: Iterable[int]) -> None:
        """Say that it is done, or can't happen any more."""
        with self._lock:
            if self._slot is not None:
                self._add(buckets, 2)

    @property
    def slot(self) -> int | None:
        """The slot of this process, once it has begun a commit."""
        return self._slot

    def _add(self, buckets: Iterable[int], word: int) -> None:
        assert self._slot is not None
        descriptor = None
        try:
            if self._slot == OVERFLOW:
                descriptor = self._open_lock("addition")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            for bucket in set(buckets):
                self._words[self._first_word(bucket) + 2 * self._slot + word] += 1
        finally:
            if descriptor is not None:
                close_lock_file(descriptor)

    # --- slots ----------------------------------------------------------------------------------

    def _claim(self, make_sure: MakeSure) -> None:
        for slot in range(SLOTS):
            descriptor = self._try_lock(slot, fcntl.LOCK_EX)
            if descriptor is not None:
                break
        else:
            slot = OVERFLOW
            descriptor = self._open_lock(str(OVERFLOW))
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            if slot != OVERFLOW:
                self._mend(slot, make_sure)
            self._widen(slot)
        except BaseException:
            close_lock_file(descriptor)
            raise
        self._slot, self._slot_lock = slot, descriptor

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
        self._locks.mkdir(0o700, exist_ok=True)
        return open_lock_file(self._locks / name)

    def _first_word(self, bucket: int) -> int:
        return HEADER_WORDS + bucket * ROW_WORDS

    # --- life -----------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Leave the parent's slot to the parent."""
        self._lock = threading.Lock()
        self._slot = self._slot_lock = None

    def close(self) -> None:
        """Give the slot back. What is under way stays counted as begun, for somebody to mend."""
        if self._slot_lock is not None:
            close_lock_file(self._slot_lock)
        self._slot = self._slot_lock = None
