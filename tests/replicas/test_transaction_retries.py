"""Transactions that are run again, of views of Flask, and over stores that can't."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, jsonify

from flask_globalstate import ConflictError, GlobalState, UnsupportedOperationError
from flask_globalstate.state.retry import SHORTEST_PAUSE
from tests.support import PATIENCE
from tests.support.transactions import Names, Stop, attempt
from tests.support.workers import WorkerStore, elsewhere, make_workers, store_of

# --- again and again ------------------------------------------------------------------------------


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
        thread.join(PATIENCE)
    assert (states[0].dict("DATA")["n"], states[1].counter("HITS").value) == (120, 120)


# --- Flask ----------------------------------------------------------------------------------------


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


# --- stores ---------------------------------------------------------------------------------------


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
