"""SharedList and SharedSet of two workers: what is shared, initial content, transactions, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flask_globalstate
from flask_globalstate import ConflictError, GlobalState, SharedList, SharedSet, UnsupportedOperationError
from flask_globalstate.proxies.base import Proxy
from tests.support import PATIENCE
from tests.support.authors import CustomStore
from tests.support.lists import PLAIN_KINDS, make


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
        with pytest.raises(TypeError, match="'X' holds an int"):
            use()
    assert "not readable" in repr(rows)


@pytest.mark.parametrize("settings", ["custom"], indirect=True)
def test_a_transaction_is_refused_where_it_can_not_be_whole(settings: dict[str, Any]) -> None:
    state = GlobalState.from_config(settings)
    assert not state.store.conditional
    rows = state.list("R")
    with pytest.raises(UnsupportedOperationError), state.transaction():
        rows.append(1)


@pytest.mark.parametrize("settings", ["memory", "shelve"], indirect=True)
def test_changes_in_a_transaction_are_committed_together_or_not_at_all(settings: dict[str, Any]) -> None:
    state = GlobalState.from_config(settings)
    rows, tags = state.list("R"), state.set("T", initial={1})
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
