"""What must happen around ``os.fork``: each object that owns a connection or a lock is told.

Objects are held weakly; a fork that goes past Python's hooks is noticed by whoever compares its pid.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol


class Holder(Protocol):
    """Something that must not be forked in the middle of a change."""

    def hold(self) -> None: ...

    def release(self) -> None: ...


class Renewed(Protocol):
    """Something that makes its connections and locks again in a forked child."""

    def after_fork(self) -> None: ...


_holders: weakref.WeakSet[Any] = weakref.WeakSet()
_renewed: weakref.WeakSet[Any] = weakref.WeakSet()
_held: list[Holder] = []
_lock = threading.Lock()


def hold_while_forking(holder: Holder) -> None:
    """Call ``holder.hold()`` before each fork, and ``holder.release()`` after it on both sides."""
    with _lock:
        _holders.add(holder)


def renew_after_fork(renewed: Renewed) -> None:
    """Call ``renewed.after_fork()`` in each forked child."""
    with _lock:
        _renewed.add(renewed)


def _before() -> None:
    _lock.acquire()
    for holder in list(_holders):
        holder.hold()
        _held.append(holder)


def _after() -> None:
    while _held:
        _held.pop().release()
    _lock.release()


def _after_in_child() -> None:
    _after()
    for renewed in list(_renewed):
        renewed.after_fork()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
