"""Stores as their authors would write them: D-Tale's contract, a mapping, durabledict's contract."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from flask_globalstate import DurableStore
from flask_globalstate.values import keys


class CustomStore:
    """D-Tale's own example: ``get`` knows no default, ``del`` of a missing key is nothing."""

    def __init__(self) -> None:
        self.data: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        return self.data.get(key)

    def clear(self) -> None:
        self.data.clear()

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[key] = value

    def __delitem__(self, key: Any) -> None:
        if key in self.data:
            del self.data[key]

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, key: Any) -> bool:
        return key in self.data

    def to_dict(self) -> dict[Any, Any]:
        return self.data


def create_custom_store(name: str) -> CustomStore:
    return CustomStore()


class Table:
    """One name in a SQLite file that several processes share."""

    def __init__(self, name: str, folder: str | Path) -> None:
        path = Path(folder) / f"{keys.to_bytes(name).hex()}.sqlite"
        self.rows = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        self.rows.execute("PRAGMA synchronous = OFF")
        self.rows.execute("CREATE TABLE IF NOT EXISTS items (key PRIMARY KEY, value)")

    def close(self) -> None:
        self.rows.close()

    __del__ = close


class SharedMapping(Table, MutableMapping[Any, Any]):
    """A mapping that several processes share, with the methods that a `MutableMapping` must have."""

    shared = True

    def __getitem__(self, key: Any) -> Any:
        for (value,) in self.rows.execute("SELECT value FROM items WHERE key = ?", self._text(key)):
            return pickle.loads(value)
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.rows.execute(
            "INSERT INTO items VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (*self._text(key), pickle.dumps(value)),
        )

    def __delitem__(self, key: Any) -> None:
        if not self.rows.execute("DELETE FROM items WHERE key = ?", self._text(key)).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        texts = self.rows.execute("SELECT key FROM items ORDER BY rowid").fetchall()
        return iter([keys.from_string(keys.from_bytes(text)) for (text,) in texts])

    def __len__(self) -> int:
        return int(self.rows.execute("SELECT count(*) FROM items").fetchone()[0])

    def _text(self, key: Any) -> tuple[bytes]:
        return (keys.to_bytes(keys.to_string(key)),)


class FileStore(Table, DurableStore):
    """durabledict's four methods, over a SQLite file that several processes share."""

    def __init__(self, name: str, folder: str | Path) -> None:
        super().__init__(name, folder)
        self.rows.execute("CREATE TABLE IF NOT EXISTS writes (number)")

    def persist(self, key: str, value: bytes) -> None:
        self._write(
            "INSERT INTO items VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            keys.to_bytes(key),
            value,
        )

    def depersist(self, key: str) -> None:
        self._write("DELETE FROM items WHERE key = ?", keys.to_bytes(key))

    def durables(self) -> dict[str, bytes]:
        found = self.rows.execute("SELECT key, value FROM items ORDER BY rowid").fetchall()
        return {keys.from_bytes(key): value for key, value in found}

    def last_updated(self) -> int:
        return int(self.rows.execute("SELECT max(rowid) FROM writes").fetchone()[0] or 0)

    def _write(self, statement: str, key: bytes, *value: Any) -> Any:
        """What was there before."""
        with self.rows:
            self.rows.execute("BEGIN IMMEDIATE")
            found = self.rows.execute("SELECT value FROM items WHERE key = ?", [key]).fetchone()
            self.rows.execute(statement, (key, *value))
            self.rows.execute("INSERT INTO writes VALUES (1)")
        return found


class AtomicFileStore(FileStore):
    """With the two optional methods."""

    def _setdefault(self, key: str, value: bytes) -> Any:
        insert = "INSERT INTO items VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
        found = self._write(insert, keys.to_bytes(key), value)
        return found[0] if found else value

    def _pop(self, key: str, default: Any = None) -> Any:
        found = self._write("DELETE FROM items WHERE key = ?", keys.to_bytes(key))
        return found[0] if found else default
