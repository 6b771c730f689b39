"""A store in files of a directory: nothing runs beside the application, and values stay on disk until read.

Each name is a file of its own, which ``shelve.open`` of Python 3.13 reads (see
`flask_globalstate.stores.shelf`). What is ours alone is in the hidden folder beside them::

    .globalstate/store        the epoch, the id of the seqcount, and the number of the last commit
    .globalstate/commit.lock  held by whoever commits: writers take turns
    .globalstate/redo         a commit over several names that is under way

SQLite makes the commit of one file atomic. A commit over several is written to ``redo`` first, and then
to each file. Whoever finds a redo file without its writer finishes it, before anything else is read or
written: so that it is there entirely or not at all, whenever its writer was killed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from .. import forks
from .. import keys as keys_module
from ..errors import ConfigurationError, GlobalStateError, StoreUnavailableError, UnsupportedOperationError
from ..forks import close_lock_file, open_lock_file
from ..revision import Revision
from ..seqcount import Seqcount, bucket_of
from ..seqcount import make as make_seqcount
from .base import (
    ABSENT,
    CHECK,
    DELETE,
    Changes,
    Expected,
    Fetched,
    Store,
    Write,
    require_revision,
)
from .directory import Directory, Lease, write_in_one_step
from .shelf import NoShelf, Shelf
from .shelves import Shelves, file_name

logger = logging.getLogger("flask_globalstate")

T = TypeVar("T")
#: what is written to a name: its entries, or None to drop it
Plan = dict[str, "list[tuple[bytes, Any]] | None"]

INTERNAL = ".globalstate"
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
SYNCED = ("FULL", "EXTRA")
SHORTEST_WAIT, LONGEST_WAIT = 0.00005, 0.002
STORE_LINE = re.compile(r"([0-9a-f]{16}) ([0-9a-f]{32}) ([0-9]{20})\n")
NUMBER_AT, NUMBER_SIZE = 50, 20


class ShelveStore(Store):
    """Files of a directory, shared by every process of this host and user.

    What was committed survives the end of any process. The store needs no package and runs no server.

    :param path: the directory; made with mode 0700 at first use.
    :param state_id: several states live side by side in one directory.
    :param synchronous: SQLite's setting: with ``NORMAL`` the last commits may be lost when the power
        fails, and the files stay whole; with ``FULL`` each commit is on the disk before it returns.
    :param cache_size: how many values of a name a worker keeps in memory; None for all that it has read.
    :param timeout: seconds to wait for another process that is in the way.
    """

    shared = True
    durable = True
    host_local = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        state_id: str = "default",
        synchronous: str = "NORMAL",
        cache_size: int | None = 1000,
        timeout: float = 20.0,
    ) -> None:
        if synchronous not in SYNCHRONOUS:
            raise ConfigurationError(
                f"STORE_OPTIONS: synchronous {synchronous!r} is not one of {', '.join(SYNCHRONOUS)}"
            )
        if cache_size is not None and (type(cache_size) is not int or cache_size < 1):
            raise ConfigurationError(f"STORE_OPTIONS: cache_size {cache_size!r} is not a number of values")
        self.state_id = state_id
        self.cache_size = cache_size
        self._timeout = timeout
        self._is_synced = synchronous in SYNCED
        self._root = Directory(path)
        own = self._root.path if state_id == "default" else self._root.path / f"@{file_name(state_id)}"
        self._folder = Directory(own)
        self._internal = Directory(own / INTERNAL)
        self._redo = self._internal.path / "redo"
        self._lease = Lease(self._internal, timeout)
        self._shelves = Shelves(own, synchronous, timeout, self._turn, self._take_over)
        self._seqcount: Seqcount | None = None
        self._epoch = ""
        self._begin()
        forks.renew_after_fork(self)

    def _begin(self) -> None:
        """What belongs to one process."""
        self._lock = threading.Lock()
        self._writer = threading.RLock()
        self._has_turn = False
        self._commit_lock: int | None = None
        self._numbers: int | None = None

    # --- life -----------------------------------------------------------------------------------

    def check(self) -> None:
        self._root.check()

    def ping(self) -> None:
        self._root.check()

    def open(self) -> None:
        self._prepare()

    def secret(self) -> bytes:
        self._prepare()
        return self._internal.secret(self._timeout)

    def close(self) -> None:
        with self._lock:
            self._shelves.close()
            if self._seqcount is not None:
                self._seqcount.close()
            if self._commit_lock is not None:
                close_lock_file(self._commit_lock)
            if self._numbers is not None:
                os.close(self._numbers)
            self._commit_lock = self._numbers = None
            self._lease.drop()

    def after_fork(self) -> None:
        """Leave the parent's connections, slot and lease to the parent."""
        if self._numbers is not None:
            os.close(self._numbers)
        self._begin()
        self._shelves.after_fork()
        if self._seqcount is not None:
            self._seqcount.after_fork()
        self._lease.after_fork()

    def _prepare(self) -> None:
        """What every call needs: the directory as it was, our lease of it, its seqcount, its number."""
        forks.notice_fork()
        if self._numbers is not None:
            self._lease.check_place()
            return
        with self._lock, self._errors():
            if self._numbers is not None:
                return
            for directory in (self._root, self._folder, self._internal):
                os.close(directory.open())
            with self._internal.locked("start.lock", self._timeout):
                identity = self._read_store()
                self._lease.take()
            if self._seqcount is None or self._seqcount.identity != identity:
                self._seqcount = Seqcount(self._internal.path, identity)
            self._commit_lock = open_lock_file(self._internal.path / "commit.lock")
            self._numbers = os.open(self._internal.path / "store", os.O_RDWR | os.O_CLOEXEC)

    def _read_store(self) -> str:
        """The id of the seqcount; it is made by whoever comes first, and the store with it."""
        path = self._internal.path / "store"
        try:
            text = path.read_text()
        except FileNotFoundError:
            text = f"{secrets.token_hex(8)} {'0' * 32} {0:020d}\n"
        line = STORE_LINE.fullmatch(text)
        if line is None:
            raise StoreUnavailableError(
                f"{path} is damaged; stop every process that uses it, and remove that file"
            )
        self._epoch, identity, number = line.groups()
        if self._nobody_is_here():
            identity = make_seqcount(self._internal.path)
            write_in_one_step(path, f"{self._epoch} {identity} {number}\n".encode())
        return identity

    def _nobody_is_here(self) -> bool:
        """Whether no process has a lease; none can take one while we hold the start lock."""
        try:
            close_lock_file(self._internal.lock("lease", fcntl.LOCK_EX, 0))
        except StoreUnavailableError:
            return False
        return True

    # --- reading --------------------------------------------------------------------------------

    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        wanted = None if keys is None else [_bytes(key) for key in keys]

        def read(shelf: Shelf | NoShelf) -> Fetched:
            with shelf.reading() as head:
                entries = {_text(key): entry for key, entry in shelf.entries(wanted)}
                return Fetched(Revision(self._epoch, head.number), entries)

        return self._read(name, read)

    def keys(self, name: str) -> tuple[Revision, list[str]]:
        def read(shelf: Shelf | NoShelf) -> tuple[Revision, list[str]]:
            with shelf.reading() as head:
                return Revision(self._epoch, head.number), [_text(key) for key in shelf.all_keys()]

        return self._read(name, read)

    def changes(self, name: str, since: Revision) -> Changes:
        def read(shelf: Shelf | NoShelf) -> Changes:
            with shelf.reading() as head:
                revision = Revision(self._epoch, head.number)
                if since.epoch != self._epoch or since.number < head.floor:
                    return Changes(revision, {}, {}, reset=True)
                changed, removed = shelf.changed(since.number), shelf.removed(since.number)
                return Changes(revision, _texts(changed), _texts(removed))

        return self._read(name, read)

    def revision(self, name: str) -> Revision:
        return self._read(name, lambda shelf: Revision(self._epoch, shelf.head().number))

    def names(self) -> list[str]:
        self._prepare()
        with self._errors():
            return list(self._shelves.names())

    def _read(self, name: str, read: Callable[[Shelf | NoShelf], T]) -> T:
        self._prepare()
        with self._errors():
            while True:
                with self._shelves.open(name) as shelf:
                    answer = read(shelf)
                # Asked after reading: a commit of which this was a part is whole, or not to be seen yet.
                if not os.path.exists(self._redo):
                    return answer
                self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        with self._turn():
            return  # Whatever was under way is finished.

    # --- the seqcount ---------------------------------------------------------------------------

    def watch(self, name: str) -> memoryview | None:
        return None if self._seqcount is None else self._seqcount.row(bucket_of(_bytes(name)))

    def is_idle(self, name: str, row: memoryview) -> bool:
        if Seqcount.is_idle(row):
            return True
        assert self._seqcount is not None
        with self._errors():
            for slot in self._seqcount.unfinished(bucket_of(_bytes(name))):
                self._seqcount.mend(slot, self._make_sure)
        return False

    def _make_sure(self, slot: int) -> None:
        """A commit over one name ends with its process; one over several is finished by us."""
        self._wait_for_turn()

    @contextlib.contextmanager
    def _counted(self, names: Iterable[str]) -> Iterator[None]:
        """Readers see that something is under way, and when it is over."""
        assert self._seqcount is not None
        buckets = [bucket_of(_bytes(name)) for name in names]
        self._seqcount.begin(buckets, self._make_sure)
        try:
            yield
        finally:
            self._seqcount.end(buckets)

    # --- writing --------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        plan: Plan = {}
        for name, key, data, _ in writes:
            if data is not CHECK:
                plan.setdefault(name, []).append((_bytes(key), data))  # type: ignore[union-attr]
        with self._committing():
            self._verify(writes, names or {})
            return self._apply(plan)

    def drop(self, name: str) -> Revision:
        with self._committing():
            return self._apply({name: None})

    def increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        with self._committing():
            with self._shelves.open(name) as shelf:
                held = [entry.data for _, entry in shelf.entries([_bytes(key)])]
            value = amount + (self._read_integer(name, key, held[0]) if held else 0)
            return self._apply({name: [(_bytes(key), self._integer_data(value))]}), value

    def _verify(self, writes: Sequence[Write], names: Mapping[str, Expected]) -> None:
        for name, expected in names.items():
            with self._shelves.open(name) as shelf:
                require_revision(name, None, expected, self._epoch, shelf.head().number or None)
        for name, key, _, wanted in writes:
            if wanted is ABSENT or isinstance(wanted, Revision):
                with self._shelves.open(name) as shelf:
                    require_revision(name, key, wanted, self._epoch, shelf.number_of(_bytes(key)))

    def _apply(self, plan: Plan) -> Revision:
        if not plan:
            return Revision(self._epoch, self._number())
        with self._counted(plan):
            number = self._next_number(plan)
            if len(plan) > 1:
                write_in_one_step(self._redo, _as_redo(number, plan), sync=self._is_synced)
            self._write(number, plan)
        return Revision(self._epoch, number)

    def _write(self, number: int, plan: Plan) -> None:
        for name, items in plan.items():
            with self._shelves.open(name, create=True) as shelf:
                if shelf.is_ours and shelf.head().number >= number:
                    continue  # Written before whoever began this was killed.
                with shelf.writing(_bytes(name)):
                    shelf.drop(number) if items is None else shelf.apply(number, items)
        if len(plan) > 1:
            self._redo.unlink()

    def _take_over(self, name: str, shelf: Shelf) -> None:
        """Seal what another program has written, as a commit like any other."""
        if self.seal_foreign is None:
            return
        with self._counted([name]), shelf.writing(_bytes(name)):
            number = max(self._next_number([]), shelf.head().number + 1)
            items = [(key, self._sealed(name, key, value)) for key, value in shelf.foreign()]
            if not items:
                return
            shelf.apply(number, items)
            shelf.forget_foreign()
        logger.warning("%s: took over %d entries that another program has written", name, len(items))

    def _sealed(self, name: str, key: bytes, value: bytes | None) -> Any:
        if value is None:
            return DELETE
        assert self.seal_foreign is not None
        try:
            return self.seal_foreign(name, _text(key), value)
        except GlobalStateError as error:
            # Raised again when that key is read; the others are as good as they were.
            logger.warning("%s: an entry that another program wrote can't be read: %s", name, error)
            return value

    # --- turns ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _committing(self) -> Iterator[None]:
        self._prepare()
        with self._errors(), self._turn():
            yield

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else writes meanwhile, and nothing is left half written."""
        if not self._writer.acquire(timeout=self._timeout):
            raise self._busy()
        try:
            if self._has_turn:
                yield
                return
            self._lock_out_others()
            self._has_turn = True
            try:
                self._finish()
                yield
            finally:
                self._has_turn = False
                assert self._commit_lock is not None
                fcntl.flock(self._commit_lock, fcntl.LOCK_UN)
        finally:
            self._writer.release()

    def _lock_out_others(self) -> None:
        assert self._commit_lock is not None
        deadline, wait = time.monotonic() + self._timeout, SHORTEST_WAIT
        while True:
            try:
                return fcntl.flock(self._commit_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._busy() from None
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _busy(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"a process has been writing to {self._folder.path} for more than {self._timeout:g} seconds; "
            "one that is stopped or hangs keeps the others out until it ends"
        )

    def _finish(self) -> None:
        """Finish the commit of somebody who was killed."""
        try:
            text = self._redo.read_bytes()
        except FileNotFoundError:
            return
        number, plan = _from_redo(text)
        with self._counted(plan):
            self._write(number, plan)

    def _number(self) -> int:
        assert self._numbers is not None
        return int(os.pread(self._numbers, NUMBER_SIZE, NUMBER_AT))

    def _next_number(self, names: Iterable[str]) -> int:
        """Count a commit; above all that these names have seen, should a copy have brought more."""
        found = self._number()
        for name in names:
            with self._shelves.open(name) as shelf:
                found = max(found, shelf.head().number)
        assert self._numbers is not None
        os.pwrite(self._numbers, b"%020d" % (found + 1), NUMBER_AT)
        return found + 1

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """The border that no error of SQLite or of the system crosses."""
        try:
            yield
        except GlobalStateError:
            raise
        except (sqlite3.DataError, OverflowError) as error:
            raise UnsupportedOperationError(f"ShelveStore can't hold a value this large: {error}") from error
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(
                f"ShelveStore at {self._folder.path} can't be used ({type(error).__name__}: {error}); "
                "check the permissions there, and that the disk is not full"
            ) from error


def _as_redo(number: int, plan: Plan) -> bytes:
    names = [
        [_bytes(name).hex(), [[key.hex(), _as_text(data)] for key, data in items or ()]]
        for name, items in plan.items()
    ]
    return json.dumps([number, names]).encode()


def _from_redo(text: bytes) -> tuple[int, Plan]:
    number, names = json.loads(text)
    return number, {
        _text(bytes.fromhex(name)): [(bytes.fromhex(key), _as_data(data)) for key, data in items]
        for name, items in names
    }


def _as_text(data: Any) -> str | None:
    return None if data is DELETE else base64.b64encode(data).decode()


def _as_data(text: str | None) -> Any:
    return DELETE if text is None else base64.b64decode(text)


_bytes = keys_module.to_bytes
_text = keys_module.from_bytes


def _texts(numbers: dict[bytes, int]) -> dict[str, int]:
    return {_text(key): number for key, number in numbers.items()}
