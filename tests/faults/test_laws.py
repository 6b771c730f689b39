"""The laws of a storm reject what breaks a promise, and accept what keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from .checkers import Operation
from .history import READER, judge, read_journals
from .laws import (
    check_increments,
    check_one_revision,
    check_pairs,
    check_rebindings,
    check_replicas,
    check_within_requests,
)


def made(kind: str, start: float, end: float, answer: Any = None, argument: Any = None, **more: Any) -> Any:
    """An operation on one key."""
    return Operation(kind, more.pop("key", "k"), argument, answer, start, end, **more)


def add(start: float, end: float, answer: int | None = None, **more: Any) -> Operation:
    return made("add", start, end, answer, 1, **more)


def read(start: float, end: float, answer: int, **more: Any) -> Operation:
    return made("read", start, end, answer, **more)


def seen(step: int, answer: int, kind: str = "read", request: str = "r", key: str = "k") -> Operation:
    """What a step of a request has seen."""
    return made(kind, step, step + 1, answer, request=request, step=step, key=key)


def look(*answer: int) -> Operation:
    return made("look", 0, 1, answer)


def pairs(*answer: str) -> Operation:
    return made("pairs", 0, 1, list(answer))


def bind(one: str, end: float = 1) -> Operation:
    return made("rebind", 0, end, argument=one)


def final(*answer: str) -> Operation:
    return made("final", 8, 9, list(answer))


Law = Callable[[list[Operation]], list[str]]

KEPT: dict[str, tuple[Law, list[Operation]]] = {
    "each increment is there": (check_increments, [add(0, 1, 1), add(0, 1, 2), read(2, 3, 2)]),
    "one is under way": (check_increments, [add(0, 1, 1), add(2, 9, 2), read(3, 4, 1), read(5, 6, 2)]),
    "unanswered, there": (check_increments, [add(0, inf), read(1, 2, 1)]),
    "unanswered, not there": (check_increments, [add(0, inf), read(1, 2, 0)]),
    "of what others are": (check_increments, [add(0, 1, 1), read(2, 3, 0, key="other")]),
    "forward": (check_within_requests, [seen(0, 1), seen(1, 1), seen(2, 3)]),
    "back, in another request": (check_within_requests, [seen(0, 2), seen(1, 1, request="other")]),
    "back, of another key": (check_within_requests, [seen(0, 2), seen(1, 1, key="other")]),
    "as large as it was said": (check_within_requests, [seen(0, 1), seen(1, 2, "bound"), seen(2, 2)]),
    "less was said than is known": (check_within_requests, [seen(0, 3), seen(1, 2, "bound"), seen(2, 3)]),
    "an old replica": (check_replicas, [add(0, 1, 1, worker=1), read(2, 3, 0, worker=2)]),
    "threads that overlap": (check_replicas, [read(0, 9, 1, worker=1), read(1, 8, 0, worker=1)]),
    "one after the other": (check_one_revision, [look(0, 0), look(1, 0), look(1, 2), look(1, 2)]),
    "together": (check_pairs, [pairs("x", "x"), pairs("y", "y"), pairs()]),
    "all that was bound": (check_rebindings, [bind("a"), bind("b"), final("b", "a")]),
    "unanswered, bound": (check_rebindings, [bind("a", inf), final("a")]),
    "unanswered, not bound": (check_rebindings, [bind("a", inf), final()]),
}

BROKEN: dict[str, tuple[Law, list[Operation]]] = {
    "an increment is lost": (check_increments, [add(0, 1, 1), add(0, 1, 1), read(2, 3, 1)]),
    "an increment is made twice": (check_increments, [add(0, 1, 1), read(2, 3, 2)]),
    "an increment from the future": (check_increments, [read(0, 1, 1), add(2, 3, 1)]),
    "back in a request": (check_within_requests, [seen(0, 1), seen(1, 2), seen(2, 1)]),
    "back to absent": (check_within_requests, [seen(0, 1), seen(1, 0)]),
    "back after an own addition": (check_within_requests, [seen(0, 2, "add"), seen(1, 1)]),
    "less than it was said": (check_within_requests, [seen(0, 1), seen(1, 2, "bound"), seen(2, 1)]),
    "back long after": (check_within_requests, [seen(0, 2), seen(1, 1, "bound"), seen(2, 1)]),
    "back in a worker": (check_replicas, [read(0, 1, 2, worker=1), read(2, 3, 1, worker=1)]),
    "an own write is not seen": (check_replicas, [add(0, 1, 2, worker=1), read(2, 3, 1, worker=1)]),
    "one sum twice": (check_replicas, [add(0, 9, 1, worker=1), add(0, 9, 1, worker=2)]),
    "never there": (check_one_revision, [look(0, 0), look(1, 0), look(0, 1)]),
    "a newer one and an older one": (check_one_revision, [look(1, 1), look(5, 0), look(5, 1)]),
    "torn": (check_pairs, [pairs("x", "x", "y")]),
    "a binding is lost": (check_rebindings, [bind("a"), bind("b"), final("b")]),
    "a binding is there twice": (check_rebindings, [bind("a"), final("a", "a")]),
    "nobody has bound it": (check_rebindings, [bind("a"), final("a", "z")]),
}


@pytest.mark.parametrize("case", KEPT.values(), ids=KEPT)
def test_a_history_that_keeps_a_law_is_accepted(case: tuple[Law, list[Operation]]) -> None:
    law, history = case
    assert law(history) == []


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_a_history_that_breaks_a_law_is_rejected(case: tuple[Law, list[Operation]]) -> None:
    law, history = case
    assert law(history)


# --- journals ------------------------------------------------------------------------------------


class Journal:
    """A journal that is written as a client writes it, one request after the other.

    :param path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now = 0

    def note(self, *steps: list[Any], answers: list[Any] | None = None, **more: Any) -> None:
        """Note a request, with the answers of its steps, or with how it has ended otherwise."""
        self._now += 10
        who = {"session": more.pop("session", "s"), "number": self._now}
        end: dict[str, Any] = {"end": self._now + 9, **more}
        if answers is not None:
            done = [[self._now + 1 + n, self._now + 2 + n, one, None] for n, one in enumerate(answers)]
            end |= {"pid": 1, "begun": self._now, "steps": done}
        with self._path.open("a") as file:
            for event in ({"start": self._now, "steps": list(steps)}, end):
                file.write(json.dumps({**who, **event}) + "\n")

    def problems(self, **how: Any) -> list[str]:
        """What is wrong with it."""
        return judge(read_journals([self._path]), 0, **how).violations


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_increments_by_hand_are_counted_in_each_mode(journal: Journal, mode: str) -> None:
    key = f"{mode}:by hand"
    journal.note(["bump", mode, "get", key, 0], answers=[1])
    journal.note(["bump", mode, "copy", key, 0], answers=[2])
    journal.note(["count", mode, key], answers=[2], session=READER)
    assert journal.problems() == []
    journal.note(["bump", mode, "edit", key, 0], answers=[2])
    journal.note(["count", mode, key], answers=[2], session=READER)
    assert {one.partition(":")[0] for one in journal.problems()} >= {"lost", "counted twice"}


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
@pytest.mark.parametrize("way", ["copy", "transaction", "edit", "refused"])
def test_whatever_way_a_request_looks_in_it_must_not_go_back(journal: Journal, mode: str, way: str) -> None:
    one, two = f"{mode}:0", f"{mode}:1"
    journal.note(["add", mode, one], ["add", mode, two], ["add", mode, two], answers=[1, 1, 2])
    assert journal.problems() == []
    steps = [["look", mode, name, one, two] for name in ("get", way, "get")]
    journal.note(*steps, answers=[{one: 1, two: 2}, {one: 1, two: 2}, {one: 1, two: 1}])
    assert any("back in time in one request" in problem for problem in journal.problems())


def test_answers_of_the_whole_are_compared_over_all_modes_of_looking(journal: Journal) -> None:
    one, two = "manual:0", "manual:1"
    steps = [["look", "manual", name, one, two] for name in ("copy", "transaction")]
    journal.note(steps[0], answers=[{one: 0, two: 1}])
    journal.note(steps[1], answers=[{one: 1, two: 0}])
    assert any("not both of one revision" in problem for problem in journal.problems())


def test_what_is_written_together_and_seen_apart_is_told(journal: Journal) -> None:
    journal.note(["pair", "manual", "x"], ["pairs", "manual", "values"], answers=[None, ["x", "x", "x"]])
    assert journal.problems() == []
    journal.note(["pairs", "manual", "values"], answers=[["x", "x", "y"]])
    assert len(journal.problems()) == 1


def test_only_a_request_that_binds_a_name_anew_may_be_refused_after_its_steps(journal: Journal) -> None:
    journal.note(["trail", "a"], error="ConflictError: another worker")
    journal.note(["ids"], answers=[[]])
    assert journal.problems() == []
    journal.note(["peek"], ["hit"], error="ConflictError: another worker")
    assert len(journal.problems()) == 1


def test_a_binding_that_is_lost_is_told_where_it_can_be_told_whose_it_was(journal: Journal) -> None:
    journal.note(["trail", "a"], answers=[None])
    journal.note(["ids"], answers=[[]])
    assert len(journal.problems()) == 1
    assert journal.problems(binds_alone=False) == []


def test_hits_are_counted_when_their_request_was_answered(journal: Journal) -> None:
    journal.note(["hit"], answers=[None])
    journal.note(["hit"], failed="TimeoutError")
    for number, is_wrong in ((1, False), (2, False), (0, True), (3, True)):
        fresh = Journal(journal._path.with_name(str(number)))
        fresh._path.write_text(journal._path.read_text())
        fresh._now = journal._now
        fresh.note(["hits"], answers=[number])
        assert bool(fresh.problems()) == is_wrong
