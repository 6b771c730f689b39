"""The schema of a file: its tables, and how a value becomes a pickle that others can read.

The layout is that of Python 3.13's ``dbm.sqlite3``: ``shelve.open`` of the standard library reads ``Dict``,
where every value is a pickle; what we add to a value stands after the pickle's end. The tables beside it
are ours: when each entry was last changed and when it was created, which keys were removed, and what
another program has written meanwhile. Triggers notice that: a bare pickle ends with its STOP opcode, and no
value of ours does.

A value that bears no signature bears a checksum: SQLite has none, and a damaged value must not be taken for
another one.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

from ...values import keys
from ...values.envelope import INTEGER, SIGNED, UNSIGNED
from ..base import newer_format

#: of the files, and of what lies beside them; what bears no number is of the first
FORMAT = 1
#: as dbm.sqlite3 makes it
DICT = "CREATE TABLE IF NOT EXISTS Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)"
SCHEMA = f"""
{DICT};
CREATE TABLE globalstate_format (number INTEGER);
INSERT INTO globalstate_format VALUES ({FORMAT});
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
#: one statement is of one revision, and costs less than a transaction around several
ONE_ENTRY = """
SELECT head.number, entry.number, value FROM globalstate_name AS head
    LEFT JOIN globalstate_entry AS entry ON entry.key = :key LEFT JOIN Dict ON Dict.key = :key
"""
# Not joined: then entries are found by the index on their numbers, and what that has lost is missing.
ALL_ENTRIES = """
SELECT key, number, (SELECT value FROM Dict WHERE Dict.key = entry.key), created
    FROM globalstate_entry AS entry ORDER BY created
"""
ALL_KEYS = "SELECT key, created FROM globalstate_entry ORDER BY created"
#: what increments are made on must be a pickle too: the LONG opcode, whose argument is a decimal
PICKLED_INTEGER = re.compile(rb"L(-?[0-9]+)L\n\.i")
CLEAR_INTEGER = re.compile(rb"(-?[0-9]+)i")
STOP = b"."
CHECKSUM_SIZE = 8
#: can't be decoded, as what it stands for can't
DAMAGED = b""


class NotAShelf(sqlite3.DatabaseError):
    """Raised for a file that is none of SQLite's, or that another program uses for something else."""


class Damaged(sqlite3.DatabaseError):
    """Raised where the tables of a file contradict each other."""


class Head(NamedTuple):
    """The numbers of a name, as its file holds them."""

    number: int
    floor: int
    created: int
    live: int


class Changed(NamedTuple):
    """The keys that were changed and removed after a revision."""

    head: Head
    changed: dict[bytes, int]
    removed: dict[bytes, int]


def require_known_format(connection: sqlite3.Connection, path: str) -> None:
    """Return if a shelf that bears the number of its format is in one that this release knows.

    :raises ConfigurationError: if a newer release has made it.
    """
    row = connection.execute("SELECT number FROM globalstate_format").fetchone()
    if row is None or type(row[0]) is not int:
        raise Damaged("the number of its format is lost")
    if row[0] > FORMAT:
        raise newer_format(path, row[0], FORMAT)


def check_order(places: list[Any], head: Head) -> None:
    """Raise `Damaged` unless each entry of a shelf has a place of its own, and none is beyond the last.

    :param places: of all entries, in the order that SQLite gives them.
    """
    are_numbers = set(map(type, places)) <= {int}
    if not are_numbers or len(set(places)) < len(places) or places[-1:] > [head.created]:
        raise Damaged("the order of the keys is lost")


def statements(script: str) -> Iterator[str]:
    """The statements of a script; ``executescript`` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def is_key(key: Any) -> bool:
    """Return whether this is a key that ``shelve`` could have written."""
    return type(key) is bytes and not keys.from_bytes(key).startswith(keys.FOREIGN)


def to_disk(key: bytes, data: bytes) -> bytes:
    """Encode the data of a key for the table ``Dict``."""
    if data[-1:] == SIGNED:
        return data
    integer = CLEAR_INTEGER.fullmatch(data) if data[-1:] == INTEGER else None
    body = b"L%bL\n.i" % integer[1] if integer else data
    return body + _checksum(key, body)


def from_disk(key: bytes, data: bytes) -> bytes:
    """Decode it; what is damaged becomes something that can't be opened."""
    if data[-1:] == SIGNED:
        return data
    if data[-1:] == STOP:
        return data + UNSIGNED  # Another program's, and not taken over.
    body, checksum = data[:-CHECKSUM_SIZE], data[-CHECKSUM_SIZE:]
    if checksum != _checksum(key, body):
        return DAMAGED
    integer = PICKLED_INTEGER.fullmatch(body) if body[-1:] == INTEGER else None
    return integer[1] + INTEGER if integer else body


def _checksum(key: bytes, body: bytes) -> bytes:
    return b"%08x" % crc32(body, crc32(key))
