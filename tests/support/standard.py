"""Programs that have the standard library alone, and the same files as a shelve store."""

from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

TIMEOUT = 240


def read_settings(path: Path, **settings: Any) -> dict[str, Any]:
    given = {"STORE_BACKEND": "shelve", "STORE_PATH": str(path), "STORE_SYNC": "read"}
    return {**given, "STORE_OPTIONS": {"timeout": TIMEOUT}, **settings}


class LikeTheStandardLibrary:
    """A shelf as Python 3.13 opens it, by the statements of its ``dbm.sqlite3``."""

    @staticmethod
    def connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rwc", uri=True, isolation_level=None)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE IF NOT EXISTS Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        return connection

    def read(self, path: Path) -> dict[str, Any]:
        """What ``dict(shelve.open(path))`` is."""
        with closing(self.connect(path)) as connection:
            found = {}
            for (key,) in connection.execute("SELECT key FROM Dict").fetchall():
                query = "SELECT value FROM Dict WHERE key = CAST(? AS BLOB)"
                found[key.decode()] = pickle.loads(connection.execute(query, (key,)).fetchone()[0])
            return found

    def write(self, path: Path, items: dict[str, Any], removed: tuple[str, ...] = ()) -> None:
        """Assign items and delete keys."""
        with closing(self.connect(path)) as connection:
            for key, value in items.items():
                connection.execute(
                    "REPLACE INTO Dict (key, value) VALUES (CAST(? AS BLOB), CAST(? AS BLOB))",
                    (key.encode(), pickle.dumps(value)),
                )
            for key in removed:
                query = "DELETE FROM Dict WHERE key = CAST(? AS BLOB)"
                assert connection.execute(query, (key.encode(),)).rowcount == 1


class TheStandardLibrary:
    """The same in a Python that has it."""

    def __init__(self, python: str) -> None:
        self._python = python

    def read(self, path: Path) -> dict[str, Any]:
        program = "import sys, shelve; print(dict(shelve.open(sys.argv[1])))"
        return eval(run([self._python, "-c", program, str(path)]))  # type: ignore[no-any-return]

    def write(self, path: Path, items: dict[str, Any], removed: tuple[str, ...] = ()) -> None:
        program = f"""
            import sys, shelve
            with shelve.open(sys.argv[1]) as shelf:
                shelf.update({items!r})
                for key in {removed!r}:
                    del shelf[key]
        """
        run([self._python, "-c", textwrap.dedent(program), str(path)])


def run(command: list[str], **environment: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python_with(module: str) -> str | None:
    """An interpreter that has a module."""
    pyenv = sorted(map(str, Path("~/.pyenv/versions").expanduser().glob("3.1[3-9]*/bin/python")))
    for python in [sys.executable, "/usr/bin/python3", *pyenv, "python3.13", "python3.14"]:
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([python, "-c", f"import {module}"], check=True, capture_output=True)
            return python
    return None


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
