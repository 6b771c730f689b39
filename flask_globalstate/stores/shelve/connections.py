"""The files of a shelve store: what they are called, and the connections to them that a process keeps."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from os import lstat
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from ...errors import GlobalStateError, StoreUnavailableError
from ...system import forks
from ...system.holding import Hold
from ...system.locks import Guard
from ...values import keys as keys_module
from .absent import NoFile
from .dbm_import import BESIDE, files_beside, import_other_kind, remove_imported
from .errors import NotAShelfError, errors, reraise
from .file import OpenFile, Options
from .schema import NotAShelf

CONNECTIONS_KEPT = 64
LONGEST_FILE_NAME = 150
UNSAFE = re.compile(rb"[^A-Za-z0-9_.-]")
#: what would hide a file, or make it look like a part of another one
MISLEADING = re.compile(r"^\.|[.-](?=(?:db|dat|dir|pag|bak|new|wal|shm|journal|backup[0-9]*)$)")

Place = tuple[int, int]

#: the files that SQLite believes to be open, in a process that was forked while they were in use
_unusable: set[str] = set()


@functools.lru_cache(maxsize=10_000)
def file_name(name: str) -> str:
    """The file of a name: called as the name where that can be, and always inside the directory."""
    data = keys_module.to_bytes(name)
    text = UNSAFE.sub(lambda unsafe: b"%%%02X" % unsafe[0][0], data).decode()
    text = MISLEADING.sub(lambda first: f"%{ord(first[0]):02X}", text)
    if len(text) > LONGEST_FILE_NAME:
        return f"{text[:60]}%-{hashlib.sha256(data).hexdigest()}"
    return text or "%-"


class Connection(Hold[Any]):
    """For a ``with`` statement: a file that is open, used by this thread alone.

    :param path: the file.
    :param create: whether to make it if it is missing.
    """

    def __init__(self, connections: Connections, path: str, *, create: bool = False) -> None:
        self.path = path
        self.create = create
        self.file: OpenFile | None = None
        #: which file it was, and how often connections were closed, when this one was taken
        self.place: Place | None = None
        self.closings = 0
        self._connections = connections

    def enter(self) -> Any:
        return self._connections.take(self)

    def leave(self, error: BaseException | None) -> None:
        self._connections.give_back(self, error)


class NamedConnection(Connection):
    """A connection to the file of a name. No error of SQLite leaves the statement."""

    def __init__(self, connections: Connections, path: str, name: str, *, create: bool) -> None:
        super().__init__(connections, path, create=create)
        self._name = name

    def enter(self) -> Any:
        file = super().enter()
        # One that is not ours yet: its writer was killed before the first commit.
        return file if file.is_ours or self.create else NoFile()

    def leave(self, error: BaseException | None) -> None:
        try:
            if error is None and self.file is not None:
                self._connections.learn(self._name, self.file)
        except BaseException as failure:
            error = failure
            raise
        finally:
            super().leave(error)
            if error is not None:
                reraise(self.path, error)


class Connections:
    """Connections to the files of a folder, each used by one thread at a time.

    No call of a user's code, and no wait for the write lock, while a connection is in use: a fork
    waits until none is.

    :param folder: where the files are.
    :param options: how they are opened.
    :param write_lock: keeps other writers out.
    :param take_over: called with a name and its file, under the lock, when another program has written to it.
    """

    #: see `forks.Holder`
    waits = False

    def __init__(
        self,
        folder: Path,
        options: Options,
        write_lock: Callable[[], AbstractContextManager[None]],
        take_over: Callable[[str, str], None],
    ) -> None:
        self.options = options
        self._folder = folder
        self._before_name = f"{folder}/"
        self._write_lock = write_lock
        self._take_over = take_over
        self._make_lock()
        self._is_held = False
        self._idle: dict[str, list[OpenFile]] = {}
        self._in_use: set[Connection] = set()
        #: the files that this process has used: none of them may become another one
        self._places: dict[str, Place] = {}
        self._closings = 0
        forks.hold_while_forking(self)

    def _make_lock(self) -> None:
        # Taken as it is: a signal's exception inside of the condition's own methods would leave it held.
        self._guard = Guard("a store")
        self._changed = threading.Condition(self._guard.lock)

    # --- names ----------------------------------------------------------------------------------

    def names(self, *, as_it_is: bool = False) -> Iterator[str]:
        """The names that were written and not dropped.

        :param as_it_is: as of `open`.
        """
        found = {path.name for path in self._folder.iterdir() if path.is_file()}
        found |= {base.removesuffix(suffix) for base in found for suffix in BESIDE}
        for base in sorted(found):
            with suppress(NotAShelfError):
                name = self._name_of(base)
                if name is None or file_name(name) != base:
                    continue
                with self.open(name, as_it_is=as_it_is) as file:
                    is_live = file.head().live
                if is_live:
                    yield name

    def _name_of(self, base: str) -> str | None:
        """The name that a file is called after."""
        if "%-" in base:
            return self._name_in(base)
        try:
            return keys_module.from_bytes(unquote_to_bytes(base))
        except UnicodeError:
            return None

    def _name_in(self, base: str) -> str | None:
        """The name that stands in a file, where it is too long for the name of the file."""
        path = str(self._folder / base)
        with errors(path), self.connection(path) as file:
            own = file.name()
        return None if own is None else keys_module.from_bytes(own)

    # --- connections ----------------------------------------------------------------------------

    def open(
        self, name: str, *, create: bool = False, has_lock: bool = False, as_it_is: bool = False
    ) -> AbstractContextManager[Any]:
        """A connection to the file of a name for a ``with`` statement, or `NoFile` if there is none.

        :param create: whether to make it; the caller has the write lock.
        :param has_lock: whether the caller has the write lock.
        :param as_it_is: take nothing over that other programs have written, which would be a commit.
        """
        path = self._before_name + file_name(name)
        with errors(path):
            if path not in self._places and not as_it_is:
                self._get_ready(name, path, has_lock)
            if create or path in self._places or _place(path):
                return NamedConnection(self, path, name, create=create)
        return nullcontext(NoFile())

    def learn(self, name: str, file: OpenFile) -> None:
        """Remember which file a name has: from now on it may not become another one."""
        if file.path not in self._places and not file.has_foreign():
            self._add(name, file)

    def _get_ready(self, name: str, path: str, has_lock: bool) -> None:
        """Import or take over what other programs have written; once in each process."""
        beside = files_beside(path)
        try:
            with self.connection(path) as file:
                if not (beside or file.has_foreign()):
                    return self._add(name, file)
        except FileNotFoundError:
            if not beside:
                return None
        except NotAShelf:
            pass
        with nullcontext() if has_lock else self._write_lock():
            self._import(path)
            if _place(path) is None:
                return None
            self._take_over(name, path)
            with self.connection(path) as file:
                if not file.has_foreign():
                    self._add(name, file)
        return None

    def _add(self, name: str, file: OpenFile) -> None:
        if not file.is_ours:
            return
        if file.name() != keys_module.to_bytes(name):
            raise NotAShelfError(
                f"{file.path} is the file of another name; file names here may be the same in upper and "
                f"lower case. Rename the global {name!r}, or the file if it was copied"
            )
        self._places[file.path] = file.place

    def _import(self, path: str) -> None:
        try:
            with self.connection(path):
                pass
        except (FileNotFoundError, NotAShelf):
            import_other_kind(path)
        else:
            remove_imported(path)

    def connection(self, path: str, *, create: bool = False) -> Connection:
        """A connection to a file as it is, for a ``with`` statement.

        Entering it raises `FileNotFoundError` if there is none, and `StoreUnavailableError` if there was one,
        or another.
        """
        return Connection(self, path, create=create)

    def take(self, connection: Connection) -> OpenFile:
        """The open file that a connection is to use: an idle one if there is one."""
        path = connection.path
        connection.closings = self._closings
        self._take_idle(connection)
        connection.place = self._places.get(path)
        if connection.place is not None and connection.place != _place(path):
            raise StoreUnavailableError(
                f"{path} was removed or replaced while it was in use; what was in it is lost. Restart "
                "the application to begin with what is there now"
            )
        if connection.file is None:
            connection.file = OpenFile(path, self.options, create=connection.create)
        return connection.file

    def _take_idle(self, connection: Connection) -> None:
        path = connection.path
        with self._guard():
            if self._is_held and not self._changed.wait_for(lambda: not self._is_held, self.options.timeout):
                raise StoreUnavailableError(f"this process has been forking for too long to use {path}")
            if path in _unusable:
                raise StoreUnavailableError(
                    f"{path} was in use by another thread when this process was forked, past the hooks of "
                    "os.fork; it can't be used here. Fork before threads use the store, or by os.fork"
                )
            self._in_use.add(connection)
            idle = self._idle.pop(path, [])
            connection.file = idle.pop() if idle else None
            if idle:
                self._idle[path] = idle

    def give_back(self, connection: Connection, error: BaseException | None) -> None:
        """Keep it for the next use, or close it; nothing is done the second time.

        :param error: what has ended its use.
        """
        if connection not in self._in_use:
            return
        file = connection.file
        if file is not None and not self._is_good(connection, file, error):
            # Before it is forgotten: it may be in the middle of a transaction, which keeps others out.
            file.close()
            connection.file = None
        for superfluous in self._keep(connection):
            superfluous.close()
        with self._guard():
            self._in_use.discard(connection)
            if self._is_held:
                self._changed.notify_all()

    def _is_good(self, connection: Connection, file: OpenFile, error: BaseException | None) -> bool:
        if connection.closings != self._closings or not file.is_ours or file.is_in_transaction():
            return False
        if isinstance(error, (GlobalStateError, TypeError)):
            # The caller's own.
            return connection.place == _place(file.path)
        return error is None

    def _keep(self, connection: Connection) -> list[OpenFile]:
        """Put its file among the idle ones; return those that are too many."""
        with self._guard():
            # Forgotten first: if this is interrupted, it is among the idle ones and stays open, or is gone.
            file, connection.file = connection.file, None
            if file is None:
                return []
            # Put in again at the end: the first is the one that has been idle for longest.
            self._idle[file.path] = [*self._idle.pop(file.path, []), file]
            if sum(map(len, self._idle.values())) <= CONNECTIONS_KEPT:
                return []
            return self._idle.pop(next(iter(self._idle)))

    # --- life -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what is idle, and what is in use when it is given back."""
        with self._guard():
            self._closings += 1
            self._close_idle()
            self._places.clear()

    def _close_idle(self) -> None:
        while self._idle:
            for file in self._idle.popitem()[1]:
                file.close()

    def hold(self) -> None:
        """Wait until nothing is in use, and close all: SQLite must not be carried across a fork.

        In the child it would believe to hold the parent's locks.
        """
        self._changed.acquire()
        self._is_held = True
        # An exception of a signal handler would be swallowed by os.fork, and leave the lock held.
        with suppress(BaseException):
            self._changed.wait_for(lambda: not self._in_use, self.options.timeout)
        self._close_idle()

    def release(self) -> None:
        """Let threads open connections again, in the parent and in the child."""
        self._is_held = False
        self._changed.notify_all()
        self._changed.release()

    def after_fork(self) -> None:
        """Close what a fork past Python's hooks has copied; what was in use then can't be."""
        self._make_lock()
        self._is_held = False
        _unusable.update(connection.path for connection in self._in_use)
        self._in_use = set()
        self._close_idle()


def _place(path: str) -> Place | None:
    try:
        status = lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
