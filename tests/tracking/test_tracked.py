"""Lists, dicts and sets in a store: they are as the plain ones, and each change is a commit."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import operator
import pickle
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import ConflictError, EncodingError, GlobalState
from flask_globalstate.replicas.requests import MOST_NOTES
from flask_globalstate.tracking.kinds import KINDS
from flask_globalstate.tracking.plain import DEEPEST, TrackedContainer, can_be_tracked, detach
from tests.support.threads import run_threads
from tests.support.tracked import Point
from tests.support.workers import elsewhere, make_workers

#: what only reads, of what a type has and any object has not; a new Python's new method is in neither table
READERS: dict[type, str] = {
    list: """__add__ __class_getitem__ __contains__ __getitem__ __iter__ __len__ __mul__ __reversed__
             __rmul__ copy count index""",
    dict: """__class_getitem__ __contains__ __getitem__ __iter__ __len__ __or__ __reversed__ __ror__ copy
             fromkeys get items keys values""",
    set: """__and__ __class_getitem__ __contains__ __iter__ __len__ __or__ __rand__ __ror__ __rsub__ __rxor__
            __sub__ __xor__ copy difference intersection isdisjoint issubset issuperset
            symmetric_difference union""",
}


MUTATORS = {kind: set(dir(kind)) - set(dir(object)) - set(names.split()) for kind, names in READERS.items()}


#: calls of each mutating method, each on a value and with arguments
CALLS: dict[type, dict[str, list[tuple[Any, ...]]]] = {
    list: {
        "append": [(4,), ([5, {"a": 1}],), (), (1, 2)],
        "clear": [()],
        "extend": [([4, 5],), ((4,),), ("ab",), ({"k": 1},), ([],), (5,)],
        "insert": [(0, 9), (-1, 9), (100, 9), ("0", 9)],
        "pop": [(), (0,), (-1,), (1,), (50,), ("0",)],
        "remove": [(1,), ([2],), ("absent",)],
        "reverse": [()],
        "sort": [()],
        "__delitem__": [(0,), (-1,), (slice(0, 2),), (slice(None, None, 2),), (50,), ("0",)],
        "__iadd__": [([4],), ("ab",), (5,)],
        "__imul__": [(2,), (0,), (1,), ("2",)],
        "__setitem__": [(0, 9), (-1, [9]), (slice(0, 2), [7, 8, 9]), (slice(None, None, 2), [1]), (50, 1)],
    },
    dict: {
        "clear": [()],
        "pop": [("a",), ("absent",), ("absent", 5), ("b", 5), ([],)],
        "popitem": [()],
        "setdefault": [("a", 5), ("absent", 5), ("absent",), ("absent", [1]), ("b", []), ([], 1)],
        "update": [({"a": 5},), ([("x", 1), ("y", [2])],), ({},), (), (5,), ([1],)],
        "__delitem__": [("a",), ("absent",), ([],)],
        "__ior__": [({"x": 1},), ([("x", 1)],), (5,)],
        "__setitem__": [("a", 5), ("new", [1]), (1, {"x": ()}), ([], 1)],
    },
    set: {
        "add": [(4,), (1,), ((1, 2),), ([],)],
        "clear": [()],
        "difference_update": [({1},), ([1, 2], {3}), (), (5,)],
        "discard": [(1,), (50,), ([],)],
        "intersection_update": [({1},), ([1, 2], {2}), (), (5,)],
        "pop": [(), (1,)],
        "remove": [(1,), (50,)],
        "symmetric_difference_update": [({1, 9},), ([1, 9],), (5,)],
        "update": [({7},), ([8], (9,)), (), ("ab",), (5,), ([[]],)],
        "__iand__": [({1},), ([1],)],
        "__ior__": [({7},), (frozenset({8}),), ([7],)],
        "__isub__": [({1},), (5,)],
        "__ixor__": [({1, 9},), (None,)],
    },
}


VALUES: dict[type, list[Any]] = {
    list: [[1, [2], "three"], [3, 1, 2], []],
    dict: [{"a": 1, "b": [2], "c": {"d": 3}}, {}],
    set: [{1, 2, 3}, set()],
}


EVERY_CALL = [
    pytest.param(kind, name, args, id=f"{kind.__name__}.{name}{args}")
    for kind, calls in CALLS.items()
    for name, several in calls.items()
    for args in several
]


BY_POSITION = {"insert", "reverse", "sort", "__delitem__", "__setitem__"}


def outcome(target: Any, name: str, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """What a method answers, or the type of its error; and what it leaves."""
    try:
        answer = getattr(target, name)(*args)
    except Exception as error:
        answer = type(error)
    return ("itself" if answer is target else answer), target


# --- every method ---------------------------------------------------------------------------------


def test_every_kind_of_container_that_is_tracked_is_tested() -> None:
    assert {kind.plain for kind in KINDS.values() if kind.is_tracked} == CALLS.keys() == READERS.keys()


@pytest.mark.parametrize("kind", MUTATORS)
def test_every_mutating_method_of_this_python_is_a_commit(data: Any, kind: type) -> None:
    data["k"] = kind()
    tracked = type(data["k"])
    for name in MUTATORS[kind]:
        assert getattr(tracked, name) is not getattr(kind, name), f"{kind.__name__}.{name} changes only here"
    assert MUTATORS[kind] == CALLS[kind].keys()


@pytest.mark.parametrize("kind", READERS)
def test_reading_is_that_of_the_plain_type(data: Any, kind: type) -> None:
    data["k"] = kind()
    for name in set(READERS[kind].split()) - {"__class_getitem__", "fromkeys"}:
        assert getattr(type(data["k"]), name) is getattr(kind, name)


@pytest.mark.parametrize(("kind", "name", "args"), EVERY_CALL)
def test_a_call_does_and_answers_what_the_plain_one_does_in_one_commit(
    data: Any, theirs: Any, mine: Any, kind: type, name: str, args: tuple[Any, ...]
) -> None:
    for value in VALUES[kind]:
        plain = copy.deepcopy(value)
        data["k"] = {"deep": [value]}
        held, before = data["k"]["deep"][0], mine.commits
        expected, after = outcome(plain, name, args), copy.deepcopy(plain)
        assert outcome(held, name, args) == expected
        assert theirs["k"] == {"deep": [after]}
        assert repr(theirs["k"]["deep"][0]) == repr(data["k"]["deep"][0])
        failed = isinstance(expected[0], type) or expected[0] is NotImplemented
        assert mine.commits - before == (0 if failed else 1)
        assert data["k"]["deep"][0] is held


@pytest.mark.parametrize(("kind", "name", "args"), EVERY_CALL)
def test_a_call_means_the_newest_value_whoever_has_changed_it(
    data: Any, theirs: Any, kind: type, name: str, args: tuple[Any, ...]
) -> None:
    changes: dict[type, Callable[[Any], None]] = {
        list: lambda value: value.append(1),
        dict: lambda value: value.update(a=7, theirs=8),
        set: lambda value: value.update({1, 4}),
    }
    plain = copy.deepcopy(VALUES[kind][0])
    data["k"] = {"deep": (VALUES[kind][0],)}
    held = data["k"]["deep"][0]
    changes[kind](theirs["k"]["deep"][0])
    changes[kind](plain)
    positional = name in BY_POSITION or (name == "pop" and args)
    if kind is list and positional:
        with pytest.raises(ConflictError):
            getattr(held, name)(*args)
        assert theirs["k"] == {"deep": (plain,)}
        return
    assert outcome(held, name, args)[0] == outcome(plain, name, args)[0]
    assert theirs["k"] == data["k"] == {"deep": (plain,)}


@pytest.mark.parametrize("name", ["sort", "reverse", "insert", "pop", "__setitem__", "__delitem__"])
def test_a_position_means_the_list_that_was_seen_also_when_a_commit_comes_between(
    data: Any, theirs: Any, mine: Any, name: str
) -> None:
    data["k"] = [3, 1, 2]
    held = data["k"]
    args = {"insert": (0, 5), "pop": (0,), "__setitem__": (0, 5), "__delitem__": (0,)}.get(name, ())
    mine.before["commit"] = lambda: theirs["k"].append(0)
    with pytest.raises(ConflictError, match=r"'DATA'.*another worker"):
        getattr(held, name)(*args)
    assert data["k"] == [3, 1, 2, 0]
    # Now it has been seen.
    getattr(data["k"], name)(*args)


def test_a_change_elsewhere_in_the_value_does_not_disturb_positions(data: Any, theirs: Any) -> None:
    data["k"] = {"a": [3, 1, 2], "b": []}
    held = data["k"]["a"]
    theirs["k"]["b"].append(1)
    held.sort()
    held[0] = "one"
    assert theirs["k"] == {"a": ["one", 2, 3], "b": [1]}


def test_sort_takes_its_arguments(data: Any, theirs: Any) -> None:
    data["k"] = ["b", "C", "a"]
    data["k"].sort(key=str.lower, reverse=True)
    assert theirs["k"] == ["C", "b", "a"]
    with pytest.raises(ZeroDivisionError):
        data["k"].sort(key=lambda item: 1 / 0)
    assert theirs["k"] == ["C", "b", "a"]


# --- as the plain ones ----------------------------------------------------------------------------


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


def holds_nothing_tracked(value: Any) -> bool:
    """Whether a value is plain at every depth."""
    if isinstance(value, TrackedContainer):
        return False
    items = value.values() if isinstance(value, dict) else value
    return not isinstance(value, (list, tuple, dict, set)) or all(map(holds_nothing_tracked, items))


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


# --- references -----------------------------------------------------------------------------------


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


def test_depth_is_no_limit_that_one_meets(data: Any, theirs: Any) -> None:
    value: Any = []
    for _ in range(100):
        value = [value, {"k": value}]
        value[1] = {"k": []}
    data["k"] = value
    held, found = data["k"], theirs["k"]
    for _ in range(100):
        held, found = held[0], found[0]
    held.append("deep")
    found.append("deeper")
    assert theirs["k"] == data["k"]
    assert found == ["deep", "deeper"]


def nested(kind: Any, levels: int) -> Any:
    value = kind()
    for _ in range(levels - 1):
        value = {"k": value} if kind is dict else kind([value])
    return value


@pytest.mark.slow
@pytest.mark.parametrize("levels", [150, DEEPEST, DEEPEST + 1, 300, 450, 700, 950, 5_000, 100_000])
@pytest.mark.parametrize("kind", [list, dict, tuple, frozenset])
@pytest.mark.parametrize("encoding", ["pickle", "json"])
def test_a_value_of_any_depth_is_stored_whole_or_refused_and_breaks_nothing(
    encoding: str, kind: Any, levels: int
) -> None:
    first, second = make_workers(encoding=encoding)
    mine, theirs = first.dict("DATA"), second.dict("DATA")
    rows, tags = first.list("ROWS"), first.set("TAGS")
    mine["rows"] = ["first"]
    deep, held = nested(kind, levels), mine["rows"]
    attempts: list[Callable[[], Any]] = [
        lambda: mine.update(a=1, deep=deep),
        lambda: mine.setdefault("other", deep),
        lambda: mine.apply("rows", lambda value: [*value, deep]),
        lambda: held.append(deep),
        lambda: held.__iadd__([deep]),
        lambda: held.insert(0, deep),
        lambda: rows.append(deep),
        lambda: tags.add(deep) if kind in (tuple, frozenset) else None,
        lambda: mine["deep"].append("more") if kind is list and "deep" in mine else None,
        lambda: mine["deep"].update(more=1) if kind is dict and "deep" in mine else None,
        lambda: copy.copy(mine["deep"]) if "deep" in mine else None,
        lambda: setattr(first.value("V"), "value", deep),
    ]
    for attempt in attempts:
        before = second.store.revision("DATA"), len(theirs["rows"])
        try:
            attempt()
        except (EncodingError, ConflictError):
            assert (second.store.revision("DATA"), len(theirs["rows"])) == before
        assert len(theirs["rows"]) == len(mine["rows"])
        assert ("deep" in theirs) == ("a" in theirs)
    for change in (lambda: rows.append("last"), lambda: tags.add("last"), rows.clear, tags.clear, mine.clear):
        with suppress(EncodingError):  # A set is no JSON.
            change()
    assert (len(theirs), len(second.list("ROWS"))) == (0, 0)
    for state in (first, second):
        state.close()


def twice(levels: int) -> Any:
    inside = nested(list, levels - 1)
    return [inside, inside]


@pytest.mark.parametrize(
    "make",
    [
        lambda levels: nested(list, levels),
        lambda levels: nested(dict, levels),
        lambda levels: [nested(list, levels - 1), 1],
        lambda levels: [nested(tuple, levels - 2), [nested(dict, levels - 2)]],
        lambda levels: ([nested(tuple, levels - 3)],),
        lambda levels: [[nested(tuple, levels - 3), [[]]], []],
        twice,
    ],
)
def test_a_value_is_tracked_up_to_the_same_depth_whatever_it_is_made_of(
    data: Any, theirs: Any, make: Callable[[int], Any]
) -> None:
    data.update(deepest=make(DEEPEST), deeper=make(DEEPEST + 3))
    assert theirs.copy() == {"deepest": make(DEEPEST), "deeper": make(DEEPEST + 3)}
    assert "Tracked" in repr(list(map(type, containers(theirs["deepest"]))))
    assert "Tracked" not in repr(list(map(type, containers(theirs["deeper"]))))
    for value, is_deeper in ((make(DEEPEST), False), (make(DEEPEST + 3), True)):
        assert detach(value) == (value, is_deeper)
        assert can_be_tracked(value) is not is_deeper


def containers(value: Any) -> list[Any]:
    """The first two levels."""
    return [value, *(value.values() if isinstance(value, dict) else value)]


def test_a_value_that_grows_deeper_and_deeper_is_refused_when_it_can_not_be_stored(
    data: Any, theirs: Any
) -> None:
    data["k"] = []
    held, levels = data["k"], 1

    def grow() -> None:
        nonlocal held, levels
        while levels < 5_000:
            held.append([])
            held, levels = held[0], levels + 1

    with pytest.raises(EncodingError):
        grow()
    found, stored = theirs["k"], 1
    while found:
        found, stored = found[0], stored + 1
    assert stored == levels > DEEPEST


def test_what_is_tracked_is_changed_at_the_end_of_the_stack_too(data: Any, theirs: Any) -> None:
    data["k"] = nested(list, DEEPEST)
    held = data["k"]

    def deeper(frames: int) -> None:
        if frames:
            deeper(frames - 1)
        else:
            held.append("more")

    room = sys.getrecursionlimit() - len(inspect.stack(0))
    with pytest.raises(EncodingError, match="too many containers"):
        deeper(room - DEEPEST)
    deeper(room - 3 * DEEPEST)
    assert theirs["k"][1:] == held[1:] == ["more"]
    assert isinstance(theirs["k"], TrackedContainer)


def test_what_can_not_be_copied_on_memory_is_an_encoding_error() -> None:
    data = GlobalState.from_config({}).dict("DATA")
    data["k"] = nested(list, 5_000)
    with pytest.raises(EncodingError, match="'k'"):
        data.apply("k", lambda value: value)
    with pytest.raises(EncodingError, match="'k'"), data.edit("k"):
        pass
    with pytest.raises(EncodingError, match="initial"):
        len(GlobalState.from_config({}).dict("OTHER", initial={"k": nested(dict, 5_000)}))


# --- threads --------------------------------------------------------------------------------------


def test_a_reference_is_what_is_read_after_its_change_whoever_has_read_that_before(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data["k"] = [1]
    held, real = data["k"], data._replica.commit

    def commit(*arguments: Any) -> Any:
        """Another thread reads what was committed before the objects here show it."""
        revision = real(*arguments)
        assert elsewhere(data.get, "k") == [1, 2]
        return revision

    monkeypatch.setattr(data._replica, "commit", commit)
    held.append(2)
    assert data["k"] is held
    assert held == [1, 2]


def test_threads_that_change_one_held_object_lose_nothing(states: list[GlobalState], theirs: Any) -> None:
    data = states[0].dict("DATA", initial={"k": {"log": [], "counts": {}, "seen": set()}})
    held = data["k"]
    log, counts, seen = held["log"], held["counts"], held["seen"]

    def work(who: int) -> None:
        for n in range(40):
            log.append((who, n))
            counts[f"{who} {n}"] = n
            if n % 3 == 0:
                del counts[f"{who} {n}"]
            seen.add((who, n))
            counts.setdefault(f"list {n}", []).append(who)

    run_threads(*[lambda who=who: work(who) for who in range(3)], lambda: work_elsewhere(theirs))
    assert len(log) == len(set(log)) == 160
    assert log == theirs["k"]["log"] == data["k"]["log"]
    assert seen == theirs["k"]["seen"] == set(log)
    assert counts == theirs["k"]["counts"]
    assert sorted(map(tuple, (sorted(counts[f"list {n}"]) for n in range(40)))) == [(0, 1, 2)] * 40
    assert data["k"]["log"] is log


def work_elsewhere(theirs: Any) -> None:
    """What another worker does meanwhile, with references that it takes anew."""
    for n in range(40):
        theirs["k"]["log"].append((9, n))
        theirs["k"]["seen"].add((9, n))


def test_two_threads_and_a_request_see_whole_values(states: list[GlobalState], theirs: Any) -> None:
    data = states[0].dict("DATA", initial={"k": {"a": [0], "b": [0]}})
    assert data["k"]["a"] == [0]
    stop = threading.Event()

    def change() -> None:
        try:
            for n in range(150):
                theirs.apply("k", lambda value, n=n: {"a": [*value["a"], n], "b": [*value["b"], n]})
        finally:
            stop.set()

    def request() -> None:
        while not stop.is_set():
            with states[0].request():
                first = data["k"]
                assert first["a"] == first["b"]

    run_threads(change, request, request)
    assert len(data["k"]["a"]) == 151


def test_what_has_changed_is_not_remembered_of_what_is_gone_for_long(data: Any, theirs: Any) -> None:
    data["k"] = {}
    tracked = data["k"]._tracked_value
    for n in range(MOST_NOTES + 100):
        data["k"][n] = {}
        data["k"][n]["x"] = 1
        if n % 2:
            del data["k"][n]
        else:
            data["k"].pop(n)
    assert data["k"]._tracked_value is tracked
    assert list(tracked._changed) == [id(tracked.value)]
    assert len(tracked._changed[id(tracked.value)]) == MOST_NOTES
    data["k"]["a"] = {"x": 1}
    data["k"]["a"]["x"] = 2
    held = data["k"]["a"]
    assert id(held) in tracked._changed
    theirs["k"].pop("a")
    tracked.value["b"] = 1
    assert "a" not in data["k"]
    assert id(held) not in tracked._changed
