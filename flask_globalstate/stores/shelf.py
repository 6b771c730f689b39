"""One shelf: a file that holds a name, in the layout of Python 3.13's ``dbm.sqlite3``.

``shelve.open`` of the standard library reads ``Dict``, where every value is a pickle; what we add to a
value stands after the pickle's end. The tables beside it are ours: when each entry was last changed and
when it was created, which keys were removed, and what another program has written meanwhile. Triggers
notice that: a bare pickle ends with its STOP opcode, and no value of ours does.
"""

from __future__ import annotations

import ctypes
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..envelope import INTEGER, UNSIGNED
from .base import DELETE, Entry

REMOVALS_KEPT = 1000
FILE_MODE = 0o600
HEADER = b"SQLite format 3\0"
#: as dbm.sqlite3 makes it
DICT = "CREATE TABLE IF NOT EXISTS Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)"
SCHEMA = f"""
{DICT};
CREATE TABLE globalstate_name
    (name BLOB, number INTEGER, floor INTEGER, created INTEGER, live INTEGER);
CREATE TABLE globalstate_entry (key BLOB PRIMARY KEY, number INTEGER, created INTEGER) WITHOUT ROWID;
CREATE INDEX globalstate_changed ON globalstate_entry (number);
CREATE TABLE globalstate_gone (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE INDEX globalstate_removed ON globalstate_gone (number);
CREATE TABLE globalstate_foreign (key BLOB PRIMARY KEY) WITHOUT ROWID;
INSERT INTO globalstate_foreign SELECT key FROM Dict;
CREATE TRIGGER globalstate_insert AFTER INSERT ON Dict WHEN substr(NEW.value, -1) = x'2e'
    BEGIN INSERT OR IGNORE INTO globalstate_foreign VALUES (NEW.key); END;
CREATE TRIGGER globalstate_update AFTER UPDATE ON Dict WHEN substr(NEW.value, -1) = x'2e'
    BEGIN INSERT OR IGNORE INTO globalstate_foreign VALUES (NEW.key); END;
CREATE TRIGGER globalstate_delete AFTER DELETE ON Dict
    WHEN EXISTS (SELECT 1 FROM globalstate_entry WHERE key = OLD.key)
    BEGIN INSERT OR IGNORE INTO globalstate_foreign VALUES (OLD.key); END;
"""
#: what increments are made on must be a pickle too: the LONG opcode, whose argument is a decimal
PICKLED_INTEGER = re.compile(rb"L(-?[0-9]+)L\n\.i")
CLEAR_INTEGER = re.compile(rb"(-?[0-9]+)i")
STOP = b"."


class Head(NamedTuple):
    """What a shelf knows of its name."""

    number: int
    floor: int
    created: int
    live: int


NEVER = Head(0, 0, 0, 0)


class NoShelf:
    """Stands for the file of a name that was never written."""

    @contextmanager
    def reading(self) -> Iterator[Head]:
        """As of a `Shelf`."""
        yield NEVER

    def head(self) -> Head:
        """As of a `Shelf`."""
        return NEVER

    def entries(self, keys: Iterable[bytes] | None) -> Iterator[tuple[bytes, Entry]]:
        """As of a `Shelf`."""
        return iter(())

    def number_of(self, key: bytes) -> int | None:
        """As of a `Shelf`."""
        return None

    def all_keys(self) -> list[bytes]:
        """As of a `Shelf`."""
        return []

    def changed(self, since: int) -> dict[bytes, int]:
        """As of a `Shelf`."""
        return {}

    removed = changed


class Shelf:
    """A connection to one shelf; one thread at a time may use it.

    :param path: the file.
    :param synchronous: SQLite's setting of that name.
    :param timeout: seconds to wait for another process that is in the way.
    :param create: whether to make the file if it is missing; the caller keeps others out meanwhile.
    :raises FileNotFoundError: if it is missing.
    :raises sqlite3.Error: if it can't be opened.
    """

    def __init__(self, path: str, synchronous: str, timeout: float, *, create: bool = False) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        descriptor = os.open(path, flags, FILE_MODE)
        status = os.fstat(descriptor)
        if status.st_mode & 0o077:
            os.fchmod(descriptor, FILE_MODE)  # Another program has made it.
        os.close(descriptor)
        self._place = _place(status)
        self.path = path
        self.connection = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        self.connection.execute(f"PRAGMA synchronous = {synchronous}")
        self.is_ours = self._find_tables()

    def _find_tables(self) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE name = 'globalstate_delete'"
        return self.connection.execute(query).fetchone() is not None

    def is_in_place(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            return _place(os.stat(self.path)) == self._place
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go of the file; the last one to do so brings its log into it."""
        self.connection.close()

    def abandon(self) -> None:
        """Never close it: in a forked child that would let go of locks that it doesn't hold."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connection))

    # --- reading --------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Head]:
        """All that is read meanwhile is of one revision."""
        execute = self.connection.execute
        execute("BEGIN")
        try:
            yield self.head()
        finally:
            execute("COMMIT")

    def head(self) -> Head:
        """What is known of the name."""
        row = self.connection.execute("SELECT number, floor, created, live FROM globalstate_name").fetchone()
        return Head(*row)

    def name(self) -> bytes | None:
        """The name that this shelf was made for, if it holds one."""
        if not self.is_ours:
            return None
        row = self.connection.execute("SELECT name FROM globalstate_name").fetchone()
        return bytes(row[0])

    def entries(self, keys: Iterable[bytes] | None) -> Iterator[tuple[bytes, Entry]]:
        """The entries under ``keys``, or all in the order of creation."""
        query = "SELECT key, value, number FROM globalstate_entry JOIN Dict USING (key) "
        execute = self.connection.execute
        rows: Iterable[tuple[bytes, bytes, int]]
        if keys is None:
            rows = execute(query + "ORDER BY created")
        else:
            rows = (row for key in keys for row in execute(query + "WHERE key = ?", (key,)))
        for key, value, number in rows:
            yield key, Entry(_from_disk(value), number)

    def number_of(self, key: bytes) -> int | None:
        """The number of the commit that last changed an entry, or None if there is none."""
        row = self.connection.execute("SELECT number FROM globalstate_entry WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def all_keys(self) -> list[bytes]:
        """Every key in the order of creation."""
        rows = self.connection.execute("SELECT key FROM globalstate_entry ORDER BY created")
        return [key for (key,) in rows]

    def changed(self, since: int) -> dict[bytes, int]:
        """The keys written after a revision, with the number of the last commit that did."""
        query = "SELECT key, number FROM globalstate_entry WHERE number > ?"
        return dict(self.connection.execute(query, (since,)))

    def removed(self, since: int) -> dict[bytes, int]:
        """The keys removed after a revision, also those written again."""
        query = "SELECT key, number FROM globalstate_gone WHERE number > ?"
        return dict(self.connection.execute(query, (since,)))

    def has_foreign(self) -> bool:
        """Whether another program has written here; a file that isn't ours yet is all foreign."""
        query = "SELECT 1 FROM globalstate_foreign" if self.is_ours else "SELECT 1 FROM sqlite_master"
        return self.connection.execute(query).fetchone() is not None

    def foreign(self) -> list[tuple[bytes, bytes | None]]:
        """What another program has written, and None where it has removed an entry."""
        query = "SELECT key, value FROM globalstate_foreign LEFT JOIN Dict USING (key) ORDER BY Dict.rowid"
        return self.connection.execute(query).fetchall()

    # --- writing: the caller keeps other writers out ----------------------------------------------

    @contextmanager
    def writing(self, name: bytes) -> Iterator[None]:
        """What is written meanwhile is there entirely, or not at all."""
        execute = self.connection.execute
        if not self.is_ours:
            execute("PRAGMA journal_mode = WAL")
        execute("BEGIN IMMEDIATE")
        try:
            if not self.is_ours:
                for statement in sqlite_statements(SCHEMA):
                    execute(statement)
                execute("INSERT INTO globalstate_name VALUES (?, 0, 0, 0, 0)", (name,))
                self.is_ours = True
            yield
            execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                execute("ROLLBACK")
            self.is_ours = self._find_tables()
            raise

    def apply(self, number: int, items: Iterable[tuple[bytes, Any]]) -> None:
        """Write or `DELETE` entries, as the commit of that number."""
        head = self.head()
        created, gone, written = head.created, [], []
        for key, data in items:
            if data is DELETE:
                gone.append(key)
            else:
                created += 1
                written.append((key, _to_disk(data), number, created))
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
        floor = self._remove(number, gone, head.floor)
        self._set_head(Head(number, floor, created, 1))

    def _remove(self, number: int, gone: list[bytes], floor: int) -> int:
        """Remove entries; how far the log reaches back then."""
        execute = self.connection.execute
        for key in gone:
            # First, so that the trigger knows that it is we who remove it.
            if execute("DELETE FROM globalstate_entry WHERE key = ?", (key,)).rowcount:
                execute("DELETE FROM Dict WHERE key = ?", (key,))
                execute("INSERT OR REPLACE INTO globalstate_gone VALUES (?, ?)", (key, number))
        if gone:
            excess = execute("SELECT count(*) FROM globalstate_gone").fetchone()[0] - REMOVALS_KEPT
            if excess > 0:
                oldest = execute(
                    "SELECT key, number FROM globalstate_gone ORDER BY number LIMIT ?", (excess,)
                ).fetchall()
                floor = oldest[-1][1]
                self.connection.executemany(
                    "DELETE FROM globalstate_gone WHERE key = ?", [(key,) for key, _ in oldest]
                )
        return floor

    def drop(self, number: int) -> None:
        """Remove every entry and the log, as the commit of that number."""
        created = self.head().created
        for table in ("globalstate_entry", "Dict", "globalstate_gone", "globalstate_foreign"):
            self.connection.execute(f"DELETE FROM {table}")
        self._set_head(Head(number, number, created, 0))

    def forget_foreign(self) -> None:
        """Note that what another program had written was taken over."""
        self.connection.execute("DELETE FROM globalstate_foreign")

    def _set_head(self, head: Head) -> None:
        self.connection.execute(
            "UPDATE globalstate_name SET number = ?, floor = ?, created = ?, live = ?", head
        )


def is_sqlite(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of SQLite's, or still empty."""
    with open(path, "rb") as file:
        return file.read(len(HEADER)) in (HEADER, b"")


def sqlite_statements(script: str) -> Iterator[str]:
    """The statements of a script; ``executescript`` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _to_disk(data: bytes) -> bytes:
    integer = CLEAR_INTEGER.fullmatch(data) if data[-1:] == INTEGER else None
    return b"L%bL\n.i" % integer[1] if integer else data


def _from_disk(data: bytes) -> bytes:
    if data[-1:] == STOP:
        return data + UNSIGNED  # Another program's, and not taken over.
    integer = PICKLED_INTEGER.fullmatch(data) if data[-1:] == INTEGER else None
    return integer[1] + INTEGER if integer else data
