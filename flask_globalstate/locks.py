"""Locks between the threads of one process, also where gevent makes greenlets of its threads.

A lock that is held while something is asked of a store, or while a user's code runs, must be one of these;
where neither happens, one of `threading` will do.
"""

from __future__ import annotations

import threading
from typing import Any

#: how many forks lie between this process and the one that has imported this module
_generation = 0


def leave_to_parent() -> None:
    """Begin with locks that nobody holds, in a forked child."""
    global _generation
    _generation += 1


class ThreadLock:
    """Gives the lock of now: another one in a forked child, and when gevent has taken over `threading`.

    gunicorn's gevent workers are forked first and patched then. On a lock that ``--preload`` has made
    before, a greenlet that waits would stop the one that holds it, and one that may be entered again would
    let every greenlet in. ::

        with self._lock():
            ...

    :param reentrant: whether the thread that holds it may take it again.
    """

    def __init__(self, *, reentrant: bool = False) -> None:
        self._reentrant = reentrant
        self._locks: dict[tuple[int, Any], Any] = {}

    def __call__(self) -> Any:
        now = _generation, threading.Lock
        lock = self._locks.get(now)
        if lock is None:
            # One of two threads that come first gives its lock to the other, in this one step.
            lock = self._locks.setdefault(now, threading.RLock() if self._reentrant else threading.Lock())
        return lock
