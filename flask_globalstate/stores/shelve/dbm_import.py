"""Shelves of the dbm kinds that Python had before ``dbm.sqlite3``: recognised, and imported once.

The old files are kept beside the new one as a backup, which ``shelve.open`` opens under the name with
``.backup`` at its end. The order of the steps is such that whoever is killed between two of them leaves
something that the next one can go on with: a copy, then the backup, then the new file in its place, then
the old files' names removed.
"""

from __future__ import annotations

import dbm
import importlib
import itertools
import logging
import os
import sqlite3
from contextlib import closing, suppress
from typing import Any

from ...errors import MissingDependencyError, StoreUnavailableError
from ...system.files import require_own_file
from .schema import DICT, NotAShelf

logger = logging.getLogger("flask_globalstate")

#: how the names of the files of each kind end
SUFFIXES = {
    "dbm.gnu": ("",),
    "dbm.ndbm": (".db", ".pag", ".dir"),
    "dbm.dumb": (".dat", ".dir", ".bak"),
}
BESIDE = sorted({suffix for suffixes in SUFFIXES.values() for suffix in suffixes if suffix})
#: what a Berkeley DB, which most systems' ndbm is, begins with or has after its first three words
BERKELEY = {bytes.fromhex(magic) for magic in ("00061561", "61150600", "00053162", "62310500")}


def files_beside(path: str) -> list[str]:
    """The files of a shelf of another kind that is called ``path``, if they are; none of that name itself."""
    return [path + suffix for suffix in BESIDE if os.path.exists(path + suffix)]


def import_other_kind(path: str) -> None:
    """Put a shelf in SQLite's layout in the place of one of another kind, if there is one.

    The caller keeps others out, and has seen that no file of SQLite's is there.

    :raises NotAShelf: if what is there is something else.
    :raises MissingDependencyError: if this Python can't read it.
    """
    for file in [path, *files_beside(path)]:
        require_own_file(file)
    kind = _kind(path)
    if kind is None:
        return
    old = [path + suffix for suffix in SUFFIXES[kind] if os.path.exists(path + suffix)]
    if os.path.exists(path) and path not in old:
        raise StoreUnavailableError(f"{path} and {old[0]} are two shelves; move one of them away")
    count = _copy(path, kind, path + ".new")
    backup = _backup(path, old)
    for file in old:
        with suppress(FileExistsError):
            os.link(file, backup + file[len(path) :])
    os.replace(path + ".new", path)
    remove_imported(path)
    logger.warning("%s: imported %d entries from a shelf of %s, kept as %s", path, count, kind, backup)


def remove_imported(path: str) -> None:
    """Remove the names of old files that are kept as a backup under another."""
    for file in files_beside(path):
        backup = _backup(path, [file]) + file[len(path) :]
        if os.path.exists(backup):
            os.unlink(file)


def _backup(path: str, old: list[str]) -> str:
    """The name of the backup of these files; where there is one already, it is of these."""
    for number in itertools.count():
        backup = f"{path}.backup{number or ''}"
        names = {file: backup + file[len(path) :] for file in old}
        if all(not os.path.exists(name) or os.path.samefile(name, file) for file, name in names.items()):
            return backup
    raise AssertionError


def _kind(path: str) -> str | None:
    kind = dbm.whichdb(path)
    if kind is None and _is_berkeley(path + ".db"):
        return "dbm.ndbm"  # Which a Python without it can't tell.
    if kind is not None and kind not in SUFFIXES:
        raise NotAShelf(path)
    return kind


def _is_berkeley(path: str) -> bool:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        start = file.read(16)
        return start[:4] in BERKELEY or start[12:] in BERKELEY
    return False


def _copy(path: str, kind: str, new: str) -> int:
    try:
        module = importlib.import_module(kind)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is a shelf of {kind}, which this Python can't read: install its module (Debian: "
            "python3-gdbm for dbm.gnu), or convert it with a Python that has it"
        ) from error
    with suppress(FileNotFoundError):
        os.unlink(new)
    try:
        with closing(module.open(path, "r")) as source:
            return _fill(new, source)
    except (OSError, sqlite3.Error):
        raise
    except Exception as error:
        # dbm.dumb evaluates its index as Python literals, and raises what that raises.
        raise StoreUnavailableError(f"{path} is a shelf of {kind} that is damaged ({error})") from error


def _fill(new: str, source: Any) -> int:
    with closing(sqlite3.connect(new, isolation_level=None)) as target:
        # A journal would be found by the next import, if this one is killed.
        target.execute("PRAGMA journal_mode = OFF")
        target.execute(DICT)
        target.execute("BEGIN")
        keys = list(source.keys())
        target.executemany("INSERT INTO Dict VALUES (?, ?)", ((key, source[key]) for key in keys))
        target.execute("COMMIT")
    return len(keys)
