"""Operators and assignments on what came out of a store."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from flask_globalstate import ConflictError, EncodingError, GlobalState
from tests.support.tracked import Point
from tests.support.workers import elsewhere, make_workers


def test_an_operator_on_an_item_is_one_commit(states: list[GlobalState], data: Any, mine: Any) -> None:
    data["log"], data["k"] = [1], {"s": {1}, "d": {"a": 1}, "l": ([1],)}
    theme = states[0].value("THEME", initial=[1])
    assert theme.value == [1]
    before = mine.commits
    data["log"] += [2]
    data["log"] *= 2
    data["k"]["s"] |= {2}
    data["k"]["s"] -= {1}
    data["k"]["s"] ^= {5}
    data["k"]["s"] &= {2}
    data["k"]["d"] |= {"b": 2}
    theme.value += [2]
    assert mine.commits - before == 8
    assert data["log"] == [1, 2, 1, 2]
    assert data["k"] == {"s": {2}, "d": {"a": 1, "b": 2}, "l": ([1],)}
    assert theme.value == [1, 2]


def test_an_operator_on_an_item_of_a_tuple_is_an_error_as_ever(data: Any, theirs: Any) -> None:
    data["k"] = ([1],)
    with pytest.raises(TypeError, match="does not support item assignment"):
        data["k"][0] += [2]
    assert theirs["k"] == ([1, 2],)


def test_assigning_to_its_own_place_in_what_has_lost_its_place_is_a_conflict(data: Any, theirs: Any) -> None:
    data["k"] = {"deep": {"x": [1]}, "l": []}
    held = data["k"]
    deep = held["deep"]
    rows = deep["x"]
    theirs["k"] = {"l": []}
    held["l"].append(1)  # Now the objects here are of the newest value.
    with pytest.raises(ConflictError):
        deep["x"] = rows
    assert theirs["k"] == {"l": [1]}


def test_assigning_to_its_own_place_is_nothing(data: Any, mine: Any) -> None:
    data["k"] = {"l": [1, [2]]}
    before = mine.commits
    data["k"] = data["k"]
    data["k"]["l"] = data["k"]["l"]
    data["k"]["l"][1] = data["k"]["l"][1]
    assert mine.commits == before


def test_an_operator_loses_nothing_that_comes_between_its_two_steps(
    data: Any, theirs: Any, mine: Any
) -> None:
    data["log"], data["k"] = [], {"log": []}
    for step in ("before", "after"):
        getattr(mine, step)["commit"] = lambda: theirs["log"].append("theirs")
        data["log"] += ["mine"]
        getattr(mine, step)["commit"] = lambda: theirs["k"]["log"].append("theirs")
        data["k"]["log"] += ["mine"]
    assert sorted(theirs["log"]) == sorted(theirs["k"]["log"]) == ["mine"] * 2 + ["theirs"] * 2


@pytest.mark.parametrize("who", ["this worker", "another"])
def test_restoring_an_old_reference_is_a_write(data: Any, theirs: Any, who: str) -> None:
    data["k"] = [1]
    old = data["k"]
    (data if who == "this worker" else theirs)["k"] = ["other"]
    data["k"] = old
    assert theirs["k"] == data["k"] == [1]
    data["d"] = {"l": [1]}
    outer, old = data["d"], data["d"]["l"]
    (data if who == "this worker" else theirs)["d"]["l"] = 5
    outer["l"] = old
    assert theirs["d"] == data["d"] == {"l": [1]}


def test_restoring_a_reference_that_an_operator_has_changed_is_a_write(data: Any, theirs: Any) -> None:
    data["k"] = [1]
    old = data["k"]
    old += [2]
    old.append(3)
    theirs["k"] = "other"
    data["k"] = old
    assert theirs["k"] == [1, 2, 3]


def test_an_assignment_in_a_statement_of_its_own_is_a_write_though_an_operator_came_before(
    states: list[GlobalState], data: Any, theirs: Any
) -> None:
    data["log"], data["k"] = ["one"], {"log": ["one"]}
    log, inner, outer = data["log"], data["k"]["log"], data["k"]
    log += ["two"]
    elsewhere(theirs.update, log=["other"])
    data["log"] = log
    assert elsewhere(theirs.get, "log") == ["one", "two"]
    inner += ["two"]
    elsewhere(theirs["k"].update, log=["other"])
    outer["log"] = inner
    assert elsewhere(theirs.get, "k") == {"log": ["one", "two"]}
    theme, their_theme = (state.value("THEME", initial=["one"]) for state in states)
    found = theme.value
    found += ["two"]
    elsewhere(setattr, their_theme, "value", ["other"])
    theme.value = found
    assert elsewhere(lambda: their_theme.value) == ["one", "two"]


def test_an_assignment_that_stands_before_the_operator_in_a_loop_is_a_write(data: Any, theirs: Any) -> None:
    data["k"] = []
    rows, written = data["k"], []
    for n in range(2):
        data["k"] = rows
        written.append(list(theirs["k"]))
        rows += [n]
        theirs["k"] = ["theirs"]
    assert written == [[], [0]]


def test_an_operator_and_an_assignment_to_another_key_are_two_statements(data: Any, theirs: Any) -> None:
    data["a"] = data["b"] = [1]
    found = data["a"]
    found += [2]
    data["b"] = found
    assert theirs.copy() == {"a": [1, 2], "b": [1, 2]}


def test_what_is_assigned_elsewhere_is_stored_plain(
    states: list[GlobalState], data: Any, theirs: Any
) -> None:
    data["a"] = {"l": [1]}
    theme = states[0].value("THEME")
    data["b"] = data["a"]["l"]
    data["c"] = {"x": data["a"], "t": (data["a"]["l"],)}
    data.update({"d": data["a"]}, e=data["a"]["l"])
    data.setdefault("f", data["a"])
    theme.value = data["a"]
    data["a"]["m"] = data["a"]["l"]
    data["a"].update(n=data["a"]["l"], o=data["b"])
    data["a"].setdefault("p", data["b"])
    data["g"] = []
    data["g"] += [data["b"], (data["b"],)]
    data["g"].append({"x": data["b"]})
    data["g"][0:1] = [data["b"]]
    data["g"].insert(0, deque([data["b"]]))
    data["b"].append(2)
    assert data["b"] == theirs["b"] == [1, 2]
    assert theirs["a"] == data["a"] == {key: [1] for key in "lmnop"}
    assert theirs["c"] == data["c"] == {"x": {"l": [1]}, "t": ([1],)}
    assert theirs["d"] == theirs["f"] == theme.value == {"l": [1]}
    assert theirs["e"] == [1]
    assert theirs["g"] == data["g"] == [deque([[1]]), [1], ([1],), {"x": [1]}]
    data["a"]["o"].append("own")
    assert (theirs["b"], theirs["a"]["o"]) == ([1, 2], [1, "own"])


def test_what_was_given_stays_the_callers_own(data: Any, theirs: Any) -> None:
    data["k"] = []
    row, point = {"tags": []}, Point()
    data["k"].append(row)
    data["k"].append(point)
    row["tags"].append("mine")
    point.tags.append("mine")
    assert data["k"] == theirs["k"] == [{"tags": []}, Point()]
    assert data["k"][1] is not point


def test_an_encoding_that_changes_types_shows_here_what_others_read() -> None:
    mine, theirs = (state.dict("DATA") for state in make_workers(encoding="json"))
    mine["k"] = {"l": []}
    held = mine["k"]["l"]
    held.append((1, [2]))
    held += [(3,)]
    mine["k"]["t"] = (4,)
    assert held == mine["k"]["l"] == theirs["k"]["l"] == [[1, [2]], [3]]
    assert mine["k"]["t"] == theirs["k"]["t"] == [4]
    assert mine["k"]["l"] is held
    with pytest.raises(EncodingError):
        held.append({1})
    with pytest.raises(EncodingError):
        mine["k"][1] = 2
    assert theirs["k"] == mine["k"] == {"l": [[1, [2]], [3]], "t": [4]}
