"""Something happens at a step of a piece of code: the exception of a signal handler, or another use of it."""

from __future__ import annotations

import contextlib
import dis
import functools
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any


class Interrupt(BaseException):
    """Of a signal handler."""


def interrupt() -> None:
    """What a signal handler may do."""
    raise Interrupt


@contextlib.contextmanager
def at_step(number: int, action: Callable[[], None], *files: str) -> Iterator[Callable[[], bool]]:
    """Call ``action`` at the n-th step of what is called in the block; gives whether it came to that one.

    A step is the beginning of a function or of a line in one of ``files``, or in contextlib.
    """
    left = number

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files and frame.f_code.co_filename != contextlib.__file__:
            return None
        if event in ("call", "line") and frame.f_lasti not in _unreachable(frame.f_code):
            left -= 1
            if left == 0:
                action()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: left <= 0
    finally:
        sys.settrace(before)


@functools.cache
def _unreachable(code: CodeType) -> set[int]:
    """Where a ``with`` statement goes on to its end: a line for a trace function, and no place for a signal.

    CPython runs signal handlers after calls and at jumps backwards only.
    """
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    exits = [
        at
        for at in range(len(steps) - 3)
        if all(step.opname == "LOAD_CONST" and step.argval is None for step in steps[at : at + 3])
        and steps[at + 3].opname in ("PRECALL", "CALL")
    ]
    # Below what is returned, if anything is.
    return {steps[at - (steps[at - 1].opname == "SWAP")].offset for at in exits}
