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
        #: how often each thread has entered that is inside
        self._depths: dict[int, int] = {}
        self.after_fork()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Only the thread that has forked is in the child, inside or outside."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        thread = threading.get_ident()
        self._depths = {one: depth for one, depth in self._depths.items() if one == thread}
        self._is_closed = False

    def __enter__(self) -> None:
        thread = threading.get_ident()
        if thread in self._depths:
            self._depths[thread] += 1
            return
        with self._lock:
            if self._is_closed:
                self._wait(lambda: not self._is_closed, "has been switching its store")
            self._depths[thread] = 1

    def __exit__(self, *_: object) -> None:
        thread = threading.get_ident()
        depth = self._depths[thread] - 1
        if depth:
            self._depths[thread] = depth
            return
        with self._lock:
            del self._depths[thread]
            if self._is_closed:
                self._changed.notify_all()

    def close(self) -> None:
        """Keep writers out, and return when nobody else is inside.

        :raises StoreUnavailableError: if somebody doesn't leave; the gate is open then.
        """
        own = {threading.get_ident()}
        with self._lock:
            if self._is_closed:
                self._wait(lambda: not self._is_closed, "has been switching its store")
            self._is_closed = True
            try:
                self._wait(lambda: self._depths.keys() <= own, "has been writing")
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
