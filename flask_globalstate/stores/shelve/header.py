"""The header of a store in files: one line in a file of its own, and the number of its format in another.

The line holds the epoch, the id of the seqcount, and the number of the last commit. Whoever has the write
lock counts there. What was counted is not on the disk yet when a commit returns, and need not be: no name
gets a number that is not above its own last one.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from ...errors import StoreUnavailableError
from ...system.directory import write_in_one_step
from ...system.files import OwnFile, read_own
from ...system.seqcount_file import UNUSED
from ..base import newer_format
from .schema import FORMAT

LINE = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{32}) ([0-9]{20})\n")
FORMAT_LINE = re.compile(rb"[0-9]{1,9}\n")
NUMBER_AT, NUMBER_SIZE = 50, 20


class Header:
    """The file of the line, which is open once the store is in use.

    :ivar epoch: of the store.
    :ivar identity: the id that its seqcount has.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._format_path = path.with_name("format")
        self._file: OwnFile | None = None
        self.epoch = ""
        self.identity = UNUSED

    def require_known_format(self) -> None:
        """Return if the store is in a format that this release knows, or is not made yet.

        :raises ConfigurationError: if a newer release has made it.
        :raises StoreUnavailableError: if the number is damaged.
        """
        try:
            line = read_own(self._format_path)
        except FileNotFoundError:
            return  # One that bears no number is of the first format.
        if not FORMAT_LINE.fullmatch(line):
            raise StoreUnavailableError(f"{self._format_path} is damaged; restore it from a backup")
        if int(line) > FORMAT:
            raise newer_format(f"STORE_PATH {str(self._path.parent.parent)!r}", int(line), FORMAT)

    def make(self, identity: str) -> None:
        """Make it if it is missing, and note the id of the seqcount; nobody else uses the store."""
        try:
            self._read()
        except FileNotFoundError:
            write_in_one_step(self._format_path, b"%d\n" % FORMAT)
            self.epoch, number = secrets.token_hex(8), 0
        else:
            if identity == self.identity:
                return
            number = self._number(read_own(self._path)[NUMBER_AT : NUMBER_AT + NUMBER_SIZE])
        write_in_one_step(self._path, f"{self.epoch} {identity} {number:020d}\n".encode())

    def read(self) -> None:
        """Learn epoch and identity.

        :raises StoreUnavailableError: if it is missing or damaged.
        """
        try:
            self._read()
        except FileNotFoundError as error:
            raise StoreUnavailableError(
                f"{self._path} was removed while the store was in use; stop every process that uses it, "
                "and start them again"
            ) from error

    def _read(self) -> None:
        line = LINE.fullmatch(read_own(self._path))
        if line is None:
            raise self._damaged()
        self.epoch, self.identity = line[1].decode(), line[2].decode()

    def open(self) -> None:
        """Open the file, to count in it."""
        self._file = OwnFile(self._path, os.O_RDWR)

    @property
    def is_open(self) -> bool:
        """True once it can count."""
        return self._file is not None

    def number(self) -> int:
        """The number of the last commit."""
        assert self._file is not None
        return self._number(os.pread(self._file.fileno(), NUMBER_SIZE, NUMBER_AT))

    def count(self, above: int) -> int:
        """The number of the next commit.

        :param above: the last number of the names in it: a copy of a file may have brought a higher one.
        """
        assert self._file is not None
        number = max(self.number(), above) + 1
        os.pwrite(self._file.fileno(), b"%020d" % number, NUMBER_AT)
        return number

    def _number(self, digits: bytes) -> int:
        if len(digits) != NUMBER_SIZE or not digits.isdigit():
            raise self._damaged()
        return int(digits)

    def _damaged(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._path} is damaged; stop every process that uses it, and remove that file"
        )

    def close(self) -> None:
        """Let go of the file."""
        # Forgotten first: a fork in between must not make a child use one that is closed.
        file, self._file = self._file, None
        if file is not None:
            file.close()
