"""Journals of clients, turned into a history, and a history judged."""

from __future__ import annotations

import json
from collections import Counter as Multiset
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from . import checkers, laws
from .checkers import Findings, Operation, by_key

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
    "look": "counters",
    "bump": "counters",
    "within": "counters",
    "pairs": "pairs",
    "hit": "hits",
    "hits": "hits",
    "trail": "bindings",
    "ids": "bindings",
}
#: what an operation is called in its checker
KINDS = {
    "count": "read",
    "look": "read",
    "bump": "add",
    "within": "add",
    "snapshot": "total",
    "hit": "add",
    "hits": "read",
    "trail": "rebind",
    "ids": "final",
}
#: kinds of steps that change nothing
LOOKS = {"count", "hits", "ids", "list", "look", "nap", "pairs", "peek", "read", "snapshot", "sync", "total"}
#: steps that bind a name of a module anew, so that what they have bound may be refused when it is published
REBINDS = {"trail", "last"}
#: ways to look at several counters that are of one revision
WHOLE = {"copy", "items", "snapshot", "union", "transaction", "writing"}
#: the session that looks at all when nobody writes any more
READER = "reader"
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
        _note_failure(history, request, answer)
        for step in request["steps"]:
            _add_unanswered(history, request, step, request["start"])
        return
    for number, (step, done) in enumerate(zip(request["steps"], answer["steps"], strict=False)):
        _add_step(history, request, answer, number, step, done)


def _note_failure(history: History, request: dict[str, Any], answer: dict[str, Any]) -> None:
    error = answer.get("error", "")
    if error.startswith(REFUSED):
        history.counts["refused"] += 1
        if not any(step[0] in REBINDS for step in request["steps"]):
            history.unexpected.append(f"refused for others: {request['steps']}: {error}")
        return
    if "status" in answer or (error and not error.startswith(UNKNOWN)):
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
        _add_answered(
            history,
            step,
            value,
            start=answer["begun"] if _is_as_of_request(step) else began,
            end=ended,
            began=began,
            session=request["session"],
            worker=answer["pid"],
            # A client of our own may have the name of one before it, which has begun to count anew.
            request=(request["session"], request["number"], answer["begun"]),
            step=number,
        )
        return
    name = error.partition(":")[0]
    history.counts[f"{kind}: {name}"] += 1
    if name == REFUSED:
        return
    if name != UNKNOWN:
        history.unexpected.append(f"{step} in worker {answer['pid']}: {error}")
    _add_unanswered(history, request, step, began)


def _add_answered(history: History, asked: list[Any], value: Any, **more: Any) -> None:
    kind = asked[0]
    if kind != "nap":
        history.counts[kind] += 1
    if kind == "look":
        _add_look(history, asked, value, **more)
    elif kind == "within":
        _, mode, key = asked
        for number in value:
            if number is not None:
                _add_answered(history, ["bump", mode, "within", key, 0], number, **more)
    elif kind in FAMILIES:
        operation = _operation(asked, value, **more)
        family = _family(asked)
        if family == "replicas" and operation.kind == "read" and operation.session != READER:
            history.add("sights", operation)
            return
        history.add(family, operation)
        if FAMILIES[kind] == "counters":
            history.add("sights", operation)


def _add_look(history: History, asked: list[Any], seen: dict[str, int], **more: Any) -> None:
    """Note what was seen of each counter, and that it was seen together."""
    _, mode, way, *keys = asked
    for key, number in seen.items():
        operation = Operation("bound" if way == "refused" else "read", key, way, number, **more)
        history.add("sights", operation)
        if way != "refused" and mode != "manual":
            history.add("counters", operation)
    if way in WHOLE and len(keys) > 1:
        together = Operation("look", " ".join(keys), way, tuple(seen[key] for key in keys), **more)
        history.add("snapshots", together)


def _family(step: list[Any]) -> str:
    """What judges a step; what nobody is told of by itself is judged apart."""
    family = FAMILIES[step[0]]
    return "replicas" if family == "counters" and step[1] == "manual" else family


def _is_as_of_request(step: list[Any]) -> bool:
    """Whether a step sees what was there at the start of its request, rather than at its own."""
    return step[0] in LOOKS and "read" not in step[1:2]


def _add_unanswered(history: History, request: dict[str, Any], step: list[Any], start: int) -> None:
    if step[0] in FAMILIES and step[0] not in LOOKS:
        for _ in range(2 if step[0] == "within" else 1):
            operation = _operation(step, None, start=start, end=inf, session=request["session"])
            history.add(_family(step), operation)


def _operation(asked: list[Any], answer: Any, **more: Any) -> Operation:
    kind, *arguments = asked
    key, argument = FAMILIES[kind], None
    if key in ("registers", "counters"):
        key = arguments[2 if kind == "bump" else 1]
    elif key in ("lists", "banks", "pairs"):
        key = arguments[0]
    if kind in ("write", "append", "trail", "pairs"):
        argument = arguments[-1]
    elif kind == "cas":
        argument = tuple(arguments[2:])
    elif KINDS.get(kind, kind) == "add":
        argument = 1
    return Operation(KINDS.get(kind, kind), key, argument, answer, **more)


def judge(history: History, total: int, *, binds_alone: bool = True) -> Findings:
    """All that is wrong with a history.

    :param total: of the accounts of a bank.
    :param binds_alone: whether it can be told who has bound a name of a module anew: no other request of
        that worker ran, or there is no other worker. Where several do both, nobody can tell whose the one
        is that loses; then the counts say how many were lost.
    """
    of = history.operations.get
    findings = checkers.check_registers(of("registers", []))
    findings.violations += laws.check_within_requests(of("sights", []))
    for counter in by_key(of("counters", [])).values():
        _judge_counter(counter, findings)
    findings.violations += laws.check_increments(of("replicas", []))
    findings.violations += laws.check_replicas(_of_replicas(history))
    findings.violations += laws.check_one_revision(of("snapshots", []))
    findings.violations += laws.check_pairs(of("pairs", []))
    findings.violations += laws.check_increments(of("hits", []))
    lost = laws.check_rebindings(of("bindings", []))
    history.counts.update(map(law_of, lost))
    findings.violations += lost if binds_alone else []
    findings.violations += checkers.check_appends(of("lists", []))
    findings.violations += checkers.check_bank(of("banks", []), total)
    findings.violations += history.unexpected
    return findings


def _judge_counter(history: list[Operation], findings: Findings) -> None:
    """What is wrong with a counter; an order that explains it is looked for only if nothing simpler is."""
    simple = laws.check_increments(history) + checkers.check_freshness(history)
    findings.violations += simple
    if not simple:
        counted = checkers.check_counters(history)
        findings.violations += counted.violations
        findings.undecided += counted.undecided


def _of_replicas(history: History) -> list[Operation]:
    """What was answered in manual mode."""
    sights = history.operations.get("sights", [])
    return [one for one in sights if one.key.startswith("manual:") and one.kind != "bound"]


def law_of(violation: str) -> str:
    """Which law was broken: what a violation begins with."""
    return violation.partition(":")[0]


def keys_of(history: History, family: str) -> Iterator[str]:
    """Every key that was ever asked about."""
    yield from sorted({operation.key for operation in history.operations.get(family, [])})
