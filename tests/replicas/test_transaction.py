"""Transactions of a state: all or nothing, of one revision, serializable, and seen by nobody before."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, jsonify

from flask_globalstate import ConflictError, GlobalState, StoreUnavailableError, UnsupportedOperationError
from flask_globalstate.state.retry import SHORTEST_PAUSE
from tests.support.workers import ObjectStore, WorkerStore, elsewhere, make_workers, store_of

#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 240


@pytest.fixture(params=[WorkerStore, ObjectStore], ids=["bytes", "objects"])
def states(request: Any) -> Iterator[list[GlobalState]]:
    """Two workers; a store of objects is shared by two states of one process."""
    states = make_workers(2, request.param)
    yield states
    for state in states:
        state.close()


@pytest.fixture
def byte_states() -> Iterator[list[GlobalState]]:
    """Two workers on a store of bytes."""
    states = make_workers()
    yield states
    for state in states:
        state.close()


class Names:
    """One global of each kind."""

    def __init__(self, state: GlobalState) -> None:
        self.state = state
        self.data = state.dict("DATA", initial={"a": 1, "l": [1]})
        self.other = state.dict("OTHER")
        self.hits = state.counter("HITS")
        self.theme = state.value("THEME", initial="dark")

    def all(self) -> tuple[Any, ...]:
        """The content of all of them."""
        return dict(self.data), dict(self.other), self.hits.value, self.theme.value


@pytest.fixture
def mine(states: list[GlobalState]) -> Names:
    return Names(states[0])


@pytest.fixture
def theirs(states: list[GlobalState]) -> Names:
    return Names(states[1])


class Stop(Exception):
    """Ends a transaction."""


def attempt(state: GlobalState, function: Callable[[], Any]) -> Any:
    """What a function answers in a transaction."""
    with state.transaction():
        return function()


# --- all or nothing -----------------------------------------------------------------------------------


def change_everything(names: Names) -> tuple[Any, ...]:
    """Use every way of writing, and give what must be there after it."""
    data = names.data
    data["a"] += 1
    data["l"].append(2)
    data["l"] += [3]
    data["new"] = {"deep": []}
    data["new"]["deep"].append(5)
    assert data.pop("new") == {"deep": [5]}
    assert data.setdefault("rows", []) == []
    data["rows"].append({"id": 1})
    data["rows"][0]["id"] = 2
    names.other.update({"x": 1}, y=2)
    assert names.other.popitem() == ("y", 2)
    names.other |= {"z": 3}
    del names.other["x"]
    assert names.other.increment("n", 5) == 5
    assert names.other.compare_and_set("n", 5, 6)
    assert not names.other.compare_and_set("n", 5, 7)
    assert names.other.apply("n", lambda n: n + 1) == 7
    with names.other.edit("n", default=0) as _:
        pass
    with data.edit("rows") as rows:
        rows.append("edited")
    names.hits += 2
    names.hits -= 1
    names.theme.value = "light"
    names.theme.value += "er"
    return {"a": 2, "l": [1, 2, 3], "rows": [{"id": 2}, "edited"]}, {"z": 3, "n": 7}, 1, "lighter"


def test_everything_is_seen_inside_and_by_others_after_one_commit(mine: Names, theirs: Names) -> None:
    before = mine.all()
    commits = store_of(mine.state).commits
    with mine.state.transaction():
        expected = change_everything(mine)
        assert mine.all() == expected
        assert elsewhere(theirs.all) == elsewhere(mine.all) == before
        assert store_of(mine.state).commits == commits
    assert store_of(mine.state).commits == commits + 1
    assert theirs.all() == mine.all() == expected


def test_an_error_leaves_everything_as_it_was(mine: Names, theirs: Names) -> None:
    before, commits = mine.all(), store_of(mine.state).commits

    def fail() -> None:
        change_everything(mine)
        raise Stop

    with pytest.raises(Stop):
        attempt(mine.state, fail)
    assert theirs.all() == mine.all() == before
    assert store_of(mine.state).commits == commits


def test_a_conflict_leaves_everything_as_it_was(mine: Names, theirs: Names) -> None:
    def both() -> None:
        change_everything(mine)
        elsewhere(theirs.data.update, a="theirs")

    with pytest.raises(ConflictError):
        attempt(mine.state, both)
    assert theirs.all() == mine.all() == ({"a": "theirs", "l": [1]}, {}, 0, "dark")


def test_clear_and_what_comes_after_it_are_one_commit(mine: Names, theirs: Names) -> None:
    with mine.state.transaction():
        mine.data.clear()
        assert len(mine.data) == 0
        assert "a" not in mine.data
        mine.data["b"] = 1
        assert list(mine.data) == ["b"]
    assert dict(theirs.data) == dict(mine.data) == {"b": 1}


def test_a_first_use_inside_of_a_transaction_has_the_initial_content(
    byte_states: list[GlobalState],
) -> None:
    data = byte_states[0].dict("FIRST", initial={"a": 1})
    with byte_states[0].transaction():
        data["b"] = 2
    assert dict(byte_states[1].dict("FIRST")) == {"a": 1, "b": 2}


def test_nothing_is_written_if_a_value_can_not_be(byte_states: list[GlobalState]) -> None:
    data = byte_states[0].dict("DATA")

    def work() -> None:
        data["a"] = 1
        with pytest.raises(ValueError, match="'b'"):
            data["b"] = threading.Lock()
        with pytest.raises(TypeError):
            data.update({"c": 1, frozenset(): 1})
        assert dict(data) == {"a": 1}

    attempt(byte_states[0], work)
    assert dict(byte_states[1].dict("DATA")) == {"a": 1}


def test_an_answer_that_was_lost_is_not_hidden_by_what_was_held(byte_states: list[GlobalState]) -> None:
    data = byte_states[0].dict("DATA")
    data["a"] = 1

    def lose() -> None:
        raise StoreUnavailableError("down")

    with byte_states[0].request():
        assert data["a"] == 1
        store_of(byte_states[0]).after["commit"] = lose
        with pytest.raises(StoreUnavailableError):
            attempt(byte_states[0], lambda: data.update(a=2))
        assert data["a"] == 2


# --- isolation ----------------------------------------------------------------------------------------


READS: dict[str, Callable[[Names], Any]] = {
    "a key": lambda names: names.data["a"],
    "get": lambda names: names.data.get("a"),
    "in": lambda names: "a" in names.data,
    "an absent key": lambda names: names.data.get("new"),
    "an absent key, in": lambda names: "new" in names.data,
    "length": lambda names: len(names.data),
    "iteration": lambda names: list(names.data),
    "items": lambda names: dict(names.data),
    "snapshot": lambda names: names.data.snapshot(),
    "bool": lambda names: bool(names.data),
    "a nested value": lambda names: names.data["l"][0],
    "setdefault": lambda names: names.data.setdefault("a", 5),
    "pop of what is absent": lambda names: names.data.pop("new", None),
    "compare_and_set": lambda names: names.data.compare_and_set("a", "something else", 1),
    "a counter": lambda names: names.hits.value,
    "a value": lambda names: names.theme.value,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_whatever_was_read_is_a_condition(mine: Names, theirs: Names, read: Callable[[Names], Any]) -> None:
    def others_change_everything() -> None:
        theirs.data.update(a=9, l=[], new=1)
        theirs.hits += 1
        theirs.theme.value = "theirs"

    def work() -> None:
        read(mine)
        elsewhere(others_change_everything)
        mine.other["x"] = 1

    with pytest.raises(ConflictError) as caught:
        attempt(mine.state, work)
    assert caught.value.name in ("DATA", "HITS", "THEME")
    assert "x" not in theirs.other


def test_a_conflict_names_the_name_and_the_key(mine: Names, theirs: Names) -> None:
    def work() -> None:
        assert mine.data["a"] == 1
        elsewhere(theirs.data.update, a=9)
        mine.other["x"] = 1

    with pytest.raises(ConflictError) as caught:
        attempt(mine.state, work)
    assert (caught.value.name, caught.value.key) == ("DATA", "a")


def test_what_a_stack_of_contexts_holds_is_one_commit_too(mine: Names, theirs: Names) -> None:
    with ExitStack() as stack:
        stack.enter_context(mine.state.transaction())
        mine.data["a"] = 5
        assert mine.data["a"] == 5
        assert elsewhere(theirs.data.get, "a") == 1
    assert elsewhere(theirs.data.get, "a") == mine.data["a"] == 5


def test_an_edit_is_a_conflict_with_a_write_of_its_own_transaction(mine: Names, theirs: Names) -> None:
    def work() -> None:
        with mine.data.edit("l") as rows:
            rows.append(2)
            mine.data["l"] = [9]

    def work_and_go_on() -> None:
        with pytest.raises(ConflictError):
            work()

    attempt(mine.state, work_and_go_on)
    assert theirs.data["l"] == [9]


def test_what_is_removed_and_written_again_is_at_the_end(mine: Names, theirs: Names) -> None:
    def work() -> list[Any]:
        assert list(mine.data) == ["a", "l"]
        del mine.data["a"]
        mine.data["a"] = 5
        return list(mine.data.items())

    assert attempt(mine.state, work) == list(theirs.data.items()) == [("l", [1]), ("a", 5)]


def test_what_was_read_while_a_commit_was_under_way_is_checked(
    mine: Names, theirs: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mine.all() == theirs.all()
    # Shared memory is as it was, and says that there was a commit of which the end was not seen.
    row = memoryview(bytes(8)).cast("Q")
    monkeypatch.setattr(type(mine.state.store), "watch", lambda store, name: row)
    monkeypatch.setattr(type(mine.state.store), "is_idle", lambda store, name, seen: False)

    def work() -> None:
        assert mine.data["a"] == 1
        elsewhere(attempt, theirs.state, lambda: (theirs.data.update(a=2), theirs.other.update(x=2)))
        with pytest.raises(ConflictError):
            mine.other.get("x")
        raise Stop

    with pytest.raises(Stop):
        attempt(mine.state, work)


def test_a_name_that_is_first_used_in_a_transaction_shows_what_was_written_in_it(
    mine: Names, theirs: Names
) -> None:
    theirs.state.dict("NEW")["k"] = 1

    def work() -> int:
        new = mine.state.dict("NEW")
        new["k"] = 2
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                assert pool.submit(new.get, "k").result(DEADLINE) == 1
        return int(new["k"])

    assert attempt(mine.state, work) == theirs.state.dict("NEW")["k"] == 2


@pytest.mark.parametrize("first", [len, list])
def test_the_keys_and_the_items_are_of_one_revision(
    mine: Names, theirs: Names, first: Callable[[Any], Any]
) -> None:
    def work() -> None:
        first(mine.data)
        elsewhere(theirs.data.update, new=1)
        mine.data.copy()
        mine.other["x"] = 1

    with pytest.raises(ConflictError):
        attempt(mine.state, work)


def test_the_keys_that_a_transaction_has_listed_are_not_asked_for_again(mine: Names, theirs: Names) -> None:
    store = store_of(mine.state)
    assert mine.data["a"] == 1
    del theirs.data["l"]
    attempt(mine.state, lambda: list(mine.data))
    store.asked.clear()
    assert list(mine.data) == ["a"]
    assert "keys" not in store.asked


@pytest.mark.parametrize("second", READS.values(), ids=READS)
@pytest.mark.parametrize("step", ["before", "after", "between"])
def test_reads_are_of_one_revision_whenever_others_come_between(
    mine: Names, theirs: Names, second: Callable[[Names], Any], step: str
) -> None:
    """What is written together is seen together, or the transaction ends before it shows anything."""
    assert mine.all() == theirs.all()
    store = store_of(mine.state)

    def others() -> None:
        elsewhere(attempt, theirs.state, change)

    def change() -> None:
        theirs.other["first"] = "new"
        theirs.data.update(a="new", l=["new"], new="new")
        theirs.hits.set(-1)
        theirs.theme.value = "new"

    def work() -> None:
        first = mine.other.get("first")
        assert first is None
        if step == "between":
            others()
        else:
            for method in ("fetch", "keys"):
                getattr(store, step)[method] = others
        seen.append(second(mine))

    seen: list[Any] = []
    unchanged = second(theirs)
    try:
        attempt(mine.state, work)
    except ConflictError:
        assert step != "after" or seen == []
    assert seen in ([], [unchanged])


def test_write_skew_does_not_happen(mine: Names, theirs: Names) -> None:
    theirs.data.update(ann="on call", bob="on call")

    def leave(names: Names, name: str) -> None:
        if names.data["ann"] == names.data["bob"] == "on call":
            names.data[name] = "off"

    def both() -> None:
        leave(mine, "ann")
        elsewhere(attempt, theirs.state, lambda: leave(theirs, "bob"))

    with pytest.raises(ConflictError):
        attempt(mine.state, both)
    assert (theirs.data["ann"], theirs.data["bob"]) == ("on call", "off")


def test_writes_that_depend_on_nothing_conflict_with_nobody(mine: Names, theirs: Names) -> None:
    def work() -> None:
        mine.data["b"] = 1
        mine.data.update(c=2)
        mine.theme.value = "mine"
        elsewhere(theirs.data.update, b=0, d=4)
        elsewhere(setattr, theirs.theme, "value", "theirs")

    attempt(mine.state, work)
    assert dict(theirs.data) == {"a": 1, "l": [1], "b": 1, "d": 4, "c": 2}
    assert theirs.theme.value == "mine"


def test_what_is_only_read_is_no_commit_and_no_conflict(mine: Names, theirs: Names) -> None:
    before = mine.all()
    commits = store_of(mine.state).commits
    with mine.state.transaction():
        seen = mine.all()
        elsewhere(theirs.data.update, a=2)
    assert seen == before
    assert store_of(mine.state).commits == commits


def test_a_caught_conflict_does_not_let_the_transaction_through(mine: Names, theirs: Names) -> None:
    def others() -> None:
        theirs.data["a"] = 2
        theirs.other["x"] = 2

    def work() -> None:
        assert mine.data["a"] == 1
        elsewhere(others)
        with pytest.raises(ConflictError):
            mine.other.get("x")
        mine.hits += 1

    with pytest.raises(ConflictError):
        attempt(mine.state, work)
    assert theirs.hits.value == 0


# --- nested, several states, contexts -----------------------------------------------------------------


def test_one_inside_of_another_joins_it(mine: Names, theirs: Names) -> None:
    def inner() -> None:
        with mine.state.transaction():
            mine.data["inner"] = 1
        assert "inner" not in elsewhere(dict, theirs.data)

    def fail_after_inner() -> None:
        inner()
        raise Stop

    with pytest.raises(Stop):
        attempt(mine.state, fail_after_inner)
    assert "inner" not in theirs.data
    attempt(mine.state, inner)
    assert theirs.data["inner"] == 1


def test_a_function_to_be_run_again_is_not_inside_of_another_transaction(mine: Names, theirs: Names) -> None:
    runs = []

    @mine.state.transactional(retries=5)
    def inner() -> None:
        runs.append(mine.data["a"])
        elsewhere(theirs.data.update, a=len(runs) + 10)
        mine.other.get("x")

    def outer() -> None:
        inner()
        mine.other["x"] = 1

    with pytest.raises(ConflictError):
        attempt(mine.state, outer)
    assert runs == [1]


def test_transactions_of_two_states_are_two(mine: Names) -> None:
    third = Names(make_workers(1)[0])

    def fail() -> None:
        third.data["a"] = "second"
        mine.data["b"] = "first too"
        raise Stop

    with mine.state.transaction():
        mine.data["a"] = "first"
        with pytest.raises(Stop):
            attempt(third.state, fail)
        with third.state.transaction():
            third.data["a"] = "second"
        assert elsewhere(lambda: (mine.data["a"], third.data["a"])) == (1, "second")
    assert (mine.data["a"], mine.data["b"]) == ("first", "first too")
    third.state.close()


def test_a_thread_with_a_copy_of_the_context_is_not_in_the_transaction(mine: Names, theirs: Names) -> None:
    seen: list[Any] = []

    def use() -> None:
        seen.append(mine.data["a"])
        mine.other["by thread"] = len(seen)

    with mine.state.transaction():
        mine.data["a"] = 2
        context = contextvars.copy_context()
        for _ in range(2):
            thread = threading.Thread(target=context.run, args=(use,))
            thread.start()
            thread.join(DEADLINE)
        assert elsewhere(dict, theirs.other) == {"by thread": 2}
    assert seen == [1, 1]
    # A copy outlives the transaction, also in its own thread.
    context.run(use)
    assert seen == [1, 1, 2]
    assert dict(theirs.other) == {"by thread": 3}


@pytest.mark.parametrize("sync", ["request", "read", "manual"])
def test_hits_of_other_threads_are_right_and_never_see_it(sync: str) -> None:
    states = make_workers(sync=sync)
    mine, theirs = Names(states[0]), Names(states[1])
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        with mine.state.transaction():
            mine.data["a"] = "inside"
            mine.data["l"].append("inside")
            assert (mine.data["a"], mine.data["l"]) == ("inside", [1, "inside"])
            begun.set()
            assert end.wait(DEADLINE)

    assert (mine.data["a"], mine.data["l"]) == (1, [1])
    held = mine.data["l"]
    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(DEADLINE)
    for n in range(3):
        assert (mine.data["a"], mine.data["l"]) == (1, [1])
        theirs.data["n"] = n
        mine.data.sync() if sync == "manual" else None
        with mine.state.request():
            assert (mine.data["a"], mine.data["n"], held) == (1, n, [1])
            assert (mine.data["a"], mine.data["n"], mine.data["l"]) == (1, n, [1])
    end.set()
    thread.join(DEADLINE)
    for _ in range(2):
        assert (mine.data["a"], mine.data["l"]) == ("inside", [1, "inside"])
        assert mine.state._names.bound().replicas["DATA"].remembered is not None


# --- references -----------------------------------------------------------------------------------------


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


# --- objects ----------------------------------------------------------------------------------------------


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


# --- again and again ----------------------------------------------------------------------------------------


def test_a_function_is_run_again_until_nobody_came_between(mine: Names, theirs: Names) -> None:
    runs = []

    @mine.state.transactional
    def add(amount: int) -> int:
        runs.append(mine.data["a"])
        mine.data["a"] += amount
        if len(runs) < 4:
            elsewhere(theirs.data.increment, "a", 10)
        mine.hits += 1
        return int(mine.data["a"])

    assert add(amount=1) == 32
    assert runs == [1, 11, 21, 31]
    assert (theirs.data["a"], theirs.hits.value) == (32, 1)
    assert add.__name__ == "add"


def test_a_conflict_is_raised_when_all_retries_are_used_up(mine: Names, theirs: Names) -> None:
    runs = []

    @mine.state.transactional(retries=2)
    def add() -> None:
        runs.append(1)
        mine.data["a"] += 1
        elsewhere(theirs.data.increment, "a", 10)

    with pytest.raises(ConflictError, match="'a' of 'DATA'"):
        add()
    assert len(runs) == 3
    assert theirs.data["a"] == 31


def test_pauses_are_longer_each_time_and_random(mine: Names, monkeypatch: Any) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("flask_globalstate.state.retry.time.sleep", pauses.append)
    monkeypatch.setattr("flask_globalstate.state.retry.random.uniform", lambda low, high: high)

    @mine.state.transactional(retries=4)
    def fail() -> None:
        raise ConflictError("N", None, 1, 2)

    with pytest.raises(ConflictError):
        fail()
    assert pauses == [SHORTEST_PAUSE * 2**n for n in range(4)]


def test_an_error_of_the_function_is_not_run_again(mine: Names) -> None:
    runs = []

    @mine.state.transactional
    def fail() -> None:
        runs.append(1)
        mine.data["a"] = 2
        raise Stop

    with pytest.raises(Stop):
        fail()
    assert (len(runs), mine.data["a"]) == (1, 1)


def test_what_would_run_after_the_transaction_is_refused(mine: Names) -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    for function in (coroutine, generator, functools.partial(coroutine)):
        with pytest.raises(TypeError, match="transaction"):
            mine.state.transactional(function)
    written: list[int] = []

    async def write() -> None:
        written.append(1)

    with pytest.raises(TypeError, match="would run after its transaction"):
        mine.state.transactional(lambda: write())()
    assert not written


def test_a_number_of_retries_below_0_is_refused(mine: Names) -> None:
    with pytest.raises(ValueError, match="retries is -1"):
        mine.state.transactional(lambda: None, retries=-1)
    with pytest.raises(ValueError, match="retry is -1"):
        mine.data.edit("a", retry=-1)(lambda value: None)


def test_increments_in_transactions_of_threads_lose_nothing() -> None:
    states = make_workers(3)

    def work(state: GlobalState) -> None:
        hits, data = state.counter("HITS"), state.dict("DATA")

        @state.transactional(retries=1000)
        def add() -> None:
            nonlocal hits
            data["n"] = data.get("n", 0) + 1
            hits += 1

        for _ in range(20):
            add()

    # Two threads of each worker.
    threads = [threading.Thread(target=work, args=(state,)) for state in states for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert (states[0].dict("DATA")["n"], states[1].counter("HITS").value) == (120, 120)


# --- Flask ------------------------------------------------------------------------------------------------


def test_a_view_is_a_transaction() -> None:
    mine, theirs = map(Names, make_workers())
    app = Flask(__name__)
    app.config.update(
        TESTING=True,
        STORE_BACKEND=type(store_of(mine.state)),
        STORE_SECRET_KEY="secret",
        PROPAGATE_EXCEPTIONS=False,
    )
    names = Names(GlobalState(app))
    runs = []

    @app.post("/transfer/<int:amount>")
    @names.state.transactional(retries=2)
    def transfer(amount: int) -> Any:
        runs.append(names.data["a"])
        names.data["a"] -= amount
        names.data["l"].append(amount)
        if amount > 100:
            raise Stop
        if len(runs) == 1:
            elsewhere(theirs.data.increment, "a", 100)
        return jsonify(left=names.data["a"])

    client = app.test_client()
    assert client.post("/transfer/10").get_json() == {"left": 91}
    assert runs == [1, 101]
    assert client.post("/transfer/1000").status_code == 500
    assert dict(mine.data) == {"a": 91, "l": [1, 10]}
    assert names.state.stats()["conflicts"] == {}


def test_what_was_read_in_the_request_before_is_no_conflict_in_a_transaction() -> None:
    states = make_workers(on_conflict="raise")
    mine, theirs = map(Names, states)
    with mine.state.request():
        assert mine.data["a"] == 1
        elsewhere(theirs.data.update, a=2)
        with mine.state.transaction():
            mine.data["a"] += 1
        mine.data["a"] += 1
    assert theirs.data["a"] == 4
    assert mine.state.stats()["conflicts"] == {}


# --- stores ------------------------------------------------------------------------------------------------


class Unconditional(WorkerStore):
    """A store that can't commit several keys together."""

    __slots__ = ()

    conditional = False


def test_a_store_that_can_not_says_so_before_anything_runs() -> None:
    state = make_workers(1, Unconditional)[0]
    runs = []

    @state.transactional
    def work() -> None:
        runs.append(1)

    for use in (work, lambda: attempt(state, work), lambda: attempt(state, lambda: runs.append(2))):
        with pytest.raises(UnsupportedOperationError, match="transactions"):
            use()
    assert runs == []


def test_a_transaction_does_not_survive_a_switch_of_the_store() -> None:
    state = make_workers(1)[0]
    names = Names(state)
    assert names.data["a"] == 1

    def work() -> None:
        names.data["a"] = 2
        elsewhere(state.use_store, "memory")
        with pytest.raises(ConflictError, match="store"):
            names.data["b"] = 2
        with pytest.raises(ConflictError, match="store"):
            names.hits += 1

    with pytest.raises(ConflictError, match="store"):
        attempt(state, work)
    assert dict(names.data) == {"a": 1, "l": [1]}
    attempt(state, lambda: names.data.update(a=3))
    assert names.data["a"] == 3
    state.close()


def test_a_state_that_is_bound_anew_refuses_what_was_begun_before() -> None:
    first, second = (type(store_of(make_workers(1)[0])) for _ in range(2))
    state = GlobalState()
    names = Names(state)
    apps = [Flask(__name__), Flask(__name__)]
    for app, backend in zip(apps, (first, second), strict=True):
        app.config.update(STORE_BACKEND=backend, STORE_SECRET_KEY="secret")
    state.init_app(apps[0])

    def work() -> None:
        names.data["a"] = 2
        state.init_app(apps[1])

    with pytest.raises(ConflictError, match="store"):
        attempt(state, work)
    assert names.data["a"] == 1
    state.init_app(apps[0])
    assert names.data["a"] == 1
