"""Lists, dicts and sets in a store: they are as the plain ones, and each change is a commit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import ConflictError
from flask_globalstate.tracking.kinds import KINDS

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
        ours, shown = repr(data["k"]["deep"][0]), repr(theirs["k"]["deep"][0])
        # Two sets that are equal may differ in their order.
        assert shown == ours if kind is not set else sorted(shown) == sorted(ours)
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
