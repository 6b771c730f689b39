"""Judges of histories: what clients saw, against what is promised. Pure functions, no I/O.

Each gives a list of violations, empty for a good history. An operation without an answer (its worker
was killed, its client gave up, the store could not be reached) may have happened or not, at any time
after its start; one that was refused (`ConflictError`) is no part of a history.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from math import inf
from typing import Any

from .search import CounterModel, Model, RegisterModel, search

#: what a key holds that was never written
ABSENT = None


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation as its client saw it.

    :ivar kind: ``read``, ``write``, ``cas``, ``add``, ``append``...
    :ivar key: what it is about.
    :ivar argument: what was asked.
    :ivar answer: what was answered.
    :ivar start: nanoseconds; the operation has happened after this.
    :ivar end: and before this; infinite without an answer.
    :ivar began: when the worker began just this step; a request has several.
    :ivar session: the client.
    :ivar worker: the process that answered.
    :ivar request: which request of all it was a part of.
    :ivar step: the how manyth step of it.
    """

    kind: str
    key: str
    argument: Any = None
    answer: Any = None
    start: float = 0
    end: float = inf
    began: float = -1
    session: str = ""
    worker: int = 0
    request: Hashable = None
    step: int = 0

    @property
    def is_answered(self) -> bool:
        """Whether it is known to have happened."""
        return self.end != inf

    @property
    def step_start(self) -> float:
        """When it began by itself, also inside of a longer request."""
        return max(self.start, self.began)

    def __str__(self) -> str:
        asked = "" if self.argument is None else f" {self.argument!r}"
        gave = f" -> {self.answer!r}" if self.is_answered else " without an answer"
        who = f" (worker {self.worker}, client {self.session})"
        return f"{self.kind} {self.key}{asked}{gave} in [{self.start / 1e9:.6f}, {self.end / 1e9:.6f}]{who}"


@dataclass(slots=True)
class Findings:
    """What is wrong with a history, and what could not be decided; both must be empty."""

    violations: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Operations of each key, in the order of their starts."""
    found: dict[str, list[Operation]] = defaultdict(list)
    for operation in sorted(operations, key=lambda operation: operation.start):
        found[operation.key].append(operation)
    return dict(found)


# --- linearizability -----------------------------------------------------------------------------


def check_registers(operations: Iterable[Operation], initial: Any = ABSENT) -> Findings:
    """Reads, writes and compare-and-sets of each key happened at one moment each, in some order.

    Every written value must be another one.
    """
    return _check_linearizable(operations, lambda: RegisterModel(initial))


def check_counters(operations: Iterable[Operation], initial: int = 0) -> Findings:
    """The same of reads and additions; an addition answers the sum."""
    return _check_linearizable(operations, lambda: CounterModel(initial))


def _check_linearizable(operations: Iterable[Operation], make: Callable[[], Model]) -> Findings:
    findings = Findings()
    for key, history in by_key(operations).items():
        verdict = search(history, make())
        if verdict.is_good is None:
            findings.undecided.append(f"{key}: {verdict.reason}")
        elif not verdict.is_good:
            findings.violations.append(f"{key} is not linearizable: {verdict.reason}")
    return findings


# --- freshness -----------------------------------------------------------------------------------


def check_freshness(operations: Iterable[Operation]) -> list[str]:
    """What ``request`` mode promises, of counters to which only 1 is added: their value is a version.

    - An answer is at least as fresh as all that was known before its request began.
    - Answers of one worker, and of one client, never go back.
    - In a request no answer is older than one before it, its own additions included.
    - No two additions have the same sum, and no version is one that nobody can have made yet.
    """
    violations: list[str] = []
    for history in by_key(operations).values():
        answered = [operation for operation in history if operation.is_answered]
        violations += _stale(answered, "stale", lambda operation: operation.start)
        violations += backwards(answered)
        for group in _groups(answered, _session):
            violations += _stale(group, "back in time in one client", lambda one: one.step_start)
        for group in _groups(answered, lambda operation: operation.request):
            violations += _stale(group, "back in time in one request", lambda one: one.step_start)
        violations += _not_counted_once(history)
    return violations


def backwards(answered: Iterable[Operation]) -> Iterator[str]:
    """Answers of one worker that are older than what it has answered before."""
    for group in _groups(answered, _worker):
        yield from _stale(group, "back in time in one worker", lambda one: one.step_start)


def _worker(operation: Operation) -> Hashable:
    return operation.worker


def _session(operation: Operation) -> Hashable:
    return operation.session


def _groups(operations: Iterable[Operation], of: Callable[[Operation], Hashable]) -> list[list[Operation]]:
    groups: dict[Hashable, list[Operation]] = defaultdict(list)
    for operation in operations:
        groups[of(operation)].append(operation)
    return [group for who, group in groups.items() if who not in (None, "", 0)]


def _stale(operations: Sequence[Operation], what: str, start: Callable[[Operation], float]) -> Iterator[str]:
    """Answers that are older than one that ended before they began."""
    ended = sorted(operations, key=lambda operation: operation.end)
    newest: Operation | None = None
    position = 0
    for operation in sorted(operations, key=start):
        while position < len(ended) and ended[position].end < start(operation):
            if newest is None or ended[position].answer > newest.answer:
                newest = ended[position]
            position += 1
        if newest is not None and operation.answer < newest.answer:
            yield f"{what}: {operation}\n    after {newest}"


def counted_twice(history: Sequence[Operation]) -> Iterator[str]:
    """Sums that more than one addition was answered."""
    additions = [operation for operation in history if operation.kind == "add" and operation.is_answered]
    for value, times in Multiset(operation.answer for operation in additions).items():
        if times > 1:
            yield f"counted twice: {history[0].key}: {times} additions were answered {value}"


def _not_counted_once(history: Sequence[Operation]) -> Iterator[str]:
    yield from counted_twice(history)
    additions = [operation for operation in history if operation.kind == "add"]
    starts = sorted(operation.start for operation in additions)
    position = 0
    for operation in sorted((one for one in history if one.is_answered), key=lambda one: one.end):
        while position < len(starts) and starts[position] < operation.end:
            position += 1
        if operation.answer > position:
            yield f"invented: {operation}\n    when {position} additions had begun"


# --- unique ids in a list ------------------------------------------------------------------------


def check_appends(operations: Iterable[Operation]) -> list[str]:
    """Every acknowledged id is in each list that was read later, once, and none is there that nobody gave.

    ``append`` has the id as its argument, ``list`` the ids as its answer. Lists only grow at their end.
    """
    violations: list[str] = []
    for key, history in by_key(operations).items():
        appends = {operation.argument: operation for operation in history if operation.kind == "append"}
        reads = [one for one in history if one.kind == "list" and one.is_answered]
        for read in reads:
            violations += _wrong_list(key, read, appends)
        violations += _not_prefixes(reads)
    return violations


def _wrong_list(key: str, read: Operation, appends: dict[Any, Operation]) -> Iterator[str]:
    found = Multiset(read.answer)
    for one, times in found.items():
        if times > 1:
            yield f"{key}: {one!r} is there {times} times in {_short(read)}"
        if one not in appends or appends[one].start > read.end:
            yield f"{key}: {one!r}, which nobody had appended, is in {_short(read)}"
    for one, append in appends.items():
        if append.end < read.start and one not in found:
            yield f"{key}: {one!r} is lost: {append}\n    before {_short(read)}"


def _not_prefixes(reads: Sequence[Operation]) -> Iterator[str]:
    ordered = sorted(reads, key=lambda read: len(read.answer))
    for shorter, longer in pairwise(ordered):
        if list(longer.answer[: len(shorter.answer)]) != list(shorter.answer):
            yield f"{shorter.key}: {_short(shorter)}\n    is not the beginning of {_short(longer)}"


def _short(read: Operation) -> str:
    return f"a list of {len(read.answer)} read in [{read.start / 1e9:.6f}, {read.end / 1e9:.6f}]"


# --- the bank ------------------------------------------------------------------------------------


def check_bank(operations: Iterable[Operation], total: int) -> list[str]:
    """Whoever looked saw the total, and the transfers that were made, in the order of time.

    ``transfer`` answers how many there were, this one included; ``total`` the sum of the accounts and
    how many transfers that is after.
    """
    operations = list(operations)
    violations = [
        f"a total of {operation.answer[0]} and not {total}: {operation}"
        for operation in operations
        if operation.kind == "total" and operation.is_answered and operation.answer[0] != total
    ]
    return violations + check_freshness(map(_as_counter, operations))


def _as_counter(operation: Operation) -> Operation:
    changes: dict[str, Any] = {name: getattr(operation, name) for name in Operation.__slots__}
    changes["kind"] = "add" if operation.kind == "transfer" else "read"
    if operation.kind == "total" and operation.is_answered:
        changes["answer"] = operation.answer[1]
    return Operation(**changes)


def summary(operations: Iterable[Operation]) -> dict[str, tuple[int, int]]:
    """For each kind how many operations were answered, and how many not."""
    ordered = sorted(operations, key=lambda operation: operation.kind)
    found = {}
    for kind, group in groupby(ordered, key=lambda operation: operation.kind):
        answered = [operation.is_answered for operation in group]
        found[kind] = sum(answered), len(answered) - sum(answered)
    return found
