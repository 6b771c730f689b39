"""Locks between the threads of one process, also where gevent makes greenlets of its threads.

A lock that is held while something is asked of a store, or while a user's code runs, must be a `ThreadLock`;
where neither happens it is a `Guard`.

Code of the user may run at any moment in the thread that holds a lock: a signal handler, or a finalizer
that the garbage collector calls. Where it enters again what the lock guards, it gets an error at once: to
wait would last for ever, and to be let in would show it a half change. Both classes therefore give out an
``RLock``, which knows its owner, after having asked. Taking it is then one step of the interpreter, between
which and the ``with`` block no exception of a signal handler can come.
"""

from __future__ import annotations

import threading
from typing import Any

from ..errors import ReentryError

#: how many forks lie between this process and the one that has imported this module
_generation = 0


def leave_to_parent() -> None:
    """Begin with locks that nobody holds, in a forked child."""
    global _generation
    _generation += 1


class Guard:
    """Guards memory of this process; held for a few steps, and for no I/O. ::

        with self._guard():
            ...

    :param what: what it guards, for the error.
    """

    __slots__ = ("_what", "is_entered", "lock")

    def __init__(self, what: str) -> None:
        self._what = what
        self.lock = threading.RLock()
        #: whether the calling thread holds it
        self.is_entered = self.lock._is_owned  # type: ignore[attr-defined]

    def __call__(self) -> Any:
        """The lock, to be entered.

        :raises ReentryError: if this thread holds it.
        """
        if self.is_entered():
            raise entered_again(self._what)
        return self.lock


class ThreadLock:
    """Gives the lock of now: another one in a forked child, and when gevent has taken over `threading`.

    gunicorn's gevent workers are forked first and patched then. On a lock that ``--preload`` has made
    before, a greenlet that waits would stop the one that holds it, and one that may be entered again would
    let every greenlet in. ::

        with self._lock():
            ...

    :param reentrant: whether the thread that holds it may take it again.
    :param what: what it guards, for the error.
    """

    def __init__(self, *, reentrant: bool = False, what: str = "a shared global") -> None:
        self._reentrant = reentrant
        self._what = what
        self._locks: dict[tuple[int, Any], Any] = {}

    def __call__(self) -> Any:
        """The lock, to be entered.

        :raises ReentryError: if this thread holds it, and it is not reentrant.
        """
        lock = self._now()
        if not self._reentrant and lock._is_owned():
            raise entered_again(self._what)
        return lock

    def is_entered(self) -> bool:
        """Whether the calling thread holds it."""
        return bool(self._now()._is_owned())

    def _now(self) -> Any:
        now = _generation, threading.Lock
        lock = self._locks.get(now)
        if lock is None:
            # One of two threads that come first gives its lock to the other, in this one step.
            lock = self._locks.setdefault(now, threading.RLock())
        return lock


def entered_again(what: str) -> ReentryError:
    """The error for a thread that comes to what it is in the middle of using."""
    return ReentryError(
        f"{what} was used by a finalizer or a signal handler that ran in the middle of another use of it in "
        "the same thread; nothing was done. Let it only take a note, such as a flag "
        "or an item in a deque, and use the shared global where that is looked at"
    )
