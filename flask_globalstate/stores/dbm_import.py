"""Shelves of the dbm kinds that Python had before ``dbm.sqlite3``: recognised, and imported once.

The old files are kept beside the new one as a backup, which ``shelve.open`` opens under the name with
``.backup`` at its end.
"""

from __future__ import annotations

import dbm
import importlib
import logging
import os
import sqlite3
from contextlib import closing, suppress

from ..errors import MissingDependencyError, StoreUnavailableError
from .shelf import DICT, FILE_MODE, is_sqlite

logger = logging.getLogger("flask_globalstate")

#: of the files of each kind, how their names end
SUFFIXES = ("", ".dat", ".dir", ".bak", ".pag", ".db")


def is_other_kind(path: str) -> bool:
    """Whether there is a shelf at ``path`` that isn't a file of SQLite's.

    :raises StoreUnavailableError: if what is there is not a shelf at all.
    """
    if os.path.exists(path) and is_sqlite(path):
        return False
    kind = dbm.whichdb(path)
    if kind == "":
        raise StoreUnavailableError(f"{path} is not a shelf; move it away, or choose another STORE_PATH")
    return kind is not None


def import_other_kind(path: str) -> None:
    """Put a shelf in SQLite's layout in the place of the old one; the caller keeps others out.

    :raises MissingDependencyError: if this Python can't read the old one.
    """
    if not is_other_kind(path):
        return  # Another process was faster.
    kind = dbm.whichdb(path)
    assert kind
    count = _copy(path, kind, path + ".new")
    old = [path + suffix for suffix in SUFFIXES if os.path.exists(path + suffix)]
    for file in old:
        with suppress(FileExistsError):
            os.link(file, f"{path}.backup{file[len(path) :]}")
    os.replace(path + ".new", path)
    for file in old:
        if file != path:
            os.unlink(file)
    logger.warning("%s: imported %d entries from a shelf of %s, kept as %s.backup", path, count, kind, path)


def _copy(path: str, kind: str, new: str) -> int:
    try:
        module = importlib.import_module(kind)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is a shelf of {kind}, which this Python can't read: install its module (Debian: "
            "python3-gdbm for dbm.gnu), or open it once with a Python that has it"
        ) from error
    with suppress(FileNotFoundError):
        os.unlink(new)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    with closing(module.open(path, "r")) as source, closing(sqlite3.connect(new)) as target:
        target.execute(DICT)
        keys = list(source.keys())
        with target:
            target.executemany("INSERT INTO Dict VALUES (?, ?)", ((key, source[key]) for key in keys))
    return len(keys)
