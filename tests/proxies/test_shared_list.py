"""SharedList and SharedSet: every method of the plain types, on every kind of store, from two workers."""

from __future__ import annotations

import copy
import json
import operator
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify

import flask_globalstate
from flask_globalstate import ConflictError, GlobalState, SharedList, SharedSet, UnsupportedOperationError
from flask_globalstate.proxies.base import Proxy
from flask_globalstate.proxies.collection import METHODS, MUTATORS
from tests.support import PATIENCE
from tests.support.authors import CustomStore, create_custom_store

PLAIN_KINDS = {SharedList: list, SharedSet: set}
STORES = ["memory", "shelve", "custom"]


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


@pytest.fixture(params=STORES)
def settings(request: Any, tmp_path: Path) -> dict[str, Any]:
    return {
        "memory": {"STORE_BACKEND": "memory"},
        "shelve": {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")},
        "custom": {"STORE_BACKEND": CustomStore, "STORE_FACTORY": create_custom_store},
    }[request.param]


@pytest.fixture
def state(settings: dict[str, Any]) -> Iterator[GlobalState]:
    made = GlobalState.from_config(settings)
    yield made
    made.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[GlobalState]]:
    """Two states on one store, as two workers have them."""
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    made = [GlobalState.from_config(settings) for _ in range(2)]
    yield made
    for one in made:
        one.close()


def make(state: GlobalState, kind: type[Any], name: str = "X", **options: Any) -> Any:
    return (state.list if kind is SharedList else state.set)(name, **options)


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


# --- every method -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SharedList, SharedSet])
def test_the_table_of_calls_names_every_method_of_the_plain_type(kind: Any) -> None:
    assert set(CALLS[kind]) == set(METHODS[PLAIN_KINDS[kind]])


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
        assert name in MUTATORS[PLAIN_KINDS[kind]]


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
        is_change = name in MUTATORS[PLAIN_KINDS[kind]] and not isinstance(made, tuple)
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


# --- as in the plain types ----------------------------------------------------------------------


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


# --- what is shared -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SharedList, SharedSet])
def test_what_was_never_written_reads_as_empty_and_writes_nothing(
    kind: Any, workers: list[GlobalState]
) -> None:
    shared = make(workers[0], kind)
    assert not shared
    assert len(shared) == 0
    assert shared == PLAIN_KINDS[kind]()
    assert workers[0].store.revision("X").number == 0


def test_two_workers_append_and_what_is_held_follows(workers: list[GlobalState]) -> None:
    here, there = (worker.list("R", initial=[[0]]) for worker in workers)
    row = here[0]
    there.append("there")
    here.append("here")
    row.append(1)
    there[0].append(2)
    row.append(3)
    assert here == there == [[0, 1, 2, 3], "there", "here"]
    assert row == [0, 1, 2, 3]


def test_both_may_be_the_first_to_write(workers: list[GlobalState]) -> None:
    here, there = (worker.set("T") for worker in workers)
    assert (len(here), len(there)) == (0, 0)
    here.add(1)
    there.add(2)
    assert here == there == {1, 2}


def test_a_position_means_the_list_that_was_seen(workers: list[GlobalState]) -> None:
    here, there = (worker.list("R", initial=[1, 2, 3]) for worker in workers)
    with workers[0].request():
        assert here[0] == 1
        there.insert(0, 0)
        with pytest.raises(ConflictError):
            del here[0]
        here.append(4)
    assert here == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("in_request", [False, True])
def test_a_list_that_another_worker_has_cleared_begins_anew(
    workers: list[GlobalState], in_request: bool
) -> None:
    here = workers[0].list("R", initial=[1])
    with workers[0].request():
        assert here == [1]
        workers[1].list("R")
        workers[1].clear()
        here.append(2)
    assert here == workers[1].list("R") == [2]


def test_initial_is_committed_once_and_may_be_a_callable(workers: list[GlobalState]) -> None:
    here, there = (worker.list("R", initial=lambda: [1]) for worker in workers)
    here.append(2)
    assert there == [1, 2]
    first = [[0]]
    rows = workers[0].list("S", initial=first)
    rows[0].append(1)
    assert first == [[0]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda state: state.list("X", initial={1}),
        lambda state: state.list("X", initial="abc"),
        lambda state: state.set("X", initial=[1]),
    ],
)
def test_initial_of_another_type_is_refused_at_once(wrong: Callable[[GlobalState], Any]) -> None:
    with pytest.raises(TypeError, match="'X'"):
        wrong(GlobalState())


def test_the_same_name_is_the_same_proxy_and_not_of_two_kinds() -> None:
    state = GlobalState()
    assert state.list("X", initial=[1]) is state.list("X", initial=[1])
    with pytest.raises(flask_globalstate.ConfigurationError, match="SharedList"):
        state.set("X")


def test_a_name_that_holds_something_else_says_so(workers: list[GlobalState]) -> None:
    workers[0].value("X").value = 5
    rows = workers[1].list("X")
    for use in (lambda: len(rows), lambda: rows.append(1)):
        with pytest.raises(TypeError, match="'X' holds a int"):
            use()
    assert "not readable" in repr(rows)


def test_changes_in_a_transaction_are_committed_together_or_not_at_all(settings: dict[str, Any]) -> None:
    state = GlobalState.from_config(settings)
    rows, tags = state.list("R"), state.set("T", initial={1})
    if not state.store.conditional:
        with pytest.raises(UnsupportedOperationError), state.transaction():
            rows.append(1)
        return
    with state.transaction():
        rows.append([1])
        rows[0].append(2)
        tags.add(2)
        assert (rows, tags) == ([[1, 2]], {1, 2})

    @state.transactional
    def fail() -> None:
        tags.clear()
        rows.pop(5)

    with pytest.raises(IndexError):
        fail()
    assert (rows, tags) == ([[1, 2]], {1, 2})
    state.close()


def test_a_list_that_holds_itself_is_changed_all_the_same(workers: list[GlobalState]) -> None:
    def knot() -> list[Any]:
        made: list[Any] = [1]
        made.append(made)
        return made

    here, there = (worker.list("R", initial=knot) for worker in workers)
    here.append(2)
    assert (there[0], there[2], len(there)) == (1, 2, 3)


def test_a_store_of_objects_keeps_the_object_itself() -> None:
    state = GlobalState.from_config({})
    rows, thing = state.list("R"), object()
    rows.append(thing)
    assert rows[0] is thing
    rows.append([])
    rows[1].append(1)
    assert rows[1] == [1]


def test_a_shared_class_that_promises_nothing_refuses_changes() -> None:
    class Shared(CustomStore):
        shared = True

    state = GlobalState.from_config({"STORE_BACKEND": Shared})
    rows = state.list("R")
    assert rows == []
    with pytest.raises(UnsupportedOperationError, match="Shared"):
        rows.append(1)


def test_threads_lose_no_append_and_no_add(settings: dict[str, Any]) -> None:
    state = GlobalState.from_config(settings)
    rows, tags = state.list("R"), state.set("T")
    start = threading.Barrier(4)

    def write(number: int) -> None:
        start.wait(PATIENCE)
        for turn in range(25):
            rows.append((number, turn))
            tags.add((number, turn))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    expected = {(number, turn) for number in range(4) for turn in range(25)}
    assert sorted(rows) == sorted(expected)
    assert tags == expected
    state.close()


def test_the_data_moves_along_to_another_store(tmp_path: Path) -> None:
    state = GlobalState.from_config({})
    rows, tags = state.list("R", initial=[[1]]), state.set("T", initial={1})
    rows[0].append(2)
    state.use_store("shelve", path=str(tmp_path / "store"))
    rows[0].append(3)
    tags.add(2)
    assert (rows, tags) == ([[1, 2, 3]], {1, 2})
    state.close()


def test_the_default_state_gives_them_too() -> None:
    rows, tags = flask_globalstate.shared_list("default rows"), flask_globalstate.shared_set("default tags")
    rows.append(1)
    tags.add(1)
    assert (rows, tags) == ([1], {1})
    assert isinstance(rows, Proxy)
    assert flask_globalstate.default_state.list("default rows") is rows


def test_used_before_its_store_is_configured_it_says_what_to_do() -> None:
    rows = GlobalState().list("R")
    for use in (lambda: rows.append(1), lambda: len(rows), lambda: rows == []):
        with pytest.raises(RuntimeError, match=r"'R'.*init_app"):
            use()
    assert "no store yet" in repr(rows)
