"""A gate that every write of a state goes through, and that is closed while its store is switched."""

from __future__ import annotations

import threading
from collections.abc import Callable

from . import forks
from .errors import StoreUnavailableError


class Gate:
    """Any number of threads may be inside; whoever closes it waits until they have left.

    A thread that is inside may enter again, also while the gate is being closed.

    :param timeout: seconds to wait on either side.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = timeout
        #: how often each thread has entered
        self._own = threading.local()
        self.after_fork()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Only the thread that has forked is in the child, inside or outside."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = self._count_of_own()
        self._is_closed = False

    def _count_of_own(self) -> int:
        return 1 if getattr(self._own, "depth", 0) else 0

    def __enter__(self) -> None:
        depth = getattr(self._own, "depth", 0)
        if not depth:
            with self._lock:
                if self._is_closed:
                    self._wait(lambda: not self._is_closed, "has been switching its store")
                self._inside += 1
        self._own.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            with self._lock:
                self._inside -= 1
                if self._is_closed:
                    self._changed.notify_all()

    def close(self) -> None:
        """Keep writers out, and return when nobody else is inside.

        :raises StoreUnavailableError: if somebody doesn't leave; the gate is open then.
        """
        own = self._count_of_own()
        with self._lock:
            if self._is_closed:
                self._wait(lambda: not self._is_closed, "has been switching its store")
            self._is_closed = True
            try:
                self._wait(lambda: self._inside == own, "has been writing")
            except BaseException:
                self._open()
                raise

    def open(self) -> None:
        """Let writers in again."""
        with self._lock:
            self._open()

    def _open(self) -> None:
        self._is_closed = False
        self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        if not self._changed.wait_for(condition, self._timeout):
            raise StoreUnavailableError(f"another thread {what} for more than {self._timeout:g} seconds")
