"""Turns: of all processes that use a store, and of all their threads, one writes at a time."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StoreUnavailableError
from ..forks import close_lock_file, notice_fork, open_lock_file
from ..locks import ThreadLock

SHORTEST_WAIT, LONGEST_WAIT = 0.00005, 0.002


class Turns:
    """A lock between threads, and a lock file between processes.

    :param path: the lock file.
    :param timeout: seconds to wait for either.
    :param prepare: called before a turn, when no other thread can call `close`.
    :param finish: called at the beginning of a turn; finishes what somebody else has left half done.
    """

    def __init__(
        self, path: Path, timeout: float, prepare: Callable[[], None], finish: Callable[[], None]
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._prepare = prepare
        self._finish = finish
        # Entered again by what a turn begins with.
        self._thread = ThreadLock(reentrant=True)
        self.after_fork()

    def after_fork(self) -> None:
        """The child has neither the lock file nor the turn of its parent."""
        self._descriptor: int | None = None
        self._is_ours = False

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else writes meanwhile, and nothing is left half written; may be entered again.

        :raises StoreUnavailableError: if somebody else doesn't end his.
        """
        with self._alone():
            if self._is_ours:
                yield
                return
            self._prepare()
            if self._descriptor is None:
                self._descriptor = open_lock_file(self._path)
            descriptor = self._descriptor
            try:
                self._lock_out_others(descriptor)
                self._is_ours = True
                self._finish()
                yield
            finally:
                self._is_ours = False
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread of this process has a turn meanwhile."""
        notice_fork()
        thread = self._thread()
        if not thread.acquire(timeout=self._timeout):
            raise self._busy()
        try:
            yield
        finally:
            thread.release()

    def _lock_out_others(self, descriptor: int) -> None:
        deadline, wait = time.monotonic() + self._timeout, SHORTEST_WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._busy() from None
            else:
                return
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _busy(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"somebody has been writing under {self._path.parent.parent} for more than {self._timeout:g} "
            "seconds; a process that is stopped or hangs keeps the others out until it goes on or ends"
        )

    @contextlib.contextmanager
    def none(self) -> Iterator[None]:
        """No thread of this process has a turn meanwhile; then the lock file is closed."""
        with self._alone():
            try:
                yield
            finally:
                if self._descriptor is not None:
                    close_lock_file(self._descriptor)
                self._descriptor = None
