"""A store in files of a directory: nothing runs beside the application, and values stay on disk until read.

Each name is a file of its own, which ``shelve.open`` of Python 3.13 reads (see
`flask_globalstate.stores.shelve.schema`). What is ours alone is in the hidden folder beside them::

    .globalstate/format       a number; a store without one is of the first format
    .globalstate/store        the epoch, the id of the seqcount, and the number of the last commit
    .globalstate/commit.lock  the write lock, held by whoever commits
    .globalstate/redo         a commit over several names that is under way

SQLite makes the commit of one file atomic. A commit over several is written to ``redo`` first, and then
to each file. Whoever finds a redo file without its writer finishes it, before anything else is read or
written: so that it is there entirely or not at all, whenever its writer was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ...errors import ConfigurationError, DecodingError, ReentryError, StoreUnavailableError
from ...system import forks
from ...system.directory import INTERNAL, LEASE, Directory, Lease, require_seconds, write_in_one_step
from ...system.files import read_own, require_own_file, require_own_tree
from ...system.locks import ThreadLock
from ...system.seqcount_file import FILE, LOCKS
from ...system.seqcount_file import make as make_seqcount
from ...values import keys as keys_module
from ...values.revision import Revision
from ..base import Changes, Expected, Fetched, Store, Write, require_revision, user_key
from ..commit_watch import CommitWatch
from .absent import NoFile
from .connections import Connections, file_name
from .errors import errors
from .file import WAL, OpenFile, Options
from .foreign import take_over
from .header import Header
from .lock import Acquisition, WriteLock
from .redo import Batch, Condition, Items, batch_of, conditions_of, decode, encode
from .schema import DAMAGED, Head

logger = logging.getLogger("flask_globalstate")

T = TypeVar("T")

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
SYNCED = ("FULL", "EXTRA")


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
    spectator: ClassVar[str | None] = "flask_globalstate.stores.shelve.spectator:ShelveSpectator"
    #: seals a bare pickle that another program has put under a key, given name, key and pickle
    seal_foreign: Callable[[str, str, bytes], bytes] | None = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        state_id: str = "default",
        synchronous: str = "NORMAL",
        cache_size: int | None = 1000,
        timeout: float = 20.0,
    ) -> None:
        _check_options(synchronous, cache_size, timeout)
        self.state_id = state_id
        self.cache_size = cache_size
        self._timeout = timeout
        self._is_synced = synchronous in SYNCED
        self._root = Directory(path)
        own = self._root.path if state_id == "default" else self._root.path / f"@{file_name(state_id)}"
        self._folder = Directory(own)
        self._internal = Directory(own / INTERNAL)
        self._redo = self._internal.path / "redo"
        self._has_redo = functools.partial(os.path.exists, os.fspath(self._redo))
        self._header = Header(self._internal.path / "store")
        self._lease = Lease(self._internal, timeout)
        self._write_lock = WriteLock(
            self._internal.path / "commit.lock", timeout, self._prepare, self._finish
        )
        self._connections = Connections(
            own, Options(synchronous, WAL, timeout), self._write_lock, self._take_over
        )
        self._watch = CommitWatch(
            self._internal.path,
            timeout,
            get_ready=self._prepare,
            fence=self._await_writers,
            resolve=self._await_writers,
            is_exclusive=True,
        )
        self._lock = ThreadLock()
        forks.renew_after_fork(self)

    # --- life -----------------------------------------------------------------------------------

    @property
    def host_local(self) -> bool:  # type: ignore[override]
        return self._watch.is_possible

    def check(self) -> None:
        self._root.check()

    def ping(self) -> None:
        self._root.check()

    def open(self) -> None:
        self._prepare()

    def secret(self) -> bytes:
        self._prepare()
        with errors(self._internal.path):
            return self._internal.secret(self._timeout)

    def close(self) -> None:
        with self._write_lock.to_close(), self._lock():
            self._connections.close()
            self._watch.close()
            self._header.close()
            self._lease.drop()

    def after_fork(self) -> None:
        """Leave the parent's connections, slot and lease to the parent."""
        self._write_lock.after_fork()
        self._header.close()
        self._connections.after_fork()
        self._watch.after_fork()
        self._lease.after_fork()

    def _prepare(self) -> None:
        """Have what every call needs: the directory as it was, our lease of it, its seqcount, its header."""
        forks.notice_fork()
        if self._header.is_open:
            self._lease.check_place()
            return
        with self._lock(), errors(self._folder.path):
            if self._header.is_open:
                return
            self._lease.check_place()
            for directory in (self._root, self._folder, self._internal):
                directory.open()
            require_own_file(self._internal.path / FILE)
            require_own_tree(self._internal.path / LOCKS)
            with self._internal.locked("start.lock", self._timeout):
                self._header.require_known_format()
                if self._nobody_is_here():
                    self._header.make(make_seqcount(self._internal.path))
                self._lease.take()
            try:
                self._header.read()
                self._use_seqcount(self._header.identity)
                self._header.open()
            except BaseException:
                # Else nobody could begin anew what is damaged.
                self._lease.drop()
                raise

    def _nobody_is_here(self) -> bool:
        """Return whether no process has a lease; none can take one while we hold the start lock."""
        try:
            self._internal.lock(LEASE, fcntl.LOCK_EX, 0).close()
        except StoreUnavailableError:
            return False
        return True

    def _use_seqcount(self, identity: str) -> None:
        if self._watch.use(identity):
            # Both take the processes that use a file to share memory.
            self._connections.options = self._connections.options._replace(journal="DELETE")
            logger.warning(
                "%s is on a network file system: each sync reads files there", self._internal.path.parent
            )

    # --- reading --------------------------------------------------------------------------------

    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        wanted = None if keys is None else [_bytes(key) for key in keys]

        def read(file: OpenFile | NoFile) -> Fetched:
            number, entries = file.fetch(wanted)
            return Fetched(self._revision(number), {_text(key): entry for key, entry in entries.items()})

        return self._read(name, read)

    def keys(self, name: str) -> tuple[Revision, list[str]]:
        def read(file: OpenFile | NoFile) -> tuple[Revision, list[str]]:
            number, keys = file.all_keys()
            return self._revision(number), [_text(key) for key in keys]

        return self._read(name, read)

    def changes(self, name: str, since: Revision) -> Changes:
        def read(file: OpenFile | NoFile) -> Changes:
            head, changed, removed = file.changes(since.number)
            if since.epoch != self._header.epoch or since.number < head.floor:
                return Changes(self._revision(head.number), {}, {}, reset=True)
            return Changes(self._revision(head.number), _texts(changed), _texts(removed))

        return self._read(name, read)

    def revision(self, name: str) -> Revision:
        return self._read(name, lambda file: self._revision(file.head().number))

    def names(self) -> list[str]:
        self._prepare()
        with errors(self._folder.path):
            return list(self._connections.names())

    def _read(self, name: str, read: Callable[[OpenFile | NoFile], T]) -> T:
        self._prepare()
        with self._connections.open(name) as file:
            answer = read(file)
        # Asked after reading: a commit of which this was a part is whole, or not to be seen yet.
        if not self._has_redo():
            return answer
        with (
            errors(self._folder.path),
            self._write_lock(),
            self._connections.open(name, has_lock=True) as file,
        ):
            return read(file)

    def _revision(self, number: int) -> Revision:
        return Revision(self._header.epoch, number)

    # --- the seqcount ---------------------------------------------------------------------------

    def watch(self, name: str) -> memoryview | None:
        return self._watch.row(name)

    def is_idle(self, name: str, row: memoryview) -> bool:
        if self._watch.is_idle(row):
            return True
        # In a signal handler that interrupts a commit: not idle, so that the files are read at each look.
        with contextlib.suppress(ReentryError):
            self._watch.end_abandoned(name)
        return False

    def _await_writers(self, what: object) -> None:
        """Wait for the write lock: commits that were left have ended then, or are finished by taking it."""
        with errors(self._folder.path), self._write_lock():
            return

    # --- writing --------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        batch, conditions = batch_of(writes), conditions_of(writes, names or {})
        with errors(self._folder.path), self._writing():
            if len(batch) == 1:
                ((name, items),) = batch.items()
                own = conditions.pop(name, [])
                for other in conditions:
                    self._verify(other, conditions[other])
                return self._commit_one(name, items, own)
            last = [self._verify(name, conditions.get(name, ())) for name in {**batch, **conditions}]
            if not batch:
                return self._revision(self._header.number())
            return self._commit_many(batch, max(last))

    def drop(self, name: str) -> Revision:
        with errors(self._folder.path), self._writing():
            return self._commit_one(name, None)

    def increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        with errors(self._folder.path), self._writing():
            return self._increment(name, key, amount)

    def _increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        raw = _bytes(key)
        with self._watch.commit([name]), self._to_write(name) as file, file.writing(_bytes(name)) as head:
            _, entry = file.entry(raw)
            if entry is not None and entry.data == DAMAGED:
                raise DecodingError(f"key {user_key(key)!r} of {name!r} is damaged")
            value = amount + (0 if entry is None else self._read_integer(name, key, entry.data))
            number = self._header.count(head.number)
            file.apply(head, number, [(raw, self._integer_data(value))])
        return self._revision(number), value

    def _commit_one(self, name: str, items: Items | None, conditions: Sequence[Condition] = ()) -> Revision:
        with self._watch.commit([name]), self._to_write(name) as file, file.writing(_bytes(name)) as head:
            self._require(name, file, head, conditions)
            number = self._header.count(head.number)
            file.apply(head, number, items)
        return self._revision(number)

    def _commit_many(self, batch: Batch, last: int) -> Revision:
        with self._watch.commit(batch):
            number = self._header.count(last)
            write_in_one_step(self._redo, encode(number, batch), sync=self._is_synced)
            try:
                self._redo_all(number, batch)
            except BaseException:
                if not any(self._verify(name) >= number for name in batch):
                    self._redo.unlink()
                raise
        return self._revision(number)

    def _redo_all(self, number: int, batch: Batch) -> None:
        for name, items in batch.items():
            # Taking over what another program has written would be a commit after this one.
            with self._to_write(name, as_it_is=True) as file, file.writing(_bytes(name)) as head:
                # Else it was written before whoever began this was killed.
                if head.number < number:
                    file.apply(head, number, items)
        self._redo.unlink()

    def _finish(self) -> None:
        """Finish the commit of somebody who was killed."""
        if not self._has_redo():
            return
        number, batch = decode(read_own(self._redo), self._redo)
        if not batch:
            logger.warning("%s: the last commit over several names was lost, with the power", self._redo)
        with self._watch.commit(batch):
            self._redo_all(number, batch)

    def _to_write(self, name: str, *, as_it_is: bool = False) -> contextlib.AbstractContextManager[OpenFile]:
        """A connection to the file of a name for a writer, made if it is missing."""
        return self._connections.open(name, create=True, has_lock=True, as_it_is=as_it_is)

    def _verify(self, name: str, conditions: Sequence[Condition] = ()) -> int:
        """The number of the last commit of a name, if its conditions hold."""
        with self._connections.open(name, has_lock=True) as file:
            head: Head = file.head()
            self._require(name, file, head, conditions)
        return head.number

    def _require(self, name: str, file: Any, head: Head, conditions: Sequence[Condition]) -> None:
        for key, expected in conditions:
            found = (head.number or None) if key is None else file.number_of(_bytes(key))
            require_revision(name, key, expected, self._header.epoch, found)

    def _writing(self) -> Acquisition:
        """Give the write lock to hold; to claim a slot, or resolve what is in doubt, may take it before."""
        self._watch.prepare()
        return self._write_lock()

    def _take_over(self, name: str, path: str) -> None:
        """Seal what another program has written, as commits like any other."""
        if self.seal_foreign is not None:
            with self._watch.commit([name]):
                take_over(name, path, self._connections, self.seal_foreign, self._header.count)


def _check_options(synchronous: Any, cache_size: Any, timeout: Any) -> None:
    """Raise `ConfigurationError` for an option that can't be used."""
    if synchronous not in SYNCHRONOUS:
        allowed = ", ".join(SYNCHRONOUS)
        raise ConfigurationError(
            f"STORE_OPTIONS: synchronous is {synchronous!r}; it must be one of {allowed}"
        )
    if cache_size is not None and (type(cache_size) is not int or cache_size < 1):
        raise ConfigurationError(
            f"STORE_OPTIONS: cache_size is {cache_size!r}; it must be a number of values, at least 1, or None"
        )
    require_seconds("timeout", timeout, least=0.001)


_bytes = keys_module.to_bytes
_text = keys_module.from_bytes


def _texts(numbers: dict[bytes, int]) -> dict[str, int]:
    return {_text(key): number for key, number in numbers.items()}
