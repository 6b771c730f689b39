"""The files of a shelve store: what they are called, and the connections to them that a process keeps."""

from __future__ import annotations

import functools
import hashlib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from os import lstat
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from ...errors import GlobalStateError, StoreUnavailableError, UnsupportedOperationError
from ...system import forks
from ...system.holding import Hold
from ...system.locks import Guard
from ...values import keys as keys_module
from .dbm_import import BESIDE, files_beside, import_other_kind, remove_imported
from .file import NoShelf, Options, Shelf
from .schema import NotAShelf

CONNECTIONS_KEPT = 64
LONGEST_FILE_NAME = 150
UNSAFE = re.compile(rb"[^A-Za-z0-9_.-]")
#: what would hide a file, or make it look like a part of another shelf
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
    """For a ``with`` statement: a connection to a shelf, used by this thread alone.

    :param path: the file.
    :param create: whether to make it if it is missing.
    """

    def __init__(self, shelves: Shelves, path: str, *, create: bool = False) -> None:
        self.path = path
        self.create = create
        self.shelf: Shelf | None = None
        #: which file it was, and how often connections were closed, when this one was taken
        self.place: Place | None = None
        self.closings = 0
        self._shelves = shelves

    def enter(self) -> Any:
        return self._shelves.take(self)

    def leave(self, error: BaseException | None) -> None:
        self._shelves.give_back(self, error)


class NamedConnection(Connection):
    """The same for the file of a name. No error of SQLite leaves the statement."""

    def __init__(self, shelves: Shelves, path: str, name: str, *, create: bool) -> None:
        super().__init__(shelves, path, create=create)
        self._name = name

    def enter(self) -> Any:
        shelf = super().enter()
        # One that is not ours yet: its writer was killed before the first commit.
        return shelf if shelf.is_ours or self.create else NoShelf()

    def leave(self, error: BaseException | None) -> None:
        try:
            if error is None and self.shelf is not None:
                self._shelves.learn(self._name, self.shelf)
        except BaseException as failure:
            error = failure
            raise
        finally:
            super().leave(error)
            if error is not None:
                reraise(self.path, error)


class Shelves:
    """Connections to the shelves of a folder, each used by one thread at a time.

    No call of a user's code, and no wait for another process's turn, while a connection is in use: a fork
    waits until none is.

    :param folder: where the files are.
    :param options: how they are opened.
    :param turn: keeps other writers out.
    :param take_over: called with a name and its file, in a turn, when another program has written to it.
    """

    #: see `forks.Holder`
    waits = False

    def __init__(
        self,
        folder: Path,
        options: Options,
        turn: Callable[[], AbstractContextManager[None]],
        take_over: Callable[[str, str], None],
    ) -> None:
        self.options = options
        self._folder = folder
        self._turn = turn
        self._take_over = take_over
        self._make_lock()
        self._is_held = False
        self._idle: dict[str, list[Shelf]] = {}
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
        found |= {file.removesuffix(suffix) for file in found for suffix in BESIDE}
        for file in sorted(found):
            with suppress(NotAShelfError):
                name = self._name_of(file)
                if name is None or file_name(name) != file:
                    continue
                with self.open(name, as_it_is=as_it_is) as shelf:
                    is_live = shelf.head().live
                if is_live:
                    yield name

    def _name_of(self, file: str) -> str | None:
        """The name that a file is called after."""
        if "%-" in file:
            return self._name_in(file)
        try:
            return keys_module.from_bytes(unquote_to_bytes(file))
        except UnicodeError:
            return None

    def _name_in(self, file: str) -> str | None:
        """The name that stands in a file, where it is too long for the name of the file."""
        path = str(self._folder / file)
        with errors(path), self.connection(path) as shelf:
            own = shelf.name()
        return None if own is None else keys_module.from_bytes(own)

    # --- connections ----------------------------------------------------------------------------

    def open(
        self, name: str, *, create: bool = False, has_turn: bool = False, as_it_is: bool = False
    ) -> AbstractContextManager[Any]:
        """A connection to the file of a name for a ``with`` statement, or `NoShelf` if there is none.

        :param create: whether to make it; the caller keeps others out meanwhile.
        :param has_turn: whether the caller does so.
        :param as_it_is: take nothing over that other programs have written, which would be a commit.
        """
        path = f"{self._folder}/{file_name(name)}"
        with errors(path):
            if path not in self._places and not as_it_is:
                self._get_ready(name, path, has_turn)
            if create or path in self._places or _place(path):
                return NamedConnection(self, path, name, create=create)
        return nullcontext(NoShelf())

    def learn(self, name: str, shelf: Shelf) -> None:
        """From now on the file of a name may not become another one; called after each use of it."""
        if shelf.path not in self._places and not shelf.has_foreign():
            self._add(name, shelf)

    def _get_ready(self, name: str, path: str, has_turn: bool) -> None:
        """Import or take over what other programs have written; once in each process."""
        beside = files_beside(path)
        try:
            with self.connection(path) as shelf:
                if not (beside or shelf.has_foreign()):
                    return self._add(name, shelf)
        except FileNotFoundError:
            if not beside:
                return None
        except NotAShelf:
            pass
        with nullcontext() if has_turn else self._turn():
            self._import(path)
            if _place(path) is None:
                return None
            self._take_over(name, path)
            with self.connection(path) as shelf:
                if not shelf.has_foreign():
                    self._add(name, shelf)
        return None

    def _add(self, name: str, shelf: Shelf) -> None:
        if not shelf.is_ours:
            return
        if shelf.name() != keys_module.to_bytes(name):
            raise NotAShelfError(
                f"{shelf.path} is the file of another name; file names here may be the same in upper and "
                f"lower case. Rename the global {name!r}, or the file if it was copied"
            )
        self._places[shelf.path] = shelf.place

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

    def take(self, connection: Connection) -> Shelf:
        """What it is to use: an idle one if there is one."""
        path = connection.path
        connection.closings = self._closings
        self._take_idle(connection)
        connection.place = self._places.get(path)
        if connection.place is not None and connection.place != _place(path):
            raise StoreUnavailableError(
                f"{path} was removed or replaced while it was in use; what was in it is lost. Restart "
                "the application to begin with what is there now"
            )
        if connection.shelf is None:
            connection.shelf = Shelf(path, self.options, create=connection.create)
        return connection.shelf

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
            connection.shelf = idle.pop() if idle else None
            if idle:
                self._idle[path] = idle

    def give_back(self, connection: Connection, error: BaseException | None) -> None:
        """Keep it for the next use, or close it; nothing is done the second time.

        :param error: what has ended its use.
        """
        if connection not in self._in_use:
            return
        shelf = connection.shelf
        if shelf is not None and not self._is_good(connection, shelf, error):
            # Before it is forgotten: it may be in the middle of a transaction, which keeps others out.
            shelf.close()
            connection.shelf = None
        for superfluous in self._keep(connection):
            superfluous.close()
        with self._guard():
            self._in_use.discard(connection)
            if self._is_held:
                self._changed.notify_all()

    def _is_good(self, connection: Connection, shelf: Shelf, error: BaseException | None) -> bool:
        if connection.closings != self._closings or not shelf.is_ours or shelf.is_in_transaction():
            return False
        if isinstance(error, (GlobalStateError, TypeError)):
            # The caller's own.
            return connection.place == _place(shelf.path)
        return error is None

    def _keep(self, connection: Connection) -> list[Shelf]:
        """Put its shelf among the idle ones; those that are too many."""
        with self._guard():
            # Forgotten first: if this is interrupted, it is among the idle ones and stays open, or is gone.
            shelf, connection.shelf = connection.shelf, None
            if shelf is None:
                return []
            # Put in again at the end: the first is the one that has been idle for longest.
            self._idle[shelf.path] = [*self._idle.pop(shelf.path, []), shelf]
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
            for shelf in self._idle.popitem()[1]:
                shelf.close()

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


class NotAShelfError(StoreUnavailableError):
    """There is a file of something else where a shelf should be."""


@contextmanager
def errors(path: object) -> Iterator[None]:
    """The border that no error of SQLite or of the system crosses.

    :param path: what was being used.
    """
    try:
        yield
    except Exception as error:
        reraise(path, error)
        raise


def reraise(path: object, error: BaseException) -> None:
    """Raise our own error for one of SQLite or of the system, which happened in using ``path``."""
    if isinstance(error, GlobalStateError):
        return
    if isinstance(error, NotAShelf):
        raise NotAShelfError(f"{path} is not a shelf; move it away, or choose another STORE_PATH") from error
    if isinstance(error, (sqlite3.DataError, OverflowError)):
        raise UnsupportedOperationError(f"ShelveStore can't hold a value this large: {error}") from error
    if isinstance(error, (sqlite3.OperationalError, OSError)):
        raise StoreUnavailableError(
            f"{path} can't be used ({type(error).__name__}: {error}); check the permissions there, and that "
            "the disk is not full"
        ) from error
    if isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
        raise StoreUnavailableError(f"{path} is damaged ({error}); restore it from a backup") from error


def _place(path: str) -> Place | None:
    try:
        status = lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
