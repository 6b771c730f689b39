"""Something happens at a step of a piece of code: the exception of a signal handler, or another use of it."""

from __future__ import annotations

import contextlib
import dis
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple


class Interrupt(BaseException):
    """Of a signal handler."""


def interrupt() -> None:
    """What a signal handler may do."""
    raise Interrupt


@contextlib.contextmanager
def at_step(number: int, action: Callable[[], None], *files: str) -> Iterator[Callable[[], bool]]:
    """Call ``action`` at the n-th step of what is called in the block; gives whether it came to that one.

    A step is the beginning of a function or of a line in one of ``files``, or in contextlib, or comes after a
    call there.
    """
    left = number

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files and frame.f_code.co_filename != contextlib.__file__:
            return None
        frame.f_trace_opcodes = True
        places = _places(frame.f_code)
        is_step = frame.f_lasti in places.after_calls if event == "opcode" else event in ("call", "line")
        if is_step and frame.f_lasti not in places.unreachable:
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


class _Places(NamedTuple):
    """Places in a piece of code.

    :ivar after_calls: where CPython runs signal handlers; also at jumps backwards.
    :ivar unreachable: where a ``with`` statement goes on to its end: a line for a trace function, and no
        place for a signal.
    """

    after_calls: set[int]
    unreachable: set[int]


@functools.cache
def _places(code: CodeType) -> _Places:
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    exits = [
        at
        for at in range(len(steps) - 3)
        if all(step.opname == "LOAD_CONST" and step.argval is None for step in steps[at : at + 3])
        and steps[at + 3].opname in ("PRECALL", "CALL")
    ]
    # Below what is returned, if anything is: that is one swap, and two from Python 3.14 on.
    swaps = [len(list(itertools.takewhile(_is_swap, reversed(steps[:at])))) for at in exits]
    return _Places(
        {after.offset for step, after in itertools.pairwise(steps) if step.opname.startswith("CALL")},
        {steps[at - count].offset for at, count in zip(exits, swaps, strict=True)},
    )


def _is_swap(step: dis.Instruction) -> bool:
    return step.opname == "SWAP"
