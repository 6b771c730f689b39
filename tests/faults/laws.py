"""Judges of what many requests at once have seen. Pure functions, no I/O; see `checkers.py`.

The number of a counter only grows, by 1, so that it is a version.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise

from .checkers import Operation, backwards, by_key, counted_twice


def check_increments(operations: Iterable[Operation]) -> list[str]:
    """Every acknowledged increment is in what is read later, once: no update is lost.

    ``add`` is an increment, of whatever kind, ``read`` answers how many there were.
    """
    violations = []
    for history in by_key(operations).values():
        additions = [operation for operation in history if operation.kind == "add"]
        for read in history:
            if read.kind != "read" or not read.is_answered:
                continue
            least = sum(one.end < read.start for one in additions)
            most = sum(one.start < read.end for one in additions)
            if not least <= read.answer <= most:
                what = "lost" if read.answer < least else "invented"
                violations.append(f"{what}: of {least} acknowledged and {most} begun increments: {read}")
    return violations


def check_within_requests(operations: Iterable[Operation]) -> list[str]:
    """In a request no answer is older than one before it, whichever ways it looks.

    ``bound`` is an answer that says that the number is at least so large.
    """
    violations = []
    ordered = sorted(operations, key=lambda one: (str(one.request), one.key, one.step))
    for _, group in groupby(ordered, key=lambda one: (one.request, one.key)):
        newest: Operation | None = None
        for operation in group:
            if newest is not None and operation.kind != "bound" and operation.answer < newest.answer:
                violations.append(f"back in time in one request: {operation}\n    after {newest}")
            if newest is None or operation.answer >= newest.answer:
                newest = operation
    return violations


def check_replicas(operations: Iterable[Operation]) -> list[str]:
    """What ``manual`` mode promises too: no answer of a worker is older than one before it.

    And no two additions have the same sum.
    """
    violations: list[str] = []
    for history in by_key(operations).values():
        answered = [operation for operation in history if operation.is_answered]
        violations += backwards(answered)
        violations += counted_twice(history)
    return violations


def check_one_revision(operations: Iterable[Operation]) -> list[str]:
    """Answers that speak of several counters were each of one revision: of any two, one is the older one.

    An answer is a tuple of numbers.
    """
    violations = []
    for looks in by_key(operations).values():
        for older, newer in pairwise(sorted(looks, key=lambda look: sum(look.answer))):
            if any(one > other for one, other in zip(older.answer, newer.answer, strict=True)):
                violations.append(f"not both of one revision: {older}\n    and {newer}")
    return violations


def check_pairs(operations: Iterable[Operation]) -> list[str]:
    """What is always written together is always seen together; the values are the answer."""
    return [f"torn: {operation}" for operation in operations if len(set(operation.answer)) > 1]


def check_rebindings(operations: Iterable[Operation]) -> list[str]:
    """What was acknowledged is there in the end, once, and nothing that nobody has bound.

    ``rebind`` has the id that it adds as its argument, ``final`` the ids as its answer.
    """
    violations: list[str] = []
    for key, history in by_key(operations).items():
        bound = {one.argument: one for one in history if one.kind == "rebind"}
        for final in history:
            if final.kind == "final":
                violations += _wrong_ids(key, Multiset(final.answer), bound)
    return [*dict.fromkeys(violations)]  # Everybody who looks in the end finds the same.


def _wrong_ids(key: str, found: Multiset[str], bound: dict[str, Operation]) -> Iterator[str]:
    for one, operation in bound.items():
        if operation.is_answered and one not in found:
            yield f"lost binding: {key}: {operation}"
    for one, times in found.items():
        if times > 1 or one not in bound:
            was = "was bound once" if one in bound else "was never bound"
            yield f"invented binding: {key}: {one!r} is there {times} times, and {was}"
