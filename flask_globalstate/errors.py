"""Every error that a user of this package can meet, in one tree.

::

    GlobalStateError
    ├── ConfigurationError           (ValueError)
    │   └── MissingDependencyError   (ImportError)
    ├── StoreUnavailableError        (ConnectionError)
    ├── ConflictError
    ├── EncodingError                (ValueError)
    ├── DecodingError                (ValueError)
    │   └── SignatureError
    ├── ReentryError                 (RuntimeError)
    └── UnsupportedOperationError    (NotImplementedError)

A missing key is a plain ``KeyError``, a key of a wrong type a plain ``TypeError``. No error of a
driver (redis-py, sqlite3) reaches a user; it is the ``__cause__`` of one of these. No message holds
a password or a value.
"""

from __future__ import annotations


class GlobalStateError(Exception):
    """The base of every error of this package."""


class ConfigurationError(GlobalStateError, ValueError):
    """A setting can't be used; the message names the key, the value and what is allowed."""


class MissingDependencyError(ConfigurationError, ImportError):
    """A store needs a package that is not installed; the message gives the ``pip install`` line."""


class StoreUnavailableError(GlobalStateError, ConnectionError):
    """The store can't be reached or refuses to work; says which, where, since when, what to do.

    :ivar may_be_written: whether it is not known if the write that was asked for was made.
    """

    may_be_written = False


class ConflictError(GlobalStateError):
    """Another worker changed what this commit depended on, and nothing was written.

    :ivar name: the global that differed.
    :ivar key: the key in it, or None when the condition was on the whole name.
    :ivar expected: what the commit expected: a revision number, or a word such as ``absent``.
    :ivar found: what the store holds: a revision number, or a word.
    :ivar path: what leads from the key's value to the part of it that was meant, such as ``['rows'][0]``.
    """

    def __init__(self, name: str, key: object, expected: object, found: object, path: str = "") -> None:
        super().__init__(name, key, expected, found, path)
        self.path = path
        self.name = name
        self.key = key
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        # A global that is no dict has one value, under an empty key.
        is_whole = self.key is None or self.key == ""
        place = repr(self.name) if is_whole else f"key {self.key!r} of {self.name!r}"
        if self.path:
            place = f"{self.name}{'' if is_whole else f'[{self.key!r}]'}{self.path}"
        return (
            f"{place} was changed by another worker or request: expected {self.expected}, "
            f"found {self.found}. Nothing was written; read it again and retry."
        )


class EncodingError(GlobalStateError, ValueError):
    """A value can't be stored; nothing was written."""


class DecodingError(GlobalStateError, ValueError):
    """What is stored under a key can't be decoded; other keys are not affected."""


class SignatureError(DecodingError):
    """What is stored under a key bears a wrong signature, and was not unpickled."""


class ReentryError(GlobalStateError, RuntimeError):
    """A finalizer or a signal handler used a shared global in the middle of another use of it in its thread.

    Nothing was done. Waiting would last for ever, since what would have to end first is interrupted.
    """


class UnsupportedOperationError(GlobalStateError, NotImplementedError):
    """The store can't do this; the message names the store and what to use instead."""
