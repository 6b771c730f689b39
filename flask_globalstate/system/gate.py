"""A gate that every write of a state goes through, and that is closed while its store is switched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..errors import StoreUnavailableError
from . import forks
from .holding import Hold
from .locks import Guard

#: seconds before it is looked again who is inside
LONGEST_WAIT = 0.05


class Gate:
    """Any number of threads may be inside; whoever closes it waits until they have left.

    A thread that is inside may enter again, also while the gate is being closed.

    :param timeout: seconds to wait on either side.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = timeout
        #: who is inside, with the thread
        self._inside: dict[_Passage, int] = {}
        self._renew()
        forks.renew_after_fork(self)

    def _renew(self) -> None:
        self._guard = Guard("the gate of a state")
        self._changed = threading.Condition(self._guard.lock)
        self._is_closed = False

    def after_fork(self) -> None:
        """Only the thread that has forked is in the child, inside or outside."""
        self._renew()
        thread = threading.get_ident()
        self._inside = {passage: one for passage, one in self._inside.items() if one == thread}

    def __enter__(self) -> None:
        """What there is to do was done when ``__exit__`` was looked up."""

    @property
    def __exit__(self) -> Callable[..., None]:
        passage = _Passage(self)
        try:
            leave = passage.__exit__
            passage.__enter__()
            return leave
        except BaseException as error:
            passage.leave(error)
            raise

    def let_in(self, passage: _Passage) -> None:
        """Let a thread in, now or when the gate is open."""
        thread = threading.get_ident()
        with self._guard():
            if self._is_closed and thread not in self._inside.values():
                self._wait(lambda: not self._is_closed, "has been switching its store")
            self._inside[passage] = thread

    def let_out(self, passage: _Passage) -> None:
        """Let it out; the second time nothing is done."""
        if self._inside.pop(passage, None) is not None and self._is_closed:
            with self._guard():
                self._changed.notify_all()

    def _others(self) -> bool:
        """Whether other threads are inside."""
        own = threading.get_ident()
        return any(thread != own for thread in list(self._inside.values()))

    def close(self) -> None:
        """Keep writers out, and return when nobody else is inside.

        :raises StoreUnavailableError: if somebody doesn't leave; the gate is open then.
        """
        with self._guard():
            if self._is_closed:
                self._wait(lambda: not self._is_closed, "has been switching its store")
            self._is_closed = True
            try:
                self._wait(lambda: not self._others(), "has been writing")
            except BaseException:
                self._open()
                raise

    def open(self) -> None:
        """Let writers in again."""
        with self._guard():
            self._open()

    def _open(self) -> None:
        self._is_closed = False
        self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not condition():
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"another thread {what} for more than {self._timeout:g} seconds")
            # Who leaves by an exception may notify nobody.
            self._changed.wait(LONGEST_WAIT)


class _Passage(Hold[None]):
    """Being inside of a gate, for a ``with`` statement."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def enter(self) -> None:
        self._gate.let_in(self)

    def leave(self, error: BaseException | None) -> None:
        self._gate.let_out(self)
