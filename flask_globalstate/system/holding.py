"""What a ``with`` statement holds, and lets go of however the statement is left.

The exception of a signal handler may come between any two steps: also after ``__enter__`` has done its work
and before the block begins, or at the first step of ``__exit__``. No ``finally`` reaches it there. But a
statement that is left drops, in every case, what it has looked up as ``__exit__``: it keeps that in the frame
itself and not in a variable, so that a traceback that somebody keeps, as notebooks do, does not keep it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Abandoned(BaseException):
    """Given to `Hold.leave` where a statement was left past it."""


class _Exit:
    """The ``__exit__`` of a `Hold`: something that the ``with`` statement alone holds.

    Who looks it up at the class, as `contextlib.ExitStack` does, gets a plain function, and then a statement
    that is left past it is not noticed before the `Hold` goes.
    """

    def __get__(self, hold: Hold[Any] | None, owner: type[Any] | None = None) -> Callable[..., None]:
        if hold is None:
            return _leave
        # Looked up before __enter__ is called.
        held = functools.partial(_leave, hold)
        hold._exit = weakref.ref(held, lambda _: hold.leave(Abandoned()))
        return held


class Hold(Generic[T]):
    """For a ``with`` statement, once; a subclass says what happens when it is entered and left.

    No generator may hold one: a traceback keeps its frame, with all that is in it.
    """

    _exit: Callable[[], Any] | None = None
    #: whether somebody else than a ``with`` statement may enter and leave it, as `contextlib.ExitStack` does
    may_be_entered_by_hand = False

    def enter(self) -> T:
        """What the statement gives; if it fails, `leave` is called all the same."""
        raise NotImplementedError

    def leave(self, error: BaseException | None) -> None:
        """Let go; called again if it was interrupted, so that it must do nothing where nothing is left.

        :param error: what has ended the block.
        """
        raise NotImplementedError

    def is_left(self) -> bool:
        """Whether the statement is over."""
        return self._exit is None or self._exit() is None

    def __enter__(self) -> T:
        try:
            if self._exit is None and self.may_be_entered_by_hand:
                self._exit = object  # There is no statement: it is over when it is left, and not before.
            return self.enter()
        except BaseException as error:
            self.leave(error)
            raise

    __exit__ = _Exit()


def _leave(block: Hold[Any], kind: object, error: BaseException | None, traceback: object) -> None:
    block.leave(error)
    block._exit = None
