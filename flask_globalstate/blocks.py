"""Blocks of a ``with`` statement whose end is noticed in whatever way they are left.

``try/finally`` and ``__exit__`` are code of Python: an exception of a signal handler may come before their
first step, and then they have not run. What the interpreter itself does is to drop what the ``with``
statement holds, and that is only what ``__exit__`` was looked up as. So that holds an object that nothing
else holds, the `Life` of the block, and whatever the block has set up refers to it weakly. A traceback
that somebody keeps, as a notebook does, keeps the variables of functions, but not what their ``with``
statements held.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any


class Life:
    """Is there as long as a block runs.

    :ivar held: what is to live as long.
    """

    __slots__ = ("__weakref__", "held")

    def __init__(self) -> None:
        self.held: Any = None


class Exit:
    """The ``__exit__`` of a class whose instances have a `Life` for each ``with`` statement.

    A caller that looks up ``__exit__`` at the class, as `contextlib.ExitStack` does, gets the plain
    function; the block then ends as other blocks do.

    :param leave: a method with the parameters of ``__exit__``.
    """

    def __init__(self, leave: Callable[..., Any]) -> None:
        self._leave = leave

    def __get__(self, block: Any, owner: type[Any] | None = None) -> Callable[..., Any]:
        if block is None:
            return self._leave
        leave = functools.partial(self._leave, block)
        leave.life = life = Life()  # type: ignore[attr-defined]
        block._life = weakref.ref(life)
        return leave


class Block:
    """What ``with`` enters once.

    A subclass has a method ``_enter``, which is given the `Life`, and an ``__exit__ = Exit(...)``.
    """

    _life: Callable[[], Life | None] | None = None

    def __enter__(self) -> Any:
        life = None if self._life is None else self._life()
        if life is None:
            life = Life()
            self._life = lambda: life  # There is no ``with`` statement that holds it.
        return self._enter(life)

    def _enter(self, life: Life) -> Any:
        raise NotImplementedError
