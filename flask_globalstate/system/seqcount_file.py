"""The file of a seqcount, which every process that uses a store maps; and the locks of its slots.

The file, all in native 64-bit words::

    header       magic, layout, then the id (two words)
    row          one for each bucket of names:
      width      eight bytes: the n-th is 1 if the row reaches over the n-th number of slots in `WIDTHS`
      slot 0..N  begun, done

A slot belongs to the process that holds the ``flock`` on its lock file. What no row reaches over has no place
on the disk.

On a network file system hosts map copies of their own, so nothing is counted there. Whoever makes the
store decides, and the store keeps the decision as the file's id: all or none of its clients count.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from ..errors import StoreUnavailableError
from .forks import FILE_MODE, close_lock_file, open_lock_file
from .holding import Hold

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


def make(directory: Path) -> str:
    """The id of the file, which is made if there is none that is good; nobody else may be using it.

    `UNUSED` on a network file system, where none is made.
    """
    if not is_usable(directory):
        return UNUSED
    path = directory / FILE
    with suppress(FileNotFoundError, StoreUnavailableError), open(path, "rb") as file:
        identity = id_in(file)
        content = content_of(file)
        check_counts(path, content, memoryview(content).cast("Q"))
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
        return id_in(file)


def id_in(file: BinaryIO) -> str:
    header = file.read(WORD * HEADER_WORDS)
    size = os.fstat(file.fileno()).st_size
    magic, layout = struct.unpack("=QQ", header[: 2 * WORD].ljust(2 * WORD, b"\0"))
    if magic == MAGIC and layout != LAYOUT:
        raise StoreUnavailableError(
            f"{file.name} has layout {layout}, and this release of flask-globalstate knows {LAYOUT}; stop "
            "every process that uses this directory, and start them again with one release"
        )
    if magic != MAGIC or size != SIZE:
        raise StoreUnavailableError(f"{file.name} is not a seqcount file of this release")
    return header[2 * WORD :].hex()


def content_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def check_counts(path: Path, content: bytes, words: memoryview) -> None:
    """Raise `StoreUnavailableError` if there are counts where no row reaches, as after damage.

    :param words: read after the content: a row reaches over a slot before anything is counted in it.
    """
    for first in range(HEADER_WORDS, HEADER_WORDS + BUCKETS * ROW_WORDS, ROW_WORDS):
        width = words[first]
        beyond = content[WORD * (first + 1 + 2 * slots_of(width)) : WORD * (first + ROW_WORDS)]
        if set(width.to_bytes(WORD, "little")) - {0, 1} or beyond != bytes(len(beyond)):
            raise StoreUnavailableError(
                f"{path} is damaged; stop every process that uses it, and start them again"
            )


def slots_of(width: int) -> int:
    """The number of slots that a row reaches over, given its first word."""
    return WIDTHS[(width.bit_length() + BYTE_BITS - 1) // BYTE_BITS]


def is_usable(directory: Path) -> bool:
    """Return whether all processes that map a file of this directory share its memory.

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
    """The number of the row that a name counts in, the same in every process."""
    return zlib.crc32(name) % BUCKETS


class Owner(Protocol):
    """The one that counts in slots."""

    def owns(self, lock: SlotLock) -> bool: ...


class SlotLock(Hold[bool]):
    """The lock of a slot: held in the block, and if we count in that slot until it is given back."""

    def __init__(self, owner: Owner, path: Path, number: int) -> None:
        self.number = number
        self._owner = owner
        self._path = path / str(number)
        self._descriptor: int | None = None

    def enter(self) -> bool:
        """Lock it; return whether it was free."""
        self._descriptor = _open_lock(self._path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self, error: BaseException | None) -> None:
        if not self._owner.owns(self):
            self.close()

    def close(self) -> None:
        """Let go of it."""
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
