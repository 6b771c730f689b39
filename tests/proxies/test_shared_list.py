"""SharedList and SharedSet: every method of the plain types, on every kind of store, from two workers."""

from __future__ import annotations

import copy
import json
import operator
import pickle
import random
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, jsonify

from flask_globalstate import GlobalState, SharedList, SharedSet
from flask_globalstate.proxies.collection import methods_of
from flask_globalstate.tracking.kinds import KINDS
from tests.support.lists import PLAIN_KINDS, make


class Once(tuple[Any, ...]):
    """Stands for an iterator over these, a new one for each call."""


#: for each method of the plain types, the arguments that it is called with
LIST_CALLS: dict[str, list[tuple[Any, ...]]] = {
    "__add__": [([7],), ((7,),)],
    "__contains__": [(1,), ("no",), ([4, 5],)],
    "__delitem__": [(0,), (slice(1, 3),), (99,), ("a",)],
    "__getitem__": [(0,), (-1,), (slice(None, None, -1),), (99,), ("a",)],
    "__iadd__": [([7, [8]],), ("xy",), (5,)],
    "__imul__": [(2,), (0,), ("x",)],
    "__iter__": [()],
    "__len__": [()],
    "__mul__": [(2,), ("x",)],
    "__reversed__": [()],
    "__rmul__": [(2,)],
    "__setitem__": [(0, [1]), (slice(1, 2), "ab"), (99, 0)],
    "append": [(7,), ([7],), ()],
    "clear": [()],
    "copy": [()],
    "count": [(1,), ("no",)],
    "extend": [([7],), (Once("ab"),), (5,)],
    "index": [(3,), ("no",), (3, 1)],
    "insert": [(0, 7), (99, 7)],
    "pop": [(), (0,), (99,)],
    "remove": [(3,), ("no",)],
    "reverse": [()],
    "sort": [()],
    "__eq__": [([3, 1, 2, 1, [4, 5]],), ([],), ((3,),)],
    "__ne__": [([],)],
    "__lt__": [([9],), ((9,),)],
    "__le__": [([9],)],
    "__gt__": [([9],)],
    "__ge__": [([0],)],
}


SET_CALLS: dict[str, list[tuple[Any, ...]]] = {
    **{
        name: [({1, 9},), ([1],)]
        for name in ("__and__", "__or__", "__sub__", "__xor__", "__iand__", "__ior__", "__isub__", "__ixor__")
    },
    **{name: [({1, 9},), ([1],)] for name in ("__rand__", "__ror__", "__rsub__", "__rxor__")},
    **{name: [({1, 9},)] for name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")},
    "__contains__": [(1,), ("no",), ([],)],
    "__iter__": [()],
    "__len__": [()],
    "add": [(1,), (9,), ([],)],
    "clear": [()],
    "copy": [()],
    "difference": [([1, 2],), ([1], [2])],
    "difference_update": [([1, 2],), ([1], [2]), (5,)],
    "discard": [(1,), ("no",)],
    "intersection": [([1, 2],)],
    "intersection_update": [([1, 2],), (Once([1, 2]),)],
    "isdisjoint": [([9],), ([1],)],
    "issubset": [([1, 2, 3, 4],)],
    "issuperset": [([1],)],
    "pop": [()],
    "remove": [(1,), ("no",)],
    "symmetric_difference": [([1, 9],)],
    "symmetric_difference_update": [([1, 9],)],
    "union": [([9], [10])],
    "update": [([9], Once([10])), (5,)],
}


FIRST: dict[type, Any] = {SharedList: [3, 1, 2, 1, [4, 5]], SharedSet: {1, 2, 3}}


CALLS = {SharedList: LIST_CALLS, SharedSet: SET_CALLS}


EVERY_CALL = [
    pytest.param(kind, name, args, id=f"{kind.__name__}.{name}-{number}")
    for kind, calls in CALLS.items()
    for name, lists in calls.items()
    for number, args in enumerate(lists)
]


def outcome(thing: Any, name: str, args: tuple[Any, ...]) -> Any:
    """What a method answers or raises; an iterator as what it gives."""
    args = tuple(iter(arg) if isinstance(arg, Once) else copy.deepcopy(arg) for arg in args)
    try:
        answer = getattr(thing, name)(*args)
    except Exception as error:
        return type(error), str(error).replace("Tracked", "").lower()
    if answer is thing:
        return "itself"
    return list(answer) if isinstance(answer, Iterator) else answer


# --- every method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SharedList, SharedSet])
def test_the_table_of_calls_names_every_method_of_the_plain_type(kind: Any) -> None:
    assert set(CALLS[kind]) == methods_of(KINDS[PLAIN_KINDS[kind]])


@pytest.mark.parametrize(("kind", "name", "args"), EVERY_CALL)
def test_a_method_does_answers_and_raises_what_that_of_the_plain_type_does(
    state: GlobalState, kind: type[Any], name: str, args: tuple[Any, ...]
) -> None:
    for first in (FIRST[kind], PLAIN_KINDS[kind]()):
        if name == "sort":
            # One that fails leaves a plain list in some order.
            first = first[:4]
        shared, plain = make(state, kind, str(first), initial=first), copy.deepcopy(first)
        assert outcome(shared, name, args) == outcome(plain, name, args)
        assert shared == plain
        assert type(plain)(shared) == plain


@pytest.mark.parametrize(("kind", "name", "args"), EVERY_CALL)
def test_what_changes_the_plain_object_is_known_as_a_mutator(
    kind: type[Any], name: str, args: tuple[Any, ...]
) -> None:
    plain = copy.deepcopy(FIRST[kind])
    outcome(plain, name, args)
    if plain != FIRST[kind]:
        assert name in KINDS[PLAIN_KINDS[kind]].mutators


@pytest.mark.parametrize("kind", [SharedList, SharedSet])
def test_a_change_is_one_commit_and_a_method_that_reads_is_none(
    kind: Any, workers: list[GlobalState]
) -> None:
    shared = make(workers[0], kind, initial=FIRST[kind])
    for name, lists in CALLS[kind].items():
        if name in ("sort", "__imul__"):
            continue
        shared.clear()
        (shared.extend if kind is SharedList else shared.update)([3, 1, 2, 1])
        before = workers[0].store.revision("X").number
        made = outcome(shared, name, lists[0])
        after = workers[0].store.revision("X").number
        is_change = name in KINDS[PLAIN_KINDS[kind]].mutators and not isinstance(made, tuple)
        assert after - before == (1 if is_change else 0), name


@pytest.mark.parametrize("seed", range(5))
def test_a_program_of_changes_does_what_it_does_to_a_plain_list(state: GlobalState, seed: int) -> None:
    chance = random.Random(seed)
    shared, plain = state.list("X"), []
    for _ in range(150):
        name = chance.choice(list(LIST_CALLS))
        args = chance.choice(LIST_CALLS[name])
        if len(plain) > 20 or name == "sort":
            name, args = "clear", ()
        assert outcome(shared, name, args) == outcome(plain, name, args)
        assert shared == plain


# --- as in the plain types ------------------------------------------------------------------------


def test_operators_that_assign_keep_the_name_bound(state: GlobalState) -> None:
    rows = shared_rows = state.list("R")
    tags = shared_tags = state.set("T")
    rows += [1]
    rows *= 2
    tags |= {1, 2}
    tags -= {1}
    tags ^= {3}
    tags &= {2, 3}
    assert rows is shared_rows
    assert tags is shared_tags
    assert rows == [1, 1]
    assert tags == {2, 3}


def test_the_view_of_a_dict_is_an_operand_of_a_set_that_stays_shared(state: GlobalState) -> None:
    tags = shared_tags = state.set("T", initial={"a", "b"})
    data = state.dict("D", initial={"b": {"x"}, "c": 1})
    tags |= {"d": 1}.keys()
    tags -= data.keys()
    assert tags is shared_tags
    assert tags == {"a", "d"}
    tags &= {"a": 1}.items() | {"d"}
    tags ^= data.keys()
    assert tags is shared_tags
    assert tags == {"b", "c", "d"}
    data["b"] |= {"y": 1}.keys()
    assert data["b"] == {"x", "y"}
    with pytest.raises(TypeError):
        tags |= ["x"]


def test_they_are_used_with_plain_ones_and_with_each_other_on_both_sides(state: GlobalState) -> None:
    rows, more = state.list("R", initial=[1]), state.list("M", initial=[2])
    tags, others = state.set("T", initial={1}), state.set("O", initial={2})
    assert rows + more == [1, 2]
    assert operator.add([0], rows) == [0, 1]
    assert rows != (1,)
    assert rows == [1]
    assert rows != more
    assert rows < more
    assert sorted([[2], rows, [0]]) == [[0], rows, [2]]
    assert tags | others == {1, 2} == {2} | tags
    assert {1, 2} - tags == {2}
    assert tags.union(others, rows) == {1, 2}
    assert tags.isdisjoint(others)
    rows.extend(more)
    rows += rows
    tags |= others
    tags.update(more)
    assert rows == [1, 2, 1, 2]
    assert tags == {1, 2}
    assert rows != tags
    with pytest.raises(TypeError):
        operator.add((1,), rows)
    with pytest.raises(TypeError):
        tags |= [1]  # type: ignore[arg-type]


def test_copies_and_pickles_are_plain_at_every_depth(state: GlobalState) -> None:
    rows, tags = state.list("R", initial=[[1], {"a": [2]}]), state.set("T", initial={1})
    for made in (copy.deepcopy(rows), pickle.loads(pickle.dumps(rows))):
        assert type(made) is list
        assert type(made[0]) is list
        assert type(made[1]["a"]) is list
        assert made == rows
    assert [type(copy.copy(one)) for one in (rows, tags)] == [list, set]
    assert type(pickle.loads(pickle.dumps(tags))) is set
    for made in (rows[:], rows + rows, rows * 1, rows.copy()):
        assert type(made) is list


def test_they_are_not_hashable(state: GlobalState) -> None:
    for shared in (state.list("R"), state.set("T")):
        with pytest.raises(TypeError, match="unhashable"):
            hash(shared)


def test_str_is_that_of_the_plain_one_and_repr_is_bounded_and_names_it(state: GlobalState) -> None:
    rows = state.list("R", initial=[{"a": {1}}, "x"])
    assert f"{rows}" == str(rows) == "[{'a': {1}}, 'x']"
    assert str(state.set("T")) == "set()"
    assert f"{state.dict('D', initial={'a': [1]})}" == "{'a': [1]}"
    rows *= 1000
    assert repr(rows).startswith("SharedList('R', [")
    assert len(repr(rows)) < 500


def test_jsonify_takes_a_shared_list_and_refuses_a_set_as_it_does_a_plain_one() -> None:
    app = Flask(__name__)
    state = GlobalState(app)
    rows, tags, data = (
        state.list("R", initial=[[1], {"a": 2}]),
        state.set("T"),
        state.dict("D", initial={"a": 1}),
    )
    app.add_url_rule("/json", "json", lambda: jsonify(rows))
    app.add_url_rule("/inside", "inside", lambda: {"rows": rows})
    app.add_url_rule("/list", "list", lambda: rows)
    app.add_url_rule("/dict", "dict", lambda: (data, 201))
    app.add_url_rule("/set", "set", lambda: jsonify(tags))
    client = app.test_client()
    assert client.get("/json").json == client.get("/list").json == [[1], {"a": 2}]
    assert client.get("/inside").json == {"rows": [[1], {"a": 2}]}
    assert (client.get("/dict").json, client.get("/dict").status_code) == ({"a": 1}, 201)
    assert client.get("/set").status_code == 500
    assert json.dumps(rows.copy()) == '[[1], {"a": 2}]'


def test_a_change_of_a_set_disturbs_no_iteration(state: GlobalState) -> None:
    tags = state.set("T", initial={1, 2, 3})
    for tag in tags:
        tags.add(tag + 10)
    assert tags == {1, 2, 3, 11, 12, 13}


def test_iterating_over_a_list_that_changes_is_as_with_a_plain_one(state: GlobalState) -> None:
    rows = state.list("R", initial=[1, 2, 3])
    for row in rows:
        if row < 10:
            rows.append(row + 10)
    assert rows == [1, 2, 3, 11, 12, 13]
