"""Translate what SQLite and the system raise in a store in files into this package's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import GlobalStateError, StoreUnavailableError, UnsupportedOperationError
from .schema import NotAShelf


class NotAShelfError(StoreUnavailableError):
    """There is a file of something else where a shelf should be."""


@contextmanager
def errors(path: object) -> Iterator[None]:
    """Translate the errors of SQLite and of the system into this package's.

    :param path: what was being used.
    """
    try:
        yield
    except Exception as error:
        reraise(path, error)
        raise


def reraise(path: object, error: BaseException) -> None:
    """Raise this package's error for one of SQLite or of the system that happened in using ``path``."""
    if isinstance(error, GlobalStateError):
        return
    if isinstance(error, NotAShelf):
        raise NotAShelfError(f"{path} is not a shelf; move it away, or choose another STORE_PATH") from error
    if isinstance(error, (sqlite3.DataError, OverflowError)):
        raise UnsupportedOperationError(f"ShelveStore can't hold a value this large: {error}") from error
    if isinstance(error, (sqlite3.OperationalError, OSError)):
        raise StoreUnavailableError(
            f"{path} can't be used ({type(error).__name__}: {error}); check the permissions there, and that "
            "the disk is not full"
        ) from error
    if isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
        raise StoreUnavailableError(f"{path} is damaged ({error}); restore it from a backup") from error
