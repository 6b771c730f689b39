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
from .files import OpenFolder, OwnFile, closed_folder, read_own, require_safe_way, user
from .forks import LockFile
from .locks import ThreadLock, entered_again

MODE = 0o700
#: of directories on the way to it
PARENT_MODE = 0o755
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

        :raises ConfigurationError: if it belongs to somebody else, is open to others, or can't be made; or
            if others could put another one in its place.
        :raises StoreUnavailableError: if it was in use, and can't be written any more, or if the system
            lacks something.
        """
        try:
            require_safe_way(self.path)
        except PermissionError as error:
            raise self.no_access() from error
        nearest = self.path
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        if not os.path.isdir(nearest):
            raise ConfigurationError(f"STORE_PATH {str(self.path)!r}: {nearest} is not a directory")
        if nearest == self.path:
            self._check_owner(self.path.stat())
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise self._kind_of_error()(
                f"STORE_PATH {str(self.path)!r} can't be written by user {os.geteuid()}: "
                f"check the permissions of {nearest}"
            )

    def open(self) -> OpenFolder:
        """The directory, which is made if it is missing.

        :raises ConfigurationError: as `check`.
        """
        self._make()
        try:
            folder = OpenFolder(self.path)
        except OSError as error:
            raise self._unusable(error) from error
        self._check_owner(os.fstat(folder.descriptor))
        return folder

    def _make(self) -> None:
        self.check()
        if os.path.isdir(self.path):
            return
        try:
            # Not as the umask says, which may let everybody write there.
            for parent in reversed(self.path.parents):
                parent.mkdir(PARENT_MODE, exist_ok=True)
            self.path.mkdir(MODE, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        # Where everybody may make something, somebody may have come first.
        self.check()

    def _unusable(self, error: OSError) -> GlobalStateError:
        kind = StoreUnavailableError if error.errno in LACKS else self._kind_of_error()
        return kind(f"STORE_PATH {str(self.path)!r} can't be used: {error.strerror}")

    def _kind_of_error(self) -> type[GlobalStateError]:
        """What has been in use is well configured, and out of order for the moment."""
        was_in_use = any(os.path.exists(self.path / sign) for sign in (LEASE, INTERNAL))
        return StoreUnavailableError if was_in_use else ConfigurationError

    def no_access(self) -> ConfigurationError:
        """The error for when this process may not enter it, or a directory on the way to it."""
        top, us = self.path, os.geteuid()
        while top.name == INTERNAL or top.name.startswith("@"):
            top = top.parent  # One of a shelve store, below its STORE_PATH.
        place = closed_folder(self.path)
        owner = os.stat(place).st_uid
        if owner == us:
            cure = f"chmod u+rwx '{place}'"
        elif place.is_relative_to(top):
            cure = (
                f"start the application as {user(us)}, if it has become that one since it was started "
                f"(gunicorn with --user and --preload: User= of systemd or sudo -u instead), and once: chown "
                f"-R {us} '{top}'; or choose another path"
            )
        else:
            cure = "let it in, or choose another path"
        return ConfigurationError(
            f"STORE_PATH {str(top)!r}: {place} belongs to {user(owner)}, and we are {user(us)}, who has no "
            f"permission to enter it. Repair it: {cure}"
        )

    def require_owner(self) -> None:
        """Raise unless the directory is ours: who asks about a server or ends it must be its user.

        :raises ConfigurationError: naming its user, and the command to give as that one; or as `check`.
        """
        try:
            owner = os.stat(self.path).st_uid
        except PermissionError as error:
            raise self.no_access() from error
        if owner != os.geteuid():
            raise ConfigurationError(
                f"{self.path} belongs to {user(owner)}, and we are {user(os.geteuid())}, who must not trust "
                f"what is in it. Ask as its user: sudo -u '#{owner}' python -m flask_globalstate ... --path "
                f"'{self.path}'"
            )
        self.check()

    def _check_owner(self, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid():
            raise ConfigurationError(
                f"STORE_PATH {str(self.path)!r} belongs to {user(status.st_uid)}, and we are "
                f"{user(os.geteuid())}; whoever owns it could run code in every worker. Repair it: chown -R "
                f"{os.geteuid()} '{self.path}', or choose another path"
            )
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o077:
            raise ConfigurationError(
                f"STORE_PATH {str(self.path)!r} is open to other users, who could run code in every "
                f"worker. Repair it: chmod 700 '{self.path}'"
            )

    def lock(self, name: str, kind: int, timeout: float, *, owner: int | None = None) -> LockFile:
        """The lock file ``name``, locked.

        :param kind: ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.
        :param timeout: seconds to wait for it.
        :param owner: whose the directory is, if it is not ours.
        :raises StoreUnavailableError: if somebody holds it for longer.
        :raises ReentryError: if that is this thread, in what it was interrupted in.
        """
        file = LockFile(self.path / name, owner=owner, exclusive=kind == fcntl.LOCK_EX)

        def is_ours() -> bool:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if file.waits_for_itself():
                    raise entered_again(str(self.path)) from None
                return False
            return True

        try:
            if not wait_until(is_ours, timeout):
                raise StoreUnavailableError(
                    f"{self.path / name} was held by another process for more than {timeout:g} seconds"
                )
        except BaseException:
            file.close()
            raise
        return file

    @contextlib.contextmanager
    def locked(self, name: str, timeout: float) -> Iterator[LockFile]:
        """Hold the lock file ``name`` exclusively."""
        with self.lock(name, fcntl.LOCK_EX, timeout) as file:
            yield file

    def secret(self, timeout: float = 10) -> bytes:
        """The secret that is kept here; made by whoever comes first."""
        self._make()
        path = self.path / "secret"
        with self.locked("start.lock", timeout):
            try:
                secret = read_own(path)
            except FileNotFoundError:
                secret = secrets.token_hex(SECRET_BYTES).encode()
                write_in_one_step(path, secret)
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
        # Looked at in each call of a store.
        self._path = os.fspath(directory.path / LEASE)
        self._timeout = timeout
        self._folder: OpenFolder | None = None
        self._lease: LockFile | None = None
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
        folder = self._folder
        return None if folder is None else folder.descriptor

    def check_place(self) -> None:
        """Raise if the directory is not the one that we have a lease of."""
        if self._is_lost or not self._is_in_place(self._lease):
            raise self._lost()

    def _lost(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self.directory.path} was removed or replaced while it was in use; what was in it is lost. "
            "Restart the application to begin with an empty store"
        )

    def _is_in_place(self, lease: LockFile | None) -> bool:
        if lease is None:
            return True  # Another thread has let go of it meanwhile.
        try:
            here, there = os.fstat(lease.fileno()), os.stat(self._path)
        except ValueError:
            return True  # It is closed: the same.
        except PermissionError as error:
            raise self.directory.no_access() from error
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def drop(self) -> None:
        """Let go of it."""
        with self._lock():
            lease = self._lease
            # Forgotten first: another thread must not look at a file that is closed.
            self._lease = self._folder = None
            self._is_lost = False
            if lease is not None:
                lease.close()

    def after_fork(self) -> None:
        """Take one of our own while the parent's, which we have inherited, is still open."""
        lease, self._lease = self._lease, None
        # Where that can't be done now, the next use takes it, or says why not.
        with contextlib.suppress(OSError, ConfigurationError):
            self._is_lost = self._is_lost or not self._is_in_place(lease)
            if lease is not None and not self._is_lost:
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
    # Whoever was killed in here has left it; never written through something that was put there.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    with OwnFile(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        if sync:
            os.fsync(file.fileno())
    temporary.rename(path)
    if sync:
        os.fsync(OpenFolder(path.parent))


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether ``condition`` came true within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True
