"""What a statement of the caller does between two calls that it makes here, as its bytecode tells.

``DATA["log"] += [x]`` reads, extends and assigns, and the assignment means nothing more; but the same
assignment in a statement of its own does. ``DATA["stats"]["hits"] = n`` reads ``DATA["stats"]``, but only
to reach the place that it sets. Python calls the same methods in both cases.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dis import opmap, opname
from types import CodeType
from typing import NamedTuple

PACKAGE = __name__.partition(".")[0]
#: what does nothing, or goes with the instruction before
FILLING = frozenset({"CACHE", "EXTENDED_ARG", "NOP"})
#: the operand by which Python 3.14 says that a BINARY_OP is ``a[k]``
SUBSCRIPT = None if "BINARY_SUBSCR" in opmap else 26


class Place(NamedTuple):
    """Where a frame is in its code."""

    frame: int
    code: CodeType
    offset: int


def caller() -> Place | None:
    """Where the code is that has called this package."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return Place(id(frame), frame.f_code, frame.f_lasti)


def is_augmented_assignment(operator: Place | None, assignment: Place | None) -> bool:
    """Whether an operator and an assignment are one statement, such as ``a[k] += b``."""
    between = _between(operator, assignment)
    # It moves things on the stack, between the operator and the assignment.
    return between is not None and all(name == "SWAP" for name, _ in between)


def only_reaches(read: Place | None, assignment: Place | None) -> bool:
    """Whether what was read is only what is assigned to a part of, as ``a[k]`` in ``a[k][i] = b``."""
    between = _between(read, assignment)
    return between is not None and all(
        name.startswith("LOAD_") or name == "BINARY_SUBSCR" or (name == "BINARY_OP" and operand == SUBSCRIPT)
        for name, operand in between
    )


def _between(first: Place | None, second: Place | None) -> Iterator[tuple[str, int]] | None:
    """The instructions between two places and their operands, or None if one doesn't lead to the other.

    In code that was compiled to no bytecode both are the place of the call of it.
    """
    if first is None or second is None or first[:2] != second[:2] or first.offset > second.offset:
        return None
    code = first.code.co_code
    return (
        (opname[code[at]], code[at + 1])
        for at in range(first.offset + 2, second.offset, 2)
        if opname[code[at]] not in FILLING
    )
