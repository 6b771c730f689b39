"""A store in files of a directory: nothing runs beside the application, and values stay on disk until read.

Each name is a file of its own, which ``shelve.open`` of Python 3.13 reads (see
`flask_globalstate.stores.shelve.schema`). What is ours alone is in the hidden folder beside them::

    .globalstate/store        the epoch, the id of the seqcount, and the number of the last commit
    .globalstate/commit.lock  held by whoever commits: writers take turns
    .globalstate/redo         a commit over several names that is under way

SQLite makes the commit of one file atomic. A commit over several is written to ``redo`` first, and then
to each file. Whoever finds a redo file without its writer finishes it, before anything else is read or
written: so that it is there entirely or not at all, whenever its writer was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ...errors import ConfigurationError, DecodingError, ReentryError, StoreUnavailableError
from ...system import forks
from ...system.directory import INTERNAL, LEASE, Directory, Lease, require_seconds, write_in_one_step
from ...system.files import read_own, require_own_file, require_own_tree
from ...system.locks import ThreadLock
from ...system.seqcount import Seqcount, open_seqcount
from ...system.seqcount_file import FILE, LOCKS, bucket_of
from ...system.seqcount_file import make as make_seqcount
from ...values import keys as keys_module
from ...values.revision import Revision
from ..base import Changes, Expected, Fetched, Store, Write, require_revision, user_key
from .connections import Shelves, errors, file_name
from .file import WAL, NoShelf, Options, Shelf
from .foreign import take_over
from .header import Ledger
from .lock import Turns
from .redo import Condition, Items, Plan, conditions_of, decode, encode, plan_of
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
        self._ledger = Ledger(self._internal.path / "store")
        self._lease = Lease(self._internal, timeout)
        self._turns = Turns(self._internal.path / "commit.lock", timeout, self._prepare, self._finish)
        self._turn = self._turns.turn
        self._shelves = Shelves(own, Options(synchronous, WAL, timeout), self._turn, self._take_over)
        #: what the store says of the seqcount, once it was asked; there may be none
        self._seqcount_id: str | None = None
        self._seqcount: Seqcount | None = None
        self._lock = ThreadLock()
        forks.renew_after_fork(self)

    # --- life -----------------------------------------------------------------------------------

    @property
    def host_local(self) -> bool:  # type: ignore[override]
        return self._seqcount_id is None or self._seqcount is not None

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
        with self._turns.none(), self._lock():
            self._shelves.close()
            if self._seqcount is not None:
                self._seqcount.close()
            self._ledger.close()
            self._lease.drop()

    def after_fork(self) -> None:
        """Leave the parent's connections, slot and lease to the parent."""
        self._turns.after_fork()
        self._ledger.close()
        self._shelves.after_fork()
        if self._seqcount is not None:
            self._seqcount.after_fork()
        self._lease.after_fork()

    def _prepare(self) -> None:
        """What every call needs: the directory as it was, our lease of it, its seqcount, its number."""
        forks.notice_fork()
        if self._ledger.is_open:
            self._lease.check_place()
            return
        with self._lock(), errors(self._folder.path):
            if self._ledger.is_open:
                return
            self._lease.check_place()
            for directory in (self._root, self._folder, self._internal):
                directory.open()
            require_own_file(self._internal.path / FILE)
            require_own_tree(self._internal.path / LOCKS)
            with self._internal.locked("start.lock", self._timeout):
                if self._nobody_is_here():
                    self._ledger.make(make_seqcount(self._internal.path))
                self._lease.take()
            try:
                self._ledger.read()
                self._use_seqcount(self._ledger.identity)
                self._ledger.open()
            except BaseException:
                # Else nobody could begin anew what is damaged.
                self._lease.drop()
                raise

    def _nobody_is_here(self) -> bool:
        """Whether no process has a lease; none can take one while we hold the start lock."""
        try:
            self._internal.lock(LEASE, fcntl.LOCK_EX, 0).close()
        except StoreUnavailableError:
            return False
        return True

    def _use_seqcount(self, identity: str) -> None:
        path = self._internal.path
        if self._seqcount_id is None:
            self._seqcount = open_seqcount(path, identity, self._timeout)
            self._seqcount_id = identity
            if self._seqcount is None:
                # Both take the processes that use a file to share memory.
                self._shelves.options = self._shelves.options._replace(journal="DELETE")
                logger.warning("%s is on a network file system: each sync reads files there", path.parent)
        if self._seqcount_id != identity:
            raise StoreUnavailableError(
                f"the seqcount file of {path} was made anew while this process had the older one; restart "
                "the application"
            )

    # --- reading --------------------------------------------------------------------------------

    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        wanted = None if keys is None else [_bytes(key) for key in keys]

        def read(shelf: Shelf | NoShelf) -> Fetched:
            number, entries = shelf.fetch(wanted)
            return Fetched(self._revision(number), {_text(key): entry for key, entry in entries.items()})

        return self._read(name, read)

    def keys(self, name: str) -> tuple[Revision, list[str]]:
        def read(shelf: Shelf | NoShelf) -> tuple[Revision, list[str]]:
            number, keys = shelf.all_keys()
            return self._revision(number), [_text(key) for key in keys]

        return self._read(name, read)

    def changes(self, name: str, since: Revision) -> Changes:
        def read(shelf: Shelf | NoShelf) -> Changes:
            head, changed, removed = shelf.changes(since.number)
            if since.epoch != self._ledger.epoch or since.number < head.floor:
                return Changes(self._revision(head.number), {}, {}, reset=True)
            return Changes(self._revision(head.number), _texts(changed), _texts(removed))

        return self._read(name, read)

    def revision(self, name: str) -> Revision:
        return self._read(name, lambda shelf: self._revision(shelf.head().number))

    def names(self) -> list[str]:
        self._prepare()
        with errors(self._folder.path):
            return list(self._shelves.names())

    def _read(self, name: str, read: Callable[[Shelf | NoShelf], T]) -> T:
        self._prepare()
        with self._shelves.open(name) as shelf:
            answer = read(shelf)
        # Asked after reading: a commit of which this was a part is whole, or not to be seen yet.
        if not os.path.exists(self._redo):
            return answer
        with errors(self._folder.path), self._turn(), self._shelves.open(name, has_turn=True) as shelf:
            return read(shelf)

    def _revision(self, number: int) -> Revision:
        return Revision(self._ledger.epoch, number)

    # --- the seqcount ---------------------------------------------------------------------------

    def watch(self, name: str) -> memoryview | None:
        return None if self._seqcount is None else self._seqcount.row(bucket_of(_bytes(name)))

    def is_idle(self, name: str, row: memoryview) -> bool:
        if Seqcount.is_idle(row):
            return True
        assert self._seqcount is not None
        # By a signal handler in the middle of a turn: not idle, so that the files are read at each look.
        with contextlib.suppress(ReentryError):
            self._seqcount.settle(self._make_sure)
            for slot in self._seqcount.unfinished(bucket_of(_bytes(name))):
                self._seqcount.mend(slot, self._make_sure)
        return False

    def _make_sure(self, what: object) -> None:
        """A commit over one name ends with its connection; one over several is finished in a turn."""
        with errors(self._folder.path), self._turn():
            return

    def _counted(self, names: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """For a turn: readers see that something is under way, and when it is over."""
        if self._seqcount is None:
            return contextlib.nullcontext()
        # If a slot has to be claimed, its last owner has left nothing half done: it is our turn.
        return self._seqcount.commit([bucket_of(_bytes(name)) for name in names], lambda slot: None)

    # --- writing --------------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        plan, conditions = plan_of(writes), conditions_of(writes, names or {})
        self._prepare_to_write()
        with errors(self._folder.path), self._turn():
            if len(plan) == 1:
                ((name, items),) = plan.items()
                own = conditions.pop(name, [])
                for other in conditions:
                    self._verify(other, conditions[other])
                return self._commit_one(name, items, own)
            last = [self._verify(name, conditions.get(name, ())) for name in {**plan, **conditions}]
            if not plan:
                return self._revision(self._ledger.number())
            return self._commit_many(plan, max(last))

    def drop(self, name: str) -> Revision:
        self._prepare_to_write()
        with errors(self._folder.path), self._turn():
            return self._commit_one(name, None)

    def increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        self._prepare_to_write()
        with errors(self._folder.path), self._turn():
            return self._increment(name, key, amount)

    def _increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        raw = _bytes(key)
        with self._counted([name]), self._to_write(name) as shelf, shelf.writing(_bytes(name)) as head:
            _, entry = shelf.entry(raw)
            if entry is not None and entry.data == DAMAGED:
                raise DecodingError(f"key {user_key(key)!r} of {name!r} is damaged")
            value = amount + (0 if entry is None else self._read_integer(name, key, entry.data))
            number = self._ledger.count(head.number)
            shelf.apply(head, number, [(raw, self._integer_data(value))])
        return self._revision(number), value

    def _commit_one(self, name: str, items: Items | None, conditions: Sequence[Condition] = ()) -> Revision:
        with self._counted([name]), self._to_write(name) as shelf, shelf.writing(_bytes(name)) as head:
            self._require(name, shelf, head, conditions)
            number = self._ledger.count(head.number)
            shelf.apply(head, number, items)
        return self._revision(number)

    def _commit_many(self, plan: Plan, last: int) -> Revision:
        with self._counted(plan):
            number = self._ledger.count(last)
            write_in_one_step(self._redo, encode(number, plan), sync=self._is_synced)
            try:
                self._redo_all(number, plan)
            except BaseException:
                if not any(self._verify(name) >= number for name in plan):
                    self._redo.unlink()
                raise
        return self._revision(number)

    def _redo_all(self, number: int, plan: Plan) -> None:
        for name, items in plan.items():
            # Taking over what another program has written would be a commit after this one.
            with self._to_write(name, as_it_is=True) as shelf, shelf.writing(_bytes(name)) as head:
                # Else it was written before whoever began this was killed.
                if head.number < number:
                    shelf.apply(head, number, items)
        self._redo.unlink()

    def _finish(self) -> None:
        """Finish the commit of somebody who was killed."""
        if not os.path.exists(self._redo):
            return
        number, plan = decode(read_own(self._redo), self._redo)
        if not plan:
            logger.warning("%s: the last commit over several names was lost, with the power", self._redo)
        with self._counted(plan):
            self._redo_all(number, plan)

    def _to_write(self, name: str, *, as_it_is: bool = False) -> contextlib.AbstractContextManager[Shelf]:
        """For a turn: a connection to the file of a name, which is made if it is missing."""
        return self._shelves.open(name, create=True, has_turn=True, as_it_is=as_it_is)

    def _verify(self, name: str, conditions: Sequence[Condition] = ()) -> int:
        """The number of the last commit of a name that is as it is required."""
        with self._shelves.open(name, has_turn=True) as shelf:
            head: Head = shelf.head()
            self._require(name, shelf, head, conditions)
        return head.number

    def _require(self, name: str, shelf: Any, head: Head, conditions: Sequence[Condition]) -> None:
        for key, expected in conditions:
            found = (head.number or None) if key is None else shelf.number_of(_bytes(key))
            require_revision(name, key, expected, self._ledger.epoch, found)

    def _prepare_to_write(self) -> None:
        """What comes before a turn, since it may take one: a slot, and an end of what was left without."""
        if self._seqcount is None or self._seqcount.slot is None:
            self._prepare()
        if self._seqcount is not None:
            with errors(self._folder.path):
                if self._seqcount.slot is None:
                    self._seqcount.claim(self._make_sure)
                self._seqcount.settle(self._make_sure)

    def _take_over(self, name: str, path: str) -> None:
        """Seal what another program has written, as commits like any other."""
        if self.seal_foreign is not None:
            with self._counted([name]):
                take_over(name, path, self._shelves, self.seal_foreign, self._ledger.count)


def _check_options(synchronous: Any, cache_size: Any, timeout: Any) -> None:
    """:raises ConfigurationError: for an option that can't be used."""
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
