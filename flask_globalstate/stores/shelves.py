"""The files of a shelve store: what they are called, and the connections to them that a process keeps."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from .. import forks
from .. import keys as keys_module
from ..errors import StoreUnavailableError
from .dbm_import import import_other_kind, is_other_kind
from .shelf import NoShelf, Shelf, is_sqlite

CONNECTIONS_KEPT = 64
LONGEST_FILE_NAME = 150
UNSAFE = re.compile(rb"[^A-Za-z0-9_.-]")
#: what would hide a file, or make it look like a part of another shelf
MISLEADING = re.compile(r"^\.|[.-](?=(?:db|dat|dir|pag|bak|new|wal|shm|journal)$)")


def file_name(name: str) -> str:
    """The file of a name: called as the name where that can be, and always inside the directory."""
    data = keys_module.to_bytes(name)
    text = UNSAFE.sub(lambda unsafe: b"%%%02X" % unsafe[0][0], data).decode()
    text = MISLEADING.sub(lambda first: f"%{ord(first[0]):02X}", text)
    if len(text) > LONGEST_FILE_NAME:
        return f"{text[:60]}%-{hashlib.sha256(data).hexdigest()}"
    return text or "%-"


class Shelves:
    """Connections to the shelves of a folder, each used by one thread at a time.

    :param folder: where the files are.
    :param synchronous: SQLite's setting of that name.
    :param timeout: seconds to wait for another process that is in the way.
    :param turn: keeps other writers out.
    :param take_over: called with a name and its shelf when another program has written to it.
    """

    def __init__(
        self,
        folder: Path,
        synchronous: str,
        timeout: float,
        turn: Callable[[], AbstractContextManager[None]],
        take_over: Callable[[str, Shelf], None],
    ) -> None:
        self._folder = folder
        self._synchronous = synchronous
        self._timeout = timeout
        self._turn = turn
        self._take_over = take_over
        self._lock = threading.Lock()
        self._idle: dict[str, list[Shelf]] = {}
        forks.hold_while_forking(self)

    def path(self, name: str) -> Path:
        """Where the file of a name is."""
        return self._folder / file_name(name)

    @contextmanager
    def open(self, name: str, *, create: bool = False) -> Iterator[Any]:
        """A connection to the file of a name, or `NoShelf` if there is none.

        :param create: whether to make it; the caller keeps others out meanwhile.
        """
        shelf = self._take(name, create)
        if shelf is None:
            yield NoShelf()
            return
        try:
            yield shelf
        except BaseException:
            shelf.close()
            raise
        self._give_back(shelf)

    def names(self) -> Iterator[str]:
        """The names that were written and not dropped."""
        for path in sorted(self._folder.iterdir()):
            if MISLEADING.search(path.name) or not path.is_file() or not is_sqlite(path):
                continue
            shelf = Shelf(str(path), self._synchronous, self._timeout)
            try:
                own = shelf.name()
            finally:
                shelf.close()
            # One that another program has made is called as its file.
            name = keys_module.from_bytes(unquote_to_bytes(path.name) if own is None else own)
            with self.open(name) as shelf:
                if shelf.head().live:
                    yield name

    def _take(self, name: str, create: bool) -> Shelf | None:
        path = str(self.path(name))
        with self._lock:
            idle = self._idle.get(path)
            shelf = idle.pop() if idle else None
        if shelf is None:
            return self._connect(name, path, create)
        if not shelf.is_in_place():
            shelf.close()
            raise StoreUnavailableError(
                f"{path} was removed or replaced while it was in use; what was in it is lost. Restart the "
                "application to begin with an empty one"
            )
        return shelf

    def _connect(self, name: str, path: str, create: bool) -> Shelf | None:
        if is_other_kind(path):
            with self._turn():
                import_other_kind(path)
        try:
            shelf = Shelf(path, self._synchronous, self._timeout, create=create)
        except FileNotFoundError:
            return None
        try:
            if shelf.has_foreign():
                with self._turn():
                    self._take_over(name, shelf)
            if not (shelf.is_ours or create):
                # Its writer was killed before the first commit.
                shelf.close()
                return None
            if shelf.is_ours and shelf.name() != keys_module.to_bytes(name):
                raise StoreUnavailableError(
                    f"{path} is the file of another name; file names here may be the same in upper and "
                    f"lower case. Rename the global {name!r}, or the file if it was copied"
                )
        except BaseException:
            shelf.close()
            raise
        return shelf

    def _give_back(self, shelf: Shelf) -> None:
        with self._lock:
            # Put in again at the end: the first is the one that has been idle for longest.
            self._idle[shelf.path] = [*self._idle.pop(shelf.path, []), shelf]
            if sum(map(len, self._idle.values())) <= CONNECTIONS_KEPT:
                return
            oldest = next(iter(self._idle))
            superfluous = self._idle.pop(oldest)
        for shelf in superfluous:
            shelf.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            for shelf in self._idle.popitem()[1]:
                shelf.close()

    def hold(self) -> None:
        """Close what is idle: a connection of SQLite must not be carried across a fork."""
        self._lock.acquire()
        self._close_idle()

    def release(self) -> None:
        """Let threads open connections again, in the parent and in the child."""
        self._lock.release()

    def after_fork(self) -> None:
        """Leave to the parent what a fork past Python's hooks has copied."""
        self._lock = threading.Lock()
        for shelves in self._idle.values():
            for shelf in shelves:
                shelf.abandon()
        self._idle = {}
