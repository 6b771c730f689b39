"""Transactions of a state: all or nothing, of one revision, serializable, and seen by nobody before."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest

from flask_globalstate import ConflictError, GlobalState, StoreUnavailableError
from flask_globalstate.replicas.base import NEVER
from tests.support import PATIENCE
from tests.support.transactions import Names, Stop, attempt
from tests.support.workers import elsewhere, make_workers, store_of

# --- all or nothing -------------------------------------------------------------------------------


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
            data.update({"c": 1, object(): 1})
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


# --- nested, several states, contexts -------------------------------------------------------------


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
            thread.join(PATIENCE)
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
            assert end.wait(PATIENCE)

    assert (mine.data["a"], mine.data["l"]) == (1, [1])
    held = mine.data["l"]
    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(PATIENCE)
    for n in range(3):
        assert (mine.data["a"], mine.data["l"]) == (1, [1])
        theirs.data["n"] = n
        mine.data.sync() if sync == "manual" else None
        with mine.state.request():
            assert (mine.data["a"], mine.data["n"], held) == (1, n, [1])
            assert (mine.data["a"], mine.data["n"], mine.data["l"]) == (1, n, [1])
    end.set()
    thread.join(PATIENCE)
    for _ in range(2):
        assert (mine.data["a"], mine.data["l"]) == ("inside", [1, "inside"])
        assert mine.state._names.bound().replicas["DATA"].remembered is not NEVER
