"""The directory of an embedded store: private to its user, with a secret and with locks of its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, GlobalStateError, StoreUnavailableError
from ..forks import FILE_MODE, close_lock_file, open_lock_file
from ..locks import ThreadLock

MODE = 0o700
LEASE = "lease"
#: below a directory of shelves: what they share
INTERNAL = ".globalstate"
SECRET_BYTES = 32
SECRET = re.compile(b"[0-9a-f]{%d}" % (2 * SECRET_BYTES))
#: what the system may have again in a moment
LACKS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}
POLL = 0.005


class Directory:
    """A directory that only its owner may enter.

    :param path: where it is; made at first use.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(os.path.expanduser(path)))

    def check(self) -> None:
        """Raise what `open` would raise, and leave nothing behind.

        :raises ConfigurationError: if it belongs to somebody else, is open to others, or can't be made.
        :raises StoreUnavailableError: if it was in use, and can't be written any more, or if the system
            lacks something.
        """
        nearest = self.path
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        if not nearest.is_dir():
            raise ConfigurationError(f"STORE_PATH {str(self.path)!r}: {nearest} is not a directory")
        if nearest == self.path:
            self._check_owner(self.path.stat())
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise self._kind_of_error()(
                f"STORE_PATH {str(self.path)!r} can't be written by user {os.geteuid()}: "
                f"check the permissions of {nearest}"
            )

    def open(self) -> int:
        """A descriptor of the directory, which is made if it is missing.

        :raises ConfigurationError: as `check`.
        """
        self._make()
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from error
        self._check_owner(os.fstat(descriptor))
        return descriptor

    def _make(self) -> None:
        self.check()
        try:
            self.path.mkdir(MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> GlobalStateError:
        kind = StoreUnavailableError if error.errno in LACKS else self._kind_of_error()
        return kind(f"STORE_PATH {str(self.path)!r} can't be used: {error.strerror}")

    def _kind_of_error(self) -> type[GlobalStateError]:
        """What has been in use is well configured, and out of order for the moment."""
        was_in_use = any((self.path / sign).exists() for sign in (LEASE, INTERNAL))
        return StoreUnavailableError if was_in_use else ConfigurationError

    def _check_owner(self, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid():
            raise ConfigurationError(
                f"STORE_PATH {str(self.path)!r} belongs to user {status.st_uid}, and we are {os.geteuid()}; "
                f"whoever owns it could run code in every worker. Mend it: chown -R {os.geteuid()} "
                f"'{self.path}', or choose another path"
            )
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o077:
            raise ConfigurationError(
                f"STORE_PATH {str(self.path)!r} is open to other users, who could run code in every "
                f"worker. Mend it: chmod 700 '{self.path}'"
            )

    def lock(self, name: str, kind: int, timeout: float) -> int:
        """A descriptor of the lock file ``name``, locked.

        :param kind: ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.
        :param timeout: seconds to wait for it.
        :raises StoreUnavailableError: if somebody holds it for longer.
        """
        descriptor = open_lock_file(self.path / name)

        def is_ours() -> bool:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        try:
            if not wait_until(is_ours, timeout):
                raise StoreUnavailableError(
                    f"{self.path / name} was held by another process for more than {timeout:g} seconds"
                )
        except BaseException:
            close_lock_file(descriptor)
            raise
        return descriptor

    @contextlib.contextmanager
    def locked(self, name: str, timeout: float) -> Iterator[int]:
        """Hold the lock file ``name`` exclusively; its descriptor."""
        descriptor = self.lock(name, fcntl.LOCK_EX, timeout)
        try:
            yield descriptor
        finally:
            close_lock_file(descriptor)

    def secret(self, timeout: float = 10) -> bytes:
        """The secret that is kept here; made by whoever comes first."""
        self._make()
        path = self.path / "secret"
        with self.locked("start.lock", timeout):
            if not path.exists():
                write_in_one_step(path, secrets.token_hex(SECRET_BYTES).encode())
            self._check_owner(path.stat())
            secret = path.read_bytes()
        if not SECRET.fullmatch(secret):
            raise ConfigurationError(
                f"{path} is damaged; restore it from a backup, or what is stored can't be read"
            )
        return secret


class Lease:
    """A shared lock on a file of a directory, held for as long as this process uses what is in it.

    :param directory: the directory, which is made if it is missing.
    :param timeout: seconds to wait for somebody who holds the lock exclusively.
    """

    def __init__(self, directory: Directory, timeout: float) -> None:
        self.directory = directory
        self._timeout = timeout
        self._folder: int | None = None
        self._lease: int | None = None
        #: whether what our parent had a lease of is gone
        self._is_lost = False
        # Held for as long as the first lease takes: a second one would never be let go.
        self._lock = ThreadLock()

    def take(self) -> None:
        """Hold it; once is enough.

        :raises StoreUnavailableError: if the directory is no longer the one that it was taken of.
        """
        with self._lock():
            if self._is_lost:
                raise self._lost()
            if self._lease is None:
                if self._folder is None:
                    self._folder = self.directory.open()
                self._lease = self.directory.lock(LEASE, fcntl.LOCK_SH, self._timeout)
        self.check_place()

    @property
    def folder(self) -> int | None:
        """A descriptor of the directory, while the lease is held."""
        return self._folder

    def check_place(self) -> None:
        """Raise if the directory is not the one that we have a lease of."""
        if self._is_lost or not self._is_in_place():
            raise self._lost()

    def _lost(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self.directory.path} was removed or replaced while it was in use; what was in it is lost. "
            "Restart the application to begin with an empty store"
        )

    def _is_in_place(self) -> bool:
        lease = self._lease
        if lease is None:
            return True  # Another thread has let go of it meanwhile.
        try:
            here, there = os.fstat(lease), os.stat(self.directory.path / LEASE)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def drop(self) -> None:
        """Let go of it."""
        with self._lock():
            lease, folder = self._lease, self._folder
            # Forgotten first: another thread must not look at a descriptor that is closed.
            self._lease = self._folder = None
            self._is_lost = False
            if lease is not None:
                close_lock_file(lease)
            if folder is not None:
                os.close(folder)

    def after_fork(self) -> None:
        """Take one of our own while the parent's, which we have inherited, is still open."""
        self._is_lost = self._is_lost or not self._is_in_place()
        had_one, self._lease = self._lease is not None, None
        if had_one and not self._is_lost:
            # Where that can't be done now, the next use takes it.
            with contextlib.suppress(OSError):
                self._lease = self.directory.lock(LEASE, fcntl.LOCK_SH, self._timeout)


def require_seconds(option: str, value: Any, *, least: float = 0.0) -> None:
    """Raise `ConfigurationError` unless an option is a number of seconds that one can wait for.

    :param least: of seconds.
    """
    if type(value) not in (int, float) or not least <= value <= threading.TIMEOUT_MAX:
        raise ConfigurationError(
            f"STORE_OPTIONS: {option} is {value!r}; it must be a number of seconds, at least {least:g}"
        )


def write_in_one_step(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Make or replace a file, so that it is there entirely or not at all.

    :param sync: also if the power fails.
    """
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
    if sync:
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether ``condition`` came true within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True
