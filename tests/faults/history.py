"""Journals of clients, turned into a history, and a history judged."""

from __future__ import annotations

import json
from collections import Counter as Multiset
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from . import checkers
from .checkers import Findings, Operation

#: errors that say that the store can't be reached now: it is not known whether the step happened
UNKNOWN = "StoreUnavailableError"
#: errors that say that the step did not happen
REFUSED = "ConflictError"
FAMILIES = {
    "read": "registers",
    "write": "registers",
    "cas": "registers",
    "count": "counters",
    "add": "counters",
    "append": "lists",
    "list": "lists",
    "transfer": "banks",
    "total": "banks",
    "snapshot": "banks",
}
#: what an operation is called in its checker
KINDS = {"count": "read", "snapshot": "total"}
#: kinds of steps that change nothing
LOOKS = {"read", "count", "list", "total", "snapshot", "nap"}
#: the other ways for a request to have no answer, which are nobody's fault but that of what was broken
LOST = "unanswered"


@dataclass
class History:
    """Every operation, by what judges it.

    :ivar unexpected: errors that nobody should have met.
    :ivar counts: of steps by kind and outcome, and of requests that had no answer.
    """

    operations: dict[str, list[Operation]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    counts: Multiset[str] = field(default_factory=Multiset)

    def add(self, family: str, operation: Operation) -> None:
        """Note an operation."""
        self.operations.setdefault(family, []).append(operation)


def read_journals(paths: Iterable[Path]) -> History:
    """The history that clients have noted."""
    history = History()
    for path in paths:
        asked: dict[tuple[str, int], dict[str, Any]] = {}
        for event in map(json.loads, path.read_text().splitlines()):
            number = event["session"], event["number"]
            if "start" in event:
                asked[number] = event
            else:
                _add_request(history, asked.pop(number), event)
        for request in asked.values():  # Its client was ended in the middle.
            _add_request(history, request, {})
    return history


def _add_request(history: History, request: dict[str, Any], answer: dict[str, Any]) -> None:
    if answer.get("unreachable"):
        history.counts["unreachable"] += 1
        return
    if "steps" not in answer:
        _note_failure(history, answer)
        for step in request["steps"]:
            _add_unanswered(history, request, step, request["start"])
        return
    for number, (step, done) in enumerate(zip(request["steps"], answer["steps"], strict=False)):
        _add_step(history, request, answer, number, step, done)


def _note_failure(history: History, answer: dict[str, Any]) -> None:
    error = answer.get("error", "")
    if "status" in answer or (error and not error.startswith((UNKNOWN, REFUSED))):
        history.unexpected.append(
            f"a request was answered {answer.get('status')} {answer.get('text')} {error}"
        )
    history.counts["unavailable" if error else LOST] += 1


def _add_step(
    history: History,
    request: dict[str, Any],
    answer: dict[str, Any],
    number: int,
    step: list[Any],
    done: list[Any],
) -> None:
    began, ended, value, error = done
    kind = step[0]
    if error is None:
        if kind in FAMILIES:
            operation = _operation(
                step,
                value,
                start=answer["begun"] if _is_as_of_request(step) else began,
                end=ended,
                began=began,
                session=request["session"],
                worker=answer["pid"],
                request=(request["session"], request["number"]),
                step=number,
            )
            history.add(FAMILIES[kind], operation)
            history.counts[kind] += 1
        return
    name = error.partition(":")[0]
    history.counts[f"{kind}: {name}"] += 1
    if name == REFUSED:
        return
    if name != UNKNOWN:
        history.unexpected.append(f"{step} in worker {answer['pid']}: {error}")
    _add_unanswered(history, request, step, began)


def _is_as_of_request(step: list[Any]) -> bool:
    """Whether a step sees what was there at the start of its request, rather than at its own."""
    kind, *arguments = step
    return kind in LOOKS and arguments[0] != "read"


def _add_unanswered(history: History, request: dict[str, Any], step: list[Any], start: int) -> None:
    if step[0] not in LOOKS:
        operation = _operation(step, None, start=start, end=inf, session=request["session"])
        history.add(FAMILIES[step[0]], operation)


def _operation(asked: list[Any], answer: Any, **more: Any) -> Operation:
    kind, *arguments = asked
    key, argument = arguments[0], None
    if FAMILIES[kind] in ("registers", "counters"):
        key = arguments[1]
    if kind in ("write", "append"):
        argument = arguments[-1]
    elif kind == "cas":
        argument = tuple(arguments[2:])
    elif kind == "add":
        argument = 1
    return Operation(KINDS.get(kind, kind), key, argument, answer, **more)


def judge(history: History, total: int) -> Findings:
    """All that is wrong with a history.

    :param total: of the accounts of a bank.
    """
    of = history.operations.get
    findings = checkers.check_registers(of("registers", []))
    counted = checkers.check_counters(of("counters", []))
    findings.violations += counted.violations
    findings.undecided += counted.undecided
    findings.violations += checkers.check_freshness(of("counters", []))
    findings.violations += checkers.check_appends(of("lists", []))
    findings.violations += checkers.check_bank(of("banks", []), total)
    findings.violations += history.unexpected
    return findings


def keys_of(history: History, family: str) -> Iterator[str]:
    """Every key that was ever asked about."""
    yield from sorted({operation.key for operation in history.operations.get(family, [])})
