"""A reference to a container inside a value: what it shows, and when its place is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import ConflictError
from tests.support.tracked import holds_nothing_tracked


def test_a_reference_shows_what_was_appended_here_and_elsewhere(data: Any, theirs: Any) -> None:
    data["cart"] = [0]
    cart = data["cart"]
    cart.append(1)
    assert cart == data["cart"] == [0, 1]
    theirs["cart"].append(2)
    cart.append(3)
    assert cart == data["cart"] == theirs["cart"] == [0, 1, 2, 3]
    assert data["cart"] is cart


def test_references_at_any_depth_follow(data: Any, theirs: Any) -> None:
    data["k"] = {"rows": [{"id": 1, "tags": ("x", ["a"])}, {"id": 2, "tags": ("y", [])}]}
    rows = data["k"]["rows"]
    second, tags = rows[1], rows[1]["tags"][1]
    theirs["k"]["rows"].append({"id": 3})
    theirs["k"]["new"] = True
    tags.append("b")
    theirs["k"]["rows"].insert(0, {"id": 0})
    second["seen"] = True
    expected = [{"id": 0}, {"id": 1, "tags": ("x", ["a"])}, {"id": 2, "tags": ("y", ["b"]), "seen": True}]
    assert theirs["k"]["rows"] == data["k"]["rows"] == rows == [*expected, {"id": 3}]
    assert rows[2] is second
    assert second["tags"][1] is tags


def test_a_reference_follows_its_element_when_the_list_is_sorted_here(data: Any, theirs: Any) -> None:
    data["rows"] = [{"id": 2}, {"id": 1}]
    two = data["rows"][0]
    data["rows"].sort(key=lambda row: row["id"])
    two["name"] = "two"
    assert theirs["rows"] == [{"id": 1}, {"id": 2, "name": "two"}]


def test_a_dict_keeps_its_order_in_references(data: Any, theirs: Any) -> None:
    data["k"] = {"a": 1, "b": 2, "c": 3}
    held = data["k"]
    theirs["k"]["a"] = theirs["k"].pop("a")
    theirs["k"]["d"] = 4
    held["e"] = 5
    assert list(held) == list(theirs["k"]) == ["b", "c", "a", "d", "e"]


@pytest.mark.parametrize(
    ("remove", "path"),
    [
        (lambda d: d.pop("k"), "['rows'][1]['tags']"),
        (lambda d: d["k"].pop("rows"), "['rows'][1]['tags']"),
        (lambda d: d["k"]["rows"].clear(), "['rows'][1]['tags']"),
        (lambda d: d["k"]["rows"][1].update(tags=5), "['rows'][1]['tags']"),
        (lambda d: d.update(k=5), "['rows'][1]['tags']"),
        (lambda d: d.clear(), "['rows'][1]['tags']"),
    ],
)
@pytest.mark.parametrize("who", ["this worker", "another"])
def test_a_reference_whose_place_is_gone_is_a_conflict_that_names_the_path(
    data: Any, theirs: Any, remove: Callable[[Any], Any], path: str, who: str
) -> None:
    data["k"] = {"rows": [{"id": 1}, {"id": 2, "tags": []}]}
    tags = data["k"]["rows"][1]["tags"]
    remove(data if who == "this worker" else theirs)
    before = theirs.copy()
    for _ in range(2):
        with pytest.raises(ConflictError) as caught:
            tags.append("x")
        assert (caught.value.name, caught.value.key, caught.value.path) == ("DATA", "k", path)
        assert f"DATA['k']{path}" in str(caught.value)
    assert theirs == before


def test_a_reference_that_can_not_be_told_from_others_is_a_conflict(data: Any, theirs: Any) -> None:
    data["rows"] = [{"id": 1}, {"id": 2}]
    one = data["rows"][0]
    theirs["rows"].reverse()
    with pytest.raises(ConflictError):
        one["name"] = "one"
    assert theirs["rows"] == [{"id": 2}, {"id": 1}]


def test_elements_that_are_not_equal_to_themselves_are_found_again(data: Any, theirs: Any) -> None:
    data["rows"] = [{"id": 1, "x": float("nan")}, {"id": 2, "tags": []}]
    tags = data["rows"][1]["tags"]
    theirs["rows"].append({"id": 3})
    tags.append("a")
    assert theirs["rows"][1] == {"id": 2, "tags": ["a"]}
    data["l"] = [float("nan"), 1]
    held = data["l"]
    theirs["other"] = 1
    theirs["l"] = theirs["l"].copy()
    held[1] = 2
    assert theirs["l"][1] == 2


def test_rows_of_which_one_is_changed_and_others_are_added_elsewhere(data: Any, theirs: Any) -> None:
    data["rows"] = [{"id": n} for n in range(10)]
    first, last = data["rows"][0], data["rows"][9]
    theirs["rows"][5]["name"] = "five"
    last["name"] = "nine"
    theirs["rows"].append({"id": 10})
    first["name"] = "zero"
    names = [row.get("name") for row in theirs["rows"]]
    assert names == ["zero", *[None] * 4, "five", *[None] * 3, "nine", None]


def test_an_own_change_leaves_every_other_reference_in_its_place(data: Any, theirs: Any) -> None:
    data["k"] = {"a": [1], "b": {"c": [2]}, "t": ([3],)}
    a, b, c, t = data["k"]["a"], data["k"]["b"], data["k"]["b"]["c"], data["k"]["t"][0]
    for change in (a.append, c.append, t.append):
        change("x")
    b["d"] = 1
    assert data["k"]["a"] is a
    assert data["k"]["b"] is b
    assert b["c"] is c
    assert data["k"]["t"][0] is t
    assert theirs["k"] == {"a": [1, "x"], "b": {"c": [2, "x"], "d": 1}, "t": ([3, "x"],)}


def test_setdefault_gives_what_is_in_the_dict(data: Any, theirs: Any) -> None:
    data["k"] = {}
    data["k"].setdefault("rows", []).append(1)
    theirs["k"].setdefault("rows", []).append(2)
    data["k"].setdefault("rows", []).append(3)
    assert theirs["k"] == {"rows": [1, 2, 3]}


def test_what_was_popped_is_plain_and_the_callers_own(data: Any, theirs: Any) -> None:
    data["k"] = [[1], {"a": [2]}]
    last = data["k"].pop()
    assert holds_nothing_tracked(last)
    last["a"].append(3)
    assert theirs["k"] == [[1]]


def test_the_same_object_twice_in_a_value_is_two(data: Any, theirs: Any) -> None:
    twice = [1]
    data["k"] = [twice, twice]
    data["k"][0].append(2)
    assert theirs["k"] == data["k"] == [[1, 2], [1]]
    data["k"] *= 2
    data["k"][0].append(3)
    data["k"][2].append(4)
    assert theirs["k"] == data["k"] == [[1, 2, 3], [1], [1, 2, 4], [1]]
    data["k"].append(data["k"])
    assert theirs["k"] == data["k"] == [[1, 2, 3], [1], [1, 2, 4], [1], [[1, 2, 3], [1], [1, 2, 4], [1]]]


def test_a_value_that_holds_itself_comes_back_and_is_changed_with_edit(data: Any, theirs: Any) -> None:
    for width in (1, 2):
        knot: list[Any] = [1]
        knot += [knot] * width
        data["k"] = knot
        found = theirs["k"]
        assert found[1] is found
        with data.edit("k") as value:
            value.append(2)
        assert theirs["k"][-1] == 2
    pair: tuple[Any, ...] = ([],)
    pair[0].append(pair)
    data["k"] = pair
    assert theirs["k"][0][0] is theirs["k"]


def test_what_holds_itself_is_put_into_a_list_and_the_list_is_changed_with_edit(
    data: Any, theirs: Any
) -> None:
    data["k"] = [1]
    held = data["k"]
    knot: list[Any] = []
    knot.append(knot)
    held.append(knot)
    assert theirs["k"][0] == 1
    assert theirs["k"][1][0] is theirs["k"][1]
    with pytest.raises(ConflictError, match="edit"):
        held.append(2)
    assert len(theirs["k"]) == 2
