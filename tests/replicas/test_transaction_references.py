"""References to parts of values, and objects, in a transaction."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flask_globalstate import ConflictError, GlobalState
from tests.support.transactions import Names, Stop, attempt
from tests.support.workers import ObjectStore, elsewhere, make_workers, store_of

# --- references -----------------------------------------------------------------------------------


def test_a_reference_from_before_never_shows_what_was_rolled_back(byte_states: list[GlobalState]) -> None:
    mine, theirs = map(Names, byte_states)
    before = mine.data["l"]

    def fail() -> None:
        before.append("never")
        before.extend(["never"])
        mine.data["l"].append("never")
        assert mine.data["l"] == [1, "never", "never", "never"]
        assert elsewhere(lambda: mine.data["l"]) == before == [1]
        raise Stop

    with pytest.raises(Stop):
        attempt(mine.state, fail)
    assert before == mine.data["l"] == [1]
    before.append(2)
    assert before == mine.data["l"] == theirs.data["l"] == [1, 2]


def test_a_reference_from_before_is_changed_inside(byte_states: list[GlobalState]) -> None:
    mine, theirs = map(Names, byte_states)
    mine.data["k"] = {"rows": [{"id": 1}], "l": [3, 1, 2]}
    rows, row, numbers = mine.data["k"]["rows"], mine.data["k"]["rows"][0], mine.data["k"]["l"]
    with mine.state.transaction():
        row["name"] = "one"
        mine.data["k"].setdefault("new", []).append(1)
        row.setdefault("tags", []).append("a")
        row["tags"].append("b") if "tags" in row else mine.data["k"]["rows"][0]["tags"].append("b")
        rows += [{"id": 2}]
        numbers.append(0)
        numbers.sort()
        numbers[0] = "zero"
        mine.data["k"]["l"] = mine.data["k"]["l"]
    expected = [{"id": 1, "name": "one", "tags": ["a", "b"]}, {"id": 2}]
    assert theirs.data["k"] == mine.data["k"] == {"rows": expected, "l": ["zero", 1, 2, 3], "new": [1]}
    numbers.append(4)
    assert theirs.data["k"]["l"] == numbers == ["zero", 1, 2, 3, 4]


def test_a_position_inside_means_what_the_reference_from_before_saw(byte_states: list[GlobalState]) -> None:
    mine, theirs = map(Names, byte_states)
    before = mine.data["l"]
    theirs.data["l"].insert(0, "theirs")
    with pytest.raises(ConflictError):
        attempt(mine.state, lambda: before.insert(0, "mine"))
    attempt(mine.state, lambda: before.append("mine"))
    assert theirs.data["l"] == ["theirs", 1, "mine"]


def test_a_reference_from_before_assigned_to_its_place_loses_nothing(byte_states: list[GlobalState]) -> None:
    mine, theirs = map(Names, byte_states)
    before = mine.data["l"]
    with mine.state.transaction():
        before.append(2)
        mine.data["l"] = before
        before += [3]
        mine.data["l"] += [4]
    assert theirs.data["l"] == [1, 2, 3, 4]
    with mine.state.transaction():
        mine.data["l"] = "overwritten"
        mine.data["l"] = before
    assert theirs.data["l"] == before


def test_a_reference_whose_place_is_gone_inside_is_a_conflict(byte_states: list[GlobalState]) -> None:
    mine, _ = map(Names, byte_states)
    before = mine.data["l"]

    def work() -> None:
        del mine.data["l"]
        before.append(2)

    with pytest.raises(ConflictError, match="'l'"):
        attempt(mine.state, work)
    assert mine.data["l"] == [1]


@pytest.mark.parametrize("ends", ["commits", "is rolled back", "conflicts"])
def test_a_reference_from_inside_is_right_afterwards(byte_states: list[GlobalState], ends: str) -> None:
    mine, theirs = map(Names, byte_states)
    taken: list[Any] = []

    def work() -> None:
        taken.extend([mine.data["l"], mine.data["l"]])
        taken[0].append("inside")
        if ends == "is rolled back":
            raise Stop
        if ends == "conflicts":
            elsewhere(theirs.data["l"].append, "theirs")

    try:
        attempt(mine.state, work)
    except (Stop, ConflictError):
        assert ends != "commits"
    expected = {"commits": [1, "inside"], "is rolled back": [1], "conflicts": [1, "theirs"]}[ends]
    assert mine.data["l"] == theirs.data["l"] == expected
    taken[1].append("after")
    assert taken[0] == mine.data["l"] == theirs.data["l"] == [*expected, "after"]


# --- objects --------------------------------------------------------------------------------------


class Thing:
    """Of which only Python knows whether two are equal."""

    def __init__(self) -> None:
        self.items: list[int] = []


def test_on_a_store_of_objects_a_change_in_place_is_a_part_of_the_transaction() -> None:
    mine, theirs = map(Names, make_workers(2, ObjectStore))
    thing, lock = Thing(), threading.Lock()
    mine.data.update(thing=thing, lock=lock)

    def change() -> None:
        mine.data["l"].append(2)
        mine.data["thing"].items.append(1)
        assert mine.data["lock"] is lock
        assert mine.data.apply("l", lambda value: [*value, 3]) == [1, 2, 3]
        assert elsewhere(lambda: (theirs.data["l"], theirs.data["thing"].items)) == ([1], [])

    def fail() -> None:
        change()
        mine.data.pop("thing").items.append(2)
        raise Stop

    with pytest.raises(Stop):
        attempt(mine.state, fail)
    assert (theirs.data["l"], thing.items) == ([1], [])
    attempt(mine.state, change)
    assert (theirs.data["l"], theirs.data["thing"].items) == ([1, 2, 3], [1])
    commits = store_of(mine.state).commits
    attempt(mine.state, lambda: (mine.data["thing"], mine.data["lock"], mine.data.copy()))
    assert store_of(mine.state).commits == commits
