"""Containers in a store read, compute and compare as the plain ones."""

from __future__ import annotations

import copy
import gc
import json
import operator
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.tracking.plain import TrackedContainer
from tests.support.tracked import Point, holds_nothing_tracked


def disturb_by_appending(rows: Any) -> None:
    rows.append(9)


def disturb_and_undo(rows: Any) -> None:
    rows.append(9)
    rows.pop()


def disturb_by_sorting(rows: Any) -> None:
    rows.append(9)
    rows.sort()


def disturb_and_fail(rows: Any) -> None:
    rows.append(9)
    raise LookupError("of the key")


@pytest.mark.parametrize(
    "disturb", [disturb_by_appending, disturb_and_undo, disturb_by_sorting, disturb_and_fail]
)
@pytest.mark.parametrize("is_transaction", [False, True])
def test_a_list_that_its_sort_key_changes_raises_what_the_plain_one_raises(
    states: list[GlobalState], data: Any, theirs: Any, disturb: Callable[[Any], None], is_transaction: bool
) -> None:
    def sort(rows: Any) -> str:
        def key(item: Any) -> Any:
            if not calls:
                calls.append(item)
                disturb(rows)
            return item

        calls: list[Any] = []
        try:
            rows.sort(key=key)
        except (ValueError, LookupError) as error:
            return repr(error)
        return "sorted"

    data["rows"] = [3, 1, 2]
    with states[0].transaction() if is_transaction else nullcontext():
        assert sort(data["rows"]) == sort([3, 1, 2]) != "sorted"
    # Nothing is sorted, and what the key has changed is; the list goes on to work.
    assert sorted(theirs["rows"]) == [1, 2, 3, 9][: 3 if disturb is disturb_and_undo else 4]
    data["rows"].sort(reverse=True)
    assert theirs["rows"] == sorted(theirs["rows"], reverse=True)


def test_a_sort_key_may_sort_and_change_other_lists(data: Any, theirs: Any) -> None:
    data.update(rows=[3, 1, 2], others=[2, 1])
    data["rows"].sort(key=lambda item: (data["others"].sort(), data["others"].append(item), item)[2])
    assert (theirs["rows"], theirs["others"]) == ([1, 2, 3], [1, 1, 2, 3, 2])


class Boasting:
    """An iterator of two items that says it is of more than there is memory for."""

    def __init__(self) -> None:
        self._items = iter([7, 8])

    def __iter__(self) -> Boasting:
        return self

    def __next__(self) -> int:
        return next(self._items)

    def __length_hint__(self) -> int:
        return sys.maxsize


def test_an_iterator_is_asked_for_its_items_and_not_how_many_there_will_be(data: Any, theirs: Any) -> None:
    data.update(rows=[1], tags={1})
    # The plain ones can do that too.
    for rows, tags in (([1], {1}), (data["rows"], data["tags"])):
        rows.extend(Boasting())
        tags.update(Boasting())
        assert (rows, tags) == ([1, 7, 8], {1, 7, 8})
    data["rows"] += Boasting()
    data["rows"][:1] = Boasting()
    assert theirs["rows"] == [7, 8, 7, 8, 7, 8]
    assert theirs["tags"] == {1, 7, 8}


def test_what_is_read_is_as_the_plain_one(data: Any) -> None:
    value = {"l": [1, [2], {"x": 3}], "s": {1, 2}, "t": (1, [2], {3})}
    data["k"] = value
    held = data["k"]
    assert isinstance(held, dict)
    assert isinstance(held["l"], list)
    assert isinstance(held["s"], set)
    assert isinstance(held["t"][1], list)
    assert operator.eq(held, value)
    assert operator.eq(value, held)
    assert not operator.ne(held, value)
    assert repr(held) == repr(value)
    assert str(held["s"]) == str(value["s"])
    assert json.dumps(held["l"]) == json.dumps(value["l"])
    assert sorted(held) == sorted(value)
    assert [*held["l"]] == value["l"]
    assert {**held} == value
    first, *rest = held["l"]
    assert (first, rest) == (1, [[2], {"x": 3}])
    assert held["l"][::-1] == value["l"][::-1]
    match held:
        case {"l": [1, [inner], {"x": three}]}:
            assert (inner, three) == (2, 3)
        case _:
            raise AssertionError("no match")
    for container in (held, held["l"], held["s"]):
        with pytest.raises(TypeError):
            hash(container)
    assert held["l"] < [2]
    assert not bool(type(held)())


def test_a_change_and_a_copy_leave_nothing_to_the_garbage_collector(data: Any) -> None:
    data["k"] = {"rows": [[1], {"a": {2}}]}

    def change_and_copy() -> Any:
        data["k"]["rows"].append(3)
        return copy.deepcopy(data["k"])

    change_and_copy()
    gc.collect()
    gc.disable()
    try:
        assert change_and_copy() == {"rows": [[1], {"a": {2}}, 3, 3]}
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_what_is_computed_is_plain(data: Any) -> None:
    data["l"], data["d"], data["s"] = [1, 2], {"a": 1}, {1, 2}
    many, pairs, some = data["l"], data["d"], data["s"]
    for computed in (
        operator.add(many, [3]),
        operator.add([3], many),
        many * 2,
        2 * many,
        many[:],
        many.copy(),
        list(many),
        pairs | {"b": 2},
        {"b": 2} | pairs,
        pairs.copy(),
        pairs.fromkeys("ab"),
        type(pairs).fromkeys("ab"),
        some | {3},
        {3} | some,
        some & {1},
        {1} & some,
        some - {1},
        {1} - some,
        some ^ {1},
        {1} ^ some,
        some.copy(),
        some.union([3]),
        some.difference([1]),
        some.intersection([1]),
        some.symmetric_difference([1]),
    ):
        assert type(computed) in (list, dict, set)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_deep_copies_and_pickles_are_plain_at_any_depth(data: Any, make: Callable[[Any], Any]) -> None:
    data["k"] = {"l": [1, ([2], {3})], "d": {"s": {4}}}
    made = make(data["k"])
    assert made == data["k"]
    assert holds_nothing_tracked(made)
    assert holds_nothing_tracked(make([data["k"]["l"], (data["k"],)]))
    made["l"].append(5)
    assert 5 not in data["k"]["l"]


def test_a_shallow_copy_is_plain_and_shares_what_is_in_it(data: Any, theirs: Any) -> None:
    data["k"] = {"l": [1]}
    made = copy.copy(data["k"])
    assert type(made) is dict
    made["x"] = 1
    made["l"].append(2)
    assert theirs["k"] == {"l": [1, 2]}


@pytest.mark.parametrize(
    "value",
    [
        deque([1, [2]]),
        OrderedDict(a=[1]),
        defaultdict(list, a=[1]),
        Counter("aab"),
        Point(1, ["a"]),
        bytearray(b"x"),
        frozenset({1}),
        (1, "a"),
        Path("a"),
        datetime(2020, 1, 2),
        Decimal("1.5"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_come_back_as_themselves(data: Any, theirs: Any, value: Any) -> None:
    for held in (value, [value], {"k": (value,)}):
        data["k"] = held
        found = theirs["k"]
        while isinstance(found, TrackedContainer) or (type(found) is tuple and found != value):
            found = next(iter(found.values() if isinstance(found, dict) else found))
        assert type(found) is type(value)
        assert found == value
    data["k"] = []
    data["k"].append(value)
    data["k"].append([value])
    assert theirs["k"] == data["k"] == [value, [value]]
    assert type(data["k"][0]) is type(theirs["k"][0]) is type(value)


class Array:
    """As an array: a comparison gives another array, of which nobody can say whether it is true."""

    def __init__(self, *items: int) -> None:
        self.items = items

    def __eq__(self, other: object) -> Any:
        return Array(*[1 for _ in self.items])

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


def some_array(*items: int) -> Any:
    """One of numpy, where it is installed."""
    try:
        import numpy
    except ImportError:
        return Array(*items)
    return numpy.array(items)


def test_arrays_in_a_list_do_not_disturb_it(data: Any, theirs: Any) -> None:
    data["k"] = [some_array(1, 2), [1]]
    held, inner = data["k"], data["k"][1]
    theirs["k"].append(some_array(3))
    inner.append(2)
    held.insert(0, 1)
    assert theirs["k"][2] == held[2] == [1, 2]
    assert [type(item) for item in theirs["k"]] == [int, type(some_array()), type(inner), type(some_array())]
