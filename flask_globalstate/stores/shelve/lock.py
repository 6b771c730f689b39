"""The write lock of a store in files: one thread of one process writes at a time."""

from __future__ import annotations

import fcntl
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ...errors import StoreUnavailableError
from ...system.forks import close_lock_file, notice_fork, open_lock_file
from ...system.holding import Hold
from ...system.locks import Guard, entered_again

SHORTEST_WAIT, LONGEST_WAIT = 0.00005, 0.002


class Acquisition(Hold[None]):
    """For a ``with`` statement in which no other thread of this process has the write lock.

    The garbage collector waits meanwhile: the finalizers that it runs may use the store, and would be
    refused.

    :param is_shared: whether no other process has it either.
    """

    _collects_afterwards = False

    def __init__(self, lock: WriteLock, *, is_shared: bool) -> None:
        self._lock = lock
        self.is_shared = is_shared
        self.thread = threading.get_ident()

    def enter(self) -> None:
        self._lock.acquire(self)
        self._collects_afterwards = gc.isenabled()
        gc.disable()

    def leave(self, error: BaseException | None) -> None:
        self._lock.release(self)
        self.let_collect()

    def let_collect(self) -> None:
        """Let the garbage collector come again; the second time nothing is done."""
        if self._collects_afterwards:
            gc.enable()
            self._collects_afterwards = False


class WriteLock:
    """One owner between threads, and a lock file between processes.

    :param path: the lock file.
    :param timeout: seconds to wait for either.
    :param prepare: called before the lock file is locked, when no other thread can call `close`.
    :param finish: called once it is; finishes what another process has left half written.
    """

    def __init__(
        self, path: Path, timeout: float, prepare: Callable[[], None], finish: Callable[[], None]
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._prepare = prepare
        self._finish = finish
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a child, which has neither the lock file nor the lock of its parent."""
        self._guard = Guard("a store")
        self._descriptor: int | None = None
        self._current: Acquisition | None = None

    def __call__(self) -> Acquisition:
        """For a ``with`` statement in which no other process or thread writes, and nothing is half written.

        Entering it raises `StoreUnavailableError` if another one keeps the lock, and `ReentryError` in the
        thread that has it.
        """
        return Acquisition(self, is_shared=True)

    def to_close(self) -> Acquisition:
        """For one in which no thread of this process writes; then the lock file is closed."""
        return Acquisition(self, is_shared=False)

    def acquire(self, acquisition: Acquisition) -> None:
        """Wait for the lock, first among threads and then among processes."""
        notice_fork()
        current = self._current
        if current is not None and current.thread == acquisition.thread and not current.is_left():
            raise entered_again("a store")
        self._wait_until(lambda: self._is_first(acquisition))
        if not acquisition.is_shared:
            return
        self._prepare()
        if self._descriptor is None:
            self._descriptor = open_lock_file(self._path)
        self._wait_until(self._others_are_out)
        self._finish()

    def release(self, acquisition: Acquisition) -> None:
        """Let others in; the second time nothing is done."""
        if self._current is not acquisition:
            return
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            if not acquisition.is_shared:
                descriptor, self._descriptor = self._descriptor, None
                close_lock_file(descriptor)
        self._current = None

    def _is_first(self, acquisition: Acquisition) -> bool:
        with self._guard():
            if self._current is None or self._current.is_left():
                if self._current is not None:
                    self._current.let_collect()
                self._current = acquisition
        return self._current is acquisition

    def _others_are_out(self) -> bool:
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline, wait = time.monotonic() + self._timeout, SHORTEST_WAIT
        while not condition():
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"another process or thread has held the write lock of {self._path.parent.parent} for "
                    f"more than {self._timeout:g} seconds; it may be stopped (SIGSTOP) or hung"
                )
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
