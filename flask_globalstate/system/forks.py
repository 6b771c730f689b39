"""What must happen around ``os.fork``: each object that owns a connection or a lock is told.

Lock files have a rule of their own: a ``flock`` belongs to the open file, which a forked child shares.
So no descriptor of a lock may live on in a child: the parent's death would not free the lock. They are
opened and closed here, and the child closes what it has inherited, whichever thread was using it. A
`LockFile` is also closed when nobody refers to it any more, however that came about.

Objects are held weakly.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .files import FILE_MODE as FILE_MODE
from .files import OwnFile
from .locks import ThreadLock, leave_to_parent


class Holder(Protocol):
    """Something that must not be forked in the middle of a change.

    :ivar waits: whether ``hold`` waits for others to call a store or a user's code. Those come first: among
        greenlets others run meanwhile, which must not meet the real lock of a holder that doesn't wait.
    """

    waits: bool

    def hold(self) -> None: ...

    def release(self) -> None: ...


class Renewed(Protocol):
    """Something that makes its connections and locks again in a forked child."""

    def after_fork(self) -> None: ...


_holders: weakref.WeakSet[Any] = weakref.WeakSet()
_renewed: weakref.WeakSet[Any] = weakref.WeakSet()
_held: list[Any] = []
_lock_files: set[int] = set()
# Not a WeakSet: it can't be gone through while another thread adds to it.
_open_lock_files: weakref.WeakValueDictionary[int, LockFile] = weakref.WeakValueDictionary()
# Reentrant, since gevent's Popen forks with the hooks of Python.
_lock = ThreadLock(reentrant=True)
_pid = os.getpid()


def hold_while_forking(holder: Holder) -> None:
    """Call ``holder.hold()`` before each fork, and ``holder.release()`` after it on both sides."""
    with _lock():
        _holders.add(holder)


def renew_after_fork(renewed: Renewed) -> None:
    """Call ``renewed.after_fork()`` in each forked child, before inherited lock files are closed."""
    with _lock():
        _renewed.add(renewed)


class LockFile(OwnFile):
    """An open lock file, which is made if it is missing.

    :param path: where it is.
    :param owner: whose it is, if it is not ours; then it is not made.
    :param exclusive: whether nobody else is to hold it, this thread itself included.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, owner: int | None = None, exclusive: bool = False
    ) -> None:
        self._place = os.fspath(path)
        self._thread = threading.get_ident() if exclusive else None
        flags = os.O_RDWR | os.O_CREAT if owner is None else os.O_RDONLY
        with _lock():
            super().__init__(path, flags, owner=owner)
            _open_lock_files[id(self)] = self

    def close(self) -> None:
        """Close it, and so let go of its lock."""
        # Not while another thread forks: a child would have it open, and not know of it.
        if not self.closed:
            with _lock():
                super().close()

    def waits_for_itself(self) -> bool:
        """Whether this thread holds the file already, or waits for it: in what was interrupted."""
        return any(
            other is not self and other._thread == threading.get_ident() and other._place == self._place
            for other in _all_lock_files()
            if not other.closed
        )


def _all_lock_files() -> list[LockFile]:
    return [file for reference in _open_lock_files.valuerefs() if (file := reference()) is not None]


def open_lock_file(path: str | os.PathLike[str]) -> int:
    """A descriptor of a lock file, which is made if it is missing."""
    with _lock(), OwnFile(path, os.O_RDWR | os.O_CREAT) as file:
        descriptor = os.dup(file.fileno())
        _lock_files.add(descriptor)
    return descriptor


def close_lock_file(descriptor: int) -> None:
    """Close it, and so let go of its lock."""
    with _lock():
        _lock_files.discard(descriptor)
        os.close(descriptor)


def no_fork() -> AbstractContextManager[Any]:
    """For a ``with`` statement in which no other thread forks."""
    return _lock()  # type: ignore[no-any-return]


def notice_fork() -> None:
    """Do what is to be done in a child, if this is one whose fork went past Python's hooks."""
    if os.getpid() != _pid:
        _renew()


def _before() -> None:
    lock = _lock()
    lock.acquire()
    _held.append(lock)
    for holder in sorted(_holders, key=lambda holder: not holder.waits):
        holder.hold()
        _held.append(holder)


def _after() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    _after()
    _renew()


def _renew() -> None:
    global _pid
    leave_to_parent()
    inherited, inherited_files = list(_lock_files), _all_lock_files()
    _lock_files.clear()
    failures = []
    for renewed in list(_renewed):
        # One that fails must not leave the others with what is the parent's.
        try:
            renewed.after_fork()
        except BaseException as failure:
            failures.append(failure)
    for descriptor in inherited:
        os.close(descriptor)
    for file in inherited_files:
        file.close()
    _pid = os.getpid()
    if failures:
        raise failures[0]


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
