"""Files that nobody else can have made: what is read from them is trusted as the program itself is.

Whoever can put a file, a link or a directory in the place of one of ours could run code in every worker. So
each file that is opened is a regular one of this user and no link, which is looked at when it is open; and
nobody else may write to a directory on the way to it, as with the StrictModes of sshd.
"""

from __future__ import annotations

import grp
import io
import os
import pwd
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError

FILE_MODE = 0o600
#: a link is not followed, and a pipe is not waited for
CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
ROOT = 0
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
MOST_LINKS = 40


class OwnFile(io.FileIO):
    """An open file of this user, which is closed when nobody refers to it any more.

    So no exception of a signal handler leaves it open, or its lock held.

    :param path: where it is.
    :param flags: of ``os.open``, for reading or for both.
    :param owner: whose it must be; ours unless it is given.
    :raises ConfigurationError: if it is another user's, or not a regular file.
    """

    def __init__(
        self, path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, owner: int | None = None
    ) -> None:
        mode = "r+" if flags & os.O_RDWR else "r"
        try:
            # Opened within: nobody would close it only for one step of the interpreter, in which nothing
            # is locked.
            super().__init__(path, mode, opener=lambda name, _: os.open(name, flags | CAREFULLY, FILE_MODE))
        except OSError:
            require_own_file(path, owner=owner)  # That may be why.
            raise
        try:
            _require_own(path, os.fstat(self.fileno()), owner)
        except BaseException:
            self.close()  # The traceback refers to it.
            raise

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.close()


class OpenFolder:
    """An open directory, which is closed when nobody refers to it any more.

    :param path: where it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def fileno(self) -> int:
        """What calls of the system take."""
        return self.descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # It has none if it could not be opened.
        if "descriptor" in self.__dict__:
            close(self.__dict__.pop("descriptor"))


def read_own(path: str | os.PathLike[str]) -> bytes:
    """What is in a file.

    :raises ConfigurationError: if it is another user's, or not a regular file.
    :raises FileNotFoundError: if there is none.
    """
    with OwnFile(path) as file:
        return file.readall()


def require_own_file(path: str | os.PathLike[str], *, owner: int | None = None) -> os.stat_result | None:
    """What the system says of a file, or None if there is none; for what others open by its name.

    :raises ConfigurationError: if it is another user's, or not a regular file.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    _require_own(path, status, owner)
    return status


def require_own_tree(path: str | os.PathLike[str]) -> None:
    """Raise unless a directory and all that is in it are ours: files, directories, and no links.

    :raises ConfigurationError: naming what is not.
    """
    if not os.path.lexists(path):
        return
    _require_own(path, os.lstat(path), is_kind=stat.S_ISDIR)
    for where, folders, files in os.walk(path):
        for folder in (os.path.join(where, name) for name in folders):
            _require_own(folder, os.lstat(folder), is_kind=stat.S_ISDIR)
        for name in files:
            require_own_file(os.path.join(where, name))


def _require_own(
    path: str | os.PathLike[str],
    status: os.stat_result,
    owner: int | None = None,
    is_kind: Callable[[int], bool] = stat.S_ISREG,
) -> None:
    owner = os.geteuid() if owner is None else owner
    if is_kind(status.st_mode) and status.st_uid == owner:
        return
    if is_kind(status.st_mode):
        what = f"belongs to {user(status.st_uid)}, and we are {user(os.geteuid())}"
        cure = f"chown {owner} '{os.fspath(path)}' if you trust what is in it, else remove it"
    else:
        what = "is a link" if stat.S_ISLNK(status.st_mode) else "is something else than what we made"
        cure = "move it away"
    raise ConfigurationError(
        f"{os.fspath(path)} {what}; whoever made it could run code in every worker. Repair it: {cure}"
    )


def closed_folder(path: Path) -> Path:
    """The first directory on the way to one, itself included, that we may not enter; else itself."""
    for folder in reversed([path, *path.parents]):
        try:
            os.stat(f"{folder}/.")
        except PermissionError:
            return folder
    return path


def require_safe_way(path: Path) -> None:
    """Raise unless nobody else can put another directory in the place of this one.

    Every directory on the way, through links too, belongs to us or to root, and nobody else may write to
    it; to one that is sticky, as /tmp is, they may. What is missing is made by us. The directory itself
    is not looked at.

    :raises ConfigurationError: naming the directory, and the command that repairs it.
    """
    here, parts, links = Path("/"), list(reversed(path.parts[1:])), 0
    while parts:
        _require_safe_parent(path, here)
        part = parts.pop()
        try:
            status = os.lstat(here / part)
        except PermissionError:
            raise
        except OSError:
            return  # Missing, or nothing that could be made.
        except ValueError as error:
            raise ConfigurationError(f"STORE_PATH {str(path)!r}: {error}") from error
        if part == "..":
            here = here.parent
        elif stat.S_ISLNK(status.st_mode):
            _require_safe_owner(path, here / part, status.st_uid)
            target = Path(os.readlink(here / part))
            here = Path("/") if target.is_absolute() else here
            parts += reversed([name for name in target.parts if name != "/"])
            links += 1
            if links > MOST_LINKS:
                raise ConfigurationError(f"STORE_PATH {str(path)!r}: its links lead to each other")
        else:
            here /= part


def _require_safe_parent(path: Path, folder: Path) -> None:
    status = os.stat(folder)
    if folder != Path("/"):  # Whose that is, is whose system we run on.
        _require_safe_owner(path, folder, status.st_uid)
    mode = status.st_mode
    if mode & stat.S_ISVTX:
        return
    if mode & stat.S_IWOTH:
        raise _unsafe(path, folder, "may be written to by every user", "chmod o-w")
    if mode & stat.S_IWGRP and not _is_private_group(status.st_gid):
        raise _unsafe(path, folder, f"may be written to by {group(status.st_gid)}", "chmod g-w")


def _require_safe_owner(path: Path, place: Path, owner: int) -> None:
    if owner not in (ROOT, os.geteuid()):
        raise _unsafe(path, place, f"belongs to {user(owner)}", f"chown -h {os.geteuid()}")


def _unsafe(path: Path, place: Path, what: str, cure: str) -> ConfigurationError:
    return ConfigurationError(
        f"STORE_PATH {str(path)!r} is not safe: {place} {what}, who could put another directory in its "
        f"place and run code in every worker. We are {user(os.geteuid())}. Repair it: {cure} '{place}', or "
        "choose another path"
    )


def _is_private_group(gid: int) -> bool:
    """Whether nobody is known to be in a group but us and root.

    Where every user has a group of his own, the umask is often 002, and no hole.
    """
    ours = os.geteuid()
    members: set[int | None] = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid}
    with suppress(KeyError):
        members |= {_uid_of(name) for name in grp.getgrgid(gid).gr_mem}
    if gid == os.getegid():
        members.add(ours)  # That of a container need not be in any database.
    return bool(members) and members <= {ROOT, ours}


def _uid_of(name: str) -> int | None:
    """The number of a user, or None if nobody knows it."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def user(uid: int) -> str:
    """A user as an error names him."""
    try:
        return f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"user {uid}"


def group(gid: int) -> str:
    """A group as an error names it."""
    try:
        return f"group {gid} ({grp.getgrgid(gid).gr_name})"
    except KeyError:
        return f"group {gid}"
