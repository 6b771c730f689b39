"""Turns: of all processes that use a store, and of all their threads, one writes at a time."""

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


class Turn(Hold[None]):
    """For a ``with`` statement in which no other thread of this process has a turn.

    The garbage collector waits meanwhile: the finalizers that it runs may use the store, and would be
    refused.

    :param is_shared: whether no other process has one either.
    """

    _collects_afterwards = False

    def __init__(self, turns: Turns, *, is_shared: bool) -> None:
        self._turns = turns
        self.is_shared = is_shared
        self.thread = threading.get_ident()

    def enter(self) -> None:
        self._turns.begin(self)
        self._collects_afterwards = gc.isenabled()
        gc.disable()

    def leave(self, error: BaseException | None) -> None:
        self._turns.end(self)
        self.let_collect()

    def let_collect(self) -> None:
        """Let the garbage collector come again; the second time nothing is done."""
        if self._collects_afterwards:
            gc.enable()
            self._collects_afterwards = False


class Turns:
    """One turn between threads, and a lock file between processes.

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
        self.after_fork()

    def after_fork(self) -> None:
        """The child has neither the lock file nor the turn of its parent."""
        self._guard = Guard("a store")
        self._descriptor: int | None = None
        self._current: Turn | None = None

    def turn(self) -> Turn:
        """For a ``with`` statement in which nobody else writes, and nothing is left half written.

        Entering it raises `StoreUnavailableError` if somebody else doesn't end his, and `ReentryError` in the
        thread that has one.
        """
        return Turn(self, is_shared=True)

    def none(self) -> Turn:
        """For one in which no thread of this process has a turn; then the lock file is closed."""
        return Turn(self, is_shared=False)

    def begin(self, turn: Turn) -> None:
        """As the turns say."""
        notice_fork()
        current = self._current
        if current is not None and current.thread == turn.thread and not current.is_left():
            raise entered_again("a store")
        self._wait_until(lambda: self._is_first(turn))
        if not turn.is_shared:
            return
        self._prepare()
        if self._descriptor is None:
            self._descriptor = open_lock_file(self._path)
        self._wait_until(self._others_are_out)
        self._finish()

    def end(self, turn: Turn) -> None:
        """Let others in; the second time nothing is done."""
        if self._current is not turn:
            return
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            if not turn.is_shared:
                descriptor, self._descriptor = self._descriptor, None
                close_lock_file(descriptor)
        self._current = None

    def _is_first(self, turn: Turn) -> bool:
        with self._guard():
            if self._current is None or self._current.is_left():
                if self._current is not None:
                    self._current.let_collect()
                self._current = turn
        return self._current is turn

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
                    f"somebody has been writing under {self._path.parent.parent} for more than "
                    f"{self._timeout:g} seconds; a process that is stopped or hangs keeps the others out "
                    "until it goes on or ends"
                )
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
