"""A gate that every write of a state goes through, and that is closed while its store is switched."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Callable

from . import forks
from .blocks import Life
from .errors import StoreUnavailableError
from .locks import Guard

#: seconds before it is looked again who is inside
LONGEST_WAIT = 0.05


class Gate:
    """Any number of threads may be inside; whoever closes it waits until they have left.

    A thread that is inside may enter again, also while the gate is being closed. One that has left its
    ``with`` block in whatever way is not inside.

    :param timeout: seconds to wait on either side.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = timeout
        #: the life of each block that is inside, with its thread
        self._inside: dict[weakref.ref[Life], int] = {}
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
        self._inside = {life: one for life, one in self._inside.items() if one == thread}

    def __enter__(self) -> None:
        """What there is to do was done when ``__exit__`` was looked up."""

    @property
    def __exit__(self) -> Callable[..., None]:
        life = Life()
        leave = functools.partial(self._leave, ref := weakref.ref(life))
        leave.life = life  # type: ignore[attr-defined]
        thread = threading.get_ident()
        try:
            with self._guard():
                if self._is_closed and thread not in self._inside.values():
                    self._wait(lambda: not self._is_closed, "has been switching its store")
                self._inside[ref] = thread
            return leave
        except BaseException:
            self._inside.pop(ref, None)
            raise

    def _leave(self, life: weakref.ref[Life], *_: object) -> None:
        self._inside.pop(life, None)
        if self._is_closed:
            with self._guard():
                self._changed.notify_all()

    def _others(self) -> bool:
        """Whether other threads are inside."""
        own = threading.get_ident()
        for life in list(self._inside):
            if life() is None:
                self._inside.pop(life, None)  # Its block was left by an exception that came before `_leave`.
        return any(thread != own for thread in self._inside.values())

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
