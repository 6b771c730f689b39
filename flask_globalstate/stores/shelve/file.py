"""One file, which holds a name, in the schema of `flask_globalstate.stores.shelve.schema`.

Nothing but SQLite opens this file while it may be in use: closing any descriptor of a file lets go of every
POSIX lock that the process has on it, and then another process takes the file for unused.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ...system.files import FILE_MODE, require_own_file
from ..base import DELETE, Entry
from .schema import (
    ALL_ENTRIES,
    ALL_KEYS,
    ONE_ENTRY,
    SCHEMA,
    Changed,
    Damaged,
    Head,
    NotAShelf,
    check_order,
    from_disk,
    is_key,
    require_known_format,
    statements,
    to_disk,
)

REMOVALS_KEPT = 1000
WAL = "WAL"
#: how the names of the files end in which SQLite keeps what is not yet in the file itself
BESIDE = ("-wal", "-shm", "-journal")


class Options(NamedTuple):
    """The options that files are opened with.

    :ivar synchronous: SQLite's setting of that name.
    :ivar journal: SQLite's ``journal_mode`` of the files that are made.
    :ivar timeout: seconds to wait for another process that is in the way.
    """

    synchronous: str
    journal: str
    timeout: float


class Reading:
    """For a ``with`` statement: all that is read in it is of one revision."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file

    def __enter__(self) -> Head:
        self._file.connection.execute("BEGIN")
        return self._file.head()

    def __exit__(self, *_: object) -> None:
        self._file.connection.execute("COMMIT")


class Writing:
    """For a ``with`` statement: what is written in it is there entirely, or not at all.

    Whoever gives back a connection that is in the middle of one closes it.
    """

    def __init__(self, file: OpenFile, name: bytes) -> None:
        self._file = file
        self._name = name

    def __enter__(self) -> Head:
        try:
            return self._file.begin(self._name)
        except BaseException:
            self._file.roll_back()
            raise

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if kind is None:
                self._file.commit()
        finally:
            self._file.roll_back()


class _Connection(sqlite3.Connection):
    """Is closed when nothing refers to it any more, for which Python 3.13 and later warn of plain ones."""

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # It could not be opened.
            self.close()


class OpenFile:
    """A file that is open: SQLite's connection to it, which one thread at a time may use.

    :param path: the file.
    :param create: whether to make the file if it is missing; the caller keeps others out meanwhile.
    :raises FileNotFoundError: if it is missing.
    :raises ConfigurationError: if a newer release has made it.
    :raises NotAShelf: if it is something else.
    :raises sqlite3.Error: if it can't be opened.
    """

    def __init__(self, path: str, options: Options, *, create: bool = False) -> None:
        self.path = path
        self._options = options
        before = _require_own_files(path)
        if before is None and not create:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self.connection = sqlite3.connect(
            f"{Path(path).as_uri()}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=options.timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
            factory=_Connection,
        )
        try:
            status = os.lstat(path)
            self.place = (status.st_dev, status.st_ino)
            if before is not None and self.place != (before.st_dev, before.st_ino):
                raise FileNotFoundError(errno.ENOENT, "it was replaced meanwhile", path)
            self.connection.execute(f"PRAGMA synchronous = {options.synchronous}")
            self.connection.execute("PRAGMA cell_size_check = ON")
            if options.journal != WAL:
                self.connection.execute(f"PRAGMA journal_mode = {options.journal}")
            self._find_tables()
            if status.st_mode & 0o077:
                os.chmod(path, FILE_MODE)  # Made just now, or by another program.
        except BaseException as error:
            self.connection.close()
            if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
                raise NotAShelf(str(error)) from error
            raise

    def _find_tables(self) -> None:
        tables = {name for (name,) in self.connection.execute("SELECT name FROM sqlite_master")}
        self.is_ours = "globalstate_delete" in tables
        #: whether nothing was ever written to it
        self.is_empty = not tables
        if "globalstate_format" in tables:
            require_known_format(self.connection, self.path)
        if tables and "Dict" not in tables:
            raise NotAShelf("it holds other tables than a shelf")
        if self.is_empty and os.stat(self.path).st_size not in (0, *self._page_size()):
            raise Damaged("the tables are lost")

    def _page_size(self) -> Any:
        return self.connection.execute("PRAGMA page_size").fetchone()

    def close(self) -> None:
        """Let go of the file; the last one to do so brings its log into it."""
        self.connection.close()

    # --- reading --------------------------------------------------------------------------------

    def head(self) -> Head:
        """The head of the name: its numbers, and whether it lives."""
        row = self.connection.execute("SELECT number, floor, created, live FROM globalstate_name").fetchone()
        if row is None or set(map(type, row)) != {int}:
            raise Damaged("the revision is lost")
        return Head(*row)

    def name(self) -> bytes | None:
        """The name that this file was made for, if it holds one."""
        if not self.is_ours:
            return None
        row = self.connection.execute("SELECT name FROM globalstate_name").fetchone()
        if row is None or type(row[0]) is not bytes:
            raise Damaged("the name is lost")
        return bytes(row[0])

    def fetch(self, keys: Sequence[bytes] | None) -> tuple[int, dict[bytes, Entry]]:
        """The number of the last commit, and the entries under ``keys``, or all in the order of creation."""
        if keys is not None and len(keys) == 1:
            number, entry = self.entry(keys[0])
            return number, {} if entry is None else {keys[0]: entry}
        with Reading(self) as head:
            if keys is not None:
                found = {key: self.entry(key)[1] for key in keys}
            else:
                found, places = {}, []
                for key, number, value, place in self.connection.execute(ALL_ENTRIES):
                    found[key] = self._entry(key, number, value)
                    places.append(place)
                check_order(places, head)
                self._check_keys(found)
            return head.number, {key: entry for key, entry in found.items() if entry is not None}

    def entry(self, key: bytes) -> tuple[int, Entry | None]:
        """The number of the last commit, and what is held under a key."""
        row = self.connection.execute(ONE_ENTRY, {"key": key}).fetchone()
        if row is None or type(row[0]) is not int:
            raise Damaged("the revision is lost")
        return row[0], self._entry(key, row[1], row[2])

    def _entry(self, key: bytes, number: Any, value: Any) -> Entry | None:
        if number is None and value is None:
            return None
        if type(key) is bytes and type(number) is int and type(value) is bytes:
            return Entry(from_disk(key, value), number)
        self._require_foreign(key)
        return None

    def number_of(self, key: bytes) -> int | None:
        """The number of the commit that last changed an entry, or None if there is none."""
        row = self.connection.execute("SELECT number FROM globalstate_entry WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def all_keys(self) -> tuple[int, list[bytes]]:
        """The number of the last commit, and every key in the order of creation."""
        with Reading(self) as head:
            rows = self.connection.execute(ALL_KEYS).fetchall()
            check_order([place for _, place in rows], head)
            keys = [_key(key) for key, _ in rows]
            foreign = self._check_keys(keys)
            return head.number, [key for key in keys if key not in foreign]

    def _check_keys(self, keys: Iterable[bytes]) -> set[bytes]:
        """The keys that another program has removed; every other one is in both tables."""
        own = set(keys)
        held = {key for (key,) in self.connection.execute("SELECT key FROM Dict")}
        for key in own ^ held:
            self._require_foreign(key)
        return own - held

    def _require_foreign(self, key: Any) -> None:
        """Raise `Damaged` for a key that is in one table only, unless that is another program's work."""
        if not self._is_foreign(key) and is_key(key):
            raise Damaged("a key is lost")

    def changes(self, since: int) -> Changed:
        """The keys changed and removed after a revision, with the number of the last commit that did."""
        head = self.head()
        if head.number == since:
            return Changed(head, {}, {})
        with Reading(self) as head:
            changed, removed = (
                {_key(key): number for key, number in self.connection.execute(query, (since,))}
                for query in (
                    "SELECT key, number FROM globalstate_entry WHERE number > ?",
                    "SELECT key, number FROM globalstate_gone WHERE number > ?",
                )
            )
            return Changed(head, changed, removed)

    # --- what another program has written ---------------------------------------------------------

    def has_foreign(self) -> bool:
        """Return whether another program has written here; a file that isn't ours yet is all foreign."""
        if not self.is_ours:
            return not self.is_empty
        return self.connection.execute("SELECT 1 FROM globalstate_foreign").fetchone() is not None

    def foreign_keys(self) -> list[Any]:
        """The keys that another program has written or removed, in the order in which it did."""
        query = "SELECT key FROM globalstate_foreign LEFT JOIN Dict USING (key) ORDER BY Dict.rowid"
        return [key for (key,) in self.connection.execute(query)]

    def foreign_value(self, key: Any) -> Any:
        """The value that another program has written under a key, or None if it has removed it."""
        row = self.connection.execute("SELECT value FROM Dict WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _is_foreign(self, key: bytes) -> bool:
        query = "SELECT 1 FROM globalstate_foreign WHERE key = ?"
        return self.connection.execute(query, (key,)).fetchone() is not None

    def forget_foreign(self, keys: Iterable[Any]) -> None:
        """Note that what another program had written under ``keys`` was taken over."""
        query = "DELETE FROM globalstate_foreign WHERE key = ?"
        self.connection.executemany(query, [(key,) for key in keys])

    # --- writing: the caller keeps other writers out ----------------------------------------------

    def writing(self, name: bytes) -> Writing:
        """For a ``with`` statement in which this is written to; it gives what is known of the name."""
        return Writing(self, name)

    def begin(self, name: bytes) -> Head:
        """Begin a transaction; the tables are made if they are missing."""
        execute = self.connection.execute
        if not self.is_ours:
            execute(f"PRAGMA journal_mode = {self._options.journal}")
        execute("BEGIN IMMEDIATE")
        if not self.is_ours:
            for statement in statements(SCHEMA):
                execute(statement)
            execute("INSERT INTO globalstate_name VALUES (?, 0, 0, 0, 0)", (name,))
        return self.head()

    def commit(self) -> None:
        """End the transaction."""
        self.connection.execute("COMMIT")
        self.is_ours = True

    def roll_back(self) -> None:
        """Take back what was written since `begin`, if it was not committed."""
        if self.is_in_transaction():
            self.connection.execute("ROLLBACK")

    def is_in_transaction(self) -> bool:
        """Return whether one was begun and not ended."""
        return self.connection.in_transaction

    def apply(self, head: Head, number: int, items: Iterable[tuple[bytes, Any]] | None) -> None:
        """Write or `DELETE` entries, or remove all for None, as the commit of that number."""
        if items is None:
            for table in ("globalstate_entry", "Dict", "globalstate_gone", "globalstate_foreign"):
                self.connection.execute(f"DELETE FROM {table}")
            return self._set_head(Head(number, number, head.created, 0))
        created, gone, written = head.created, [], []
        for key, data in items:
            if data is DELETE:
                gone.append(key)
            else:
                created += 1
                written.append((key, to_disk(key, data), number, created))
        # Removed first: a key that is in the batch twice is moved to the end.
        floor = self._remove(number, gone) or head.floor
        many = self.connection.executemany
        many(
            "INSERT INTO Dict VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(key, data) for key, data, *_ in written],
        )
        many(
            "INSERT INTO globalstate_entry VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET number = excluded.number",
            [(key, number, place) for key, _, number, place in written],
        )
        return self._set_head(Head(number, floor, created, 1))

    def _remove(self, number: int, gone: list[bytes]) -> int | None:
        """Remove entries; return how far the log reaches back then, if that changes."""
        execute = self.connection.execute
        for key in gone:
            # First, so that the trigger knows that it is we who remove it.
            if execute("DELETE FROM globalstate_entry WHERE key = ?", (key,)).rowcount:
                execute("DELETE FROM Dict WHERE key = ?", (key,))
                execute("INSERT OR REPLACE INTO globalstate_gone VALUES (?, ?)", (key, number))
        excess = gone and execute("SELECT count(*) FROM globalstate_gone").fetchone()[0] - REMOVALS_KEPT
        if not excess or excess < 0:
            return None
        query = "SELECT key, number FROM globalstate_gone ORDER BY number LIMIT ?"
        oldest = execute(query, (excess,)).fetchall()
        query = "DELETE FROM globalstate_gone WHERE key = ?"
        self.connection.executemany(query, [(key,) for key, _ in oldest])
        return int(oldest[-1][1])

    def _set_head(self, head: Head) -> None:
        self.connection.execute(
            "UPDATE globalstate_name SET number = ?, floor = ?, created = ?, live = ?", head
        )


def _require_own_files(path: str) -> os.stat_result | None:
    """The status of a file, or None if there is none. SQLite opens it and its logs by name.

    :raises ConfigurationError: if one is another user's, or no regular file.
    """
    for suffix in BESIDE:
        require_own_file(path + suffix)
    return require_own_file(path)


def _key(key: Any) -> bytes:
    if type(key) is not bytes:
        raise Damaged("a key is lost")
    return key
