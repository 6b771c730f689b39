"""Shelves under processes that are stopped and forked."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import SharedDict, StoreUnavailableError
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.shelve import connections
from flask_globalstate.system.seqcount_file import bucket_of
from tests.support import PATIENCE
from tests.support.processes import wait_for
from tests.support.shelves import NAMES, end, open_state, open_store, opened, start

#: ends without the hooks of Python, and without its knowledge
raw_fork = ctypes.PyDLL(None).fork


# --- stopped --------------------------------------------------------------------------------------


def stop_at(store: Any, method: str) -> None:
    """Let this process stand still the next time that it comes there."""
    target = store if hasattr(store, method) else store._header
    original = getattr(target, method)

    def still(*arguments: Any) -> Any:
        setattr(target, method, original)
        os.kill(os.getpid(), signal.SIGSTOP)
        return original(*arguments)

    setattr(target, method, still)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that has stopped itself, and goes on and ends well after that."""
    try:
        wait_for(lambda: is_stopped(pid), "a process that stands still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        code = end(pid)
    assert code == 0


def other_bucket(name: str) -> str:
    """A name that is counted elsewhere than the three."""
    taken = {bucket_of(each.encode()) for each in NAMES}
    return next(f"{name}{n}" for n in range(99) if bucket_of(f"{name}{n}".encode()) not in taken)


def test_a_writer_that_is_stopped_in_its_turn_keeps_writers_out_and_no_reader(path):
    state = open_state(path, timeout=0.3)
    a, other = state.dict("A"), state.dict(other_bucket("OTHER"))
    a["n"] = other["n"] = 1
    assert a["n"] == other["n"] == other["n"] == 1

    def write() -> None:
        store = open_store(path)
        store.commit([Write("B", "n", b"1i")])
        stop_at(store, "count")
        store.commit([Write("A", "n", b"2i")])

    with stopped(start(write)):
        assert other["n"] == 1
        assert other._replica.freshness.is_unchanged(other._replica)
        for _ in range(3):
            assert (a["n"], dict(a), other["n"]) == (1, {"n": 1}, 1)
        for act in (lambda: other.update(n=2), lambda: a.increment("n"), a.clear):
            with pytest.raises(
                StoreUnavailableError, match=r"held the write lock of .* for more than 0\.3 seconds"
            ):
                act()
        assert (a["n"], other["n"]) == (1, 1)
    assert a["n"] == 2
    other["n"] = 3
    assert other["n"] == 3
    state.close()


def test_a_writer_that_is_stopped_between_two_names_shows_half_of_its_commit_to_nobody(path):
    state = open_state(path, timeout=0.3)
    a, b, other = state.dict("A"), state.dict("B"), state.dict(other_bucket("OTHER"))
    a["n"] = b["n"] = other["n"] = 1
    # Takes the slot that the writer will have: a new one is to be seen in every name.
    assert end(start(lambda: open_store(path).commit([Write("A", "n", b"1i")]))) == 0
    assert a["n"] == b["n"] == other["n"] == other["n"] == 1

    def write() -> None:
        store: Any = open_store(path)
        stop_at_second = iter([lambda: None, lambda: os.kill(os.getpid(), signal.SIGSTOP)])
        to_write = store._to_write

        def still(name: str, **options: Any) -> Any:
            next(stop_at_second)()
            return to_write(name, **options)

        store._to_write = still
        store.commit([Write("A", "n", b"2i"), Write("B", "n", b"2i")])

    with stopped(start(write)):
        assert other["n"] == 1
        assert other._replica.freshness.is_unchanged(other._replica)
        for data in (a, b):
            with pytest.raises(StoreUnavailableError, match="held the write lock of"):
                data["n"]
        assert other["n"] == 1
    assert (a["n"], b["n"], other["n"]) == (2, 2, 1)
    state.close()


def test_a_writer_that_is_killed_while_stopped_lets_the_others_go_on(path):
    state = open_state(path)
    a = state.dict("A")
    a["n"] = 1

    def write() -> None:
        store = open_store(path)
        store.commit([Write("B", "n", b"1i")])
        stop_at(store, "count")
        store.commit([Write("A", "n", b"2i")])

    pid = start(write)
    wait_for(lambda: is_stopped(pid), "a process that stands still")
    acts = [lambda: state.dict("OTHER").update(n=1), lambda: a.increment("n")]
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    os.kill(pid, signal.SIGKILL)
    end(pid)
    for thread in threads:
        thread.join(PATIENCE)
    assert (a["n"], dict(state.dict("OTHER"))) == (2, {"n": 1})
    assert a["n"] == a["n"]
    assert a._replica.freshness.is_unchanged(a._replica)
    state.close()


# --- forked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("forking", [os.fork, raw_fork], ids=["os.fork", "fork"])
def test_children_and_parent_write_at_once_and_nothing_is_lost_when_the_parent_goes_first(path, forking):
    def parent() -> None:
        state = open_state(path)
        data, hits = state.dict("DATA"), state.counter("HITS")
        data["before"] = hits.increment()
        reading, writing = os.pipe()

        def work(who: str, times: int) -> None:
            for number in range(times):
                hits.increment()
                data[who] = number
                assert data[who] == number

        def child(number: int) -> None:
            os.close(writing)
            work(f"child {number}", 20)
            os.read(reading, 1)  # Until the parent has closed the store.
            work(f"child {number}", 200)

        pids = [start(child, number, fork=forking) for number in range(4)]
        work("parent", 50)
        state.close()
        os.close(writing)
        assert [end(pid) for pid in pids] == [0] * 4

    assert end(start(parent)) == 0
    state = open_state(path)
    assert state.counter("HITS").value == 1 + 50 + 4 * 220
    expected = {"before": 1, "parent": 49, **{f"child {number}": 199 for number in range(4)}}
    assert dict(state.dict("DATA")) == expected
    state.close()


def test_forks_in_the_middle_of_other_threads_calls_lose_nothing_and_hang_nobody(path):
    children = 30

    def work(data: SharedDict[str, int], hits: Any, who: str, go_on: Callable[[int], bool]) -> None:
        for number in itertools.count():
            if not go_on(number):
                return
            hits.increment()
            data[who] = number
            assert data[who] == number

    def parent() -> None:
        state = open_state(path)
        stop = threading.Event()
        hits = state.counter("HITS")

        def use(name: str, who: str, go_on: Callable[[int], bool]) -> None:
            work(state.dict(name), hits, who, go_on)

        threads = [
            threading.Thread(target=use, args=(f"DATA {n}", "thread", lambda _: not stop.is_set()))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        # Each forks while others are in the middle of something, and uses what they were using.
        for number in range(children):
            assert end(start(use, f"DATA {number % 3}", f"child {number}", lambda n: n < 3)) == 0
        stop.set()
        for thread in threads:
            thread.join()
        # Every count has a write beside it.
        hits.increment()
        state.close()

    assert end(start(parent)) == 0
    with opened(path) as store:
        assert store.fetch("HITS").entries
        for n in range(3):
            expected = {"thread", *(f"child {number}" for number in range(n, children, 3))}
            assert set(store.fetch(f"DATA {n}").entries) == expected


def test_a_fork_past_the_hooks_while_a_thread_reads_is_refused_where_it_could_lose_something(path):
    def parent() -> None:
        store: Any = open_store(path)
        store.commit([Write("A", "n", b"1i"), Write("B", "n", b"1i")])

        def child() -> None:
            with pytest.raises(StoreUnavailableError, match="forked"):
                store.commit([Write("A", "n", b"2i")])
            store.commit([Write("B", "n", b"2i")])

        with store._connections.open("A"):
            assert end(start(child, fork=raw_fork)) == 0
        store.commit([Write("A", "n", b"3i")])
        store.close()

    assert end(start(parent)) == 0
    with opened(path) as store:
        found = [store.fetch(name, ["n"]).entries["n"].data for name in ("A", "B")]
    assert found == [b"3i", b"2i"]


def test_a_connection_keeps_its_locks_whatever_else_the_process_does(path):
    """Or another process takes the file for unused, and removes the log that this one writes to."""
    ours = open_store(path)
    ours.commit([Write("A", "first", b"1i")])

    def look_around() -> None:
        with opened(path) as theirs:
            assert "A" in theirs.names()
            assert "first" in theirs.fetch("A").entries

    for _ in range(2):
        ours.names()
        with opened(path) as another:
            another.fetch("A")
            another.commit([Write("NEW", "n", b"1i")])
        with ours._connections.open("A"):
            ours.fetch("A")
        assert end(start(look_around)) == 0
        ours.commit([Write("A", "second", b"2i")])
        with ours._connections.open("A"):
            # Not by os.fork, which closes what is open.
            pid = os.posix_spawn(sys.executable, [sys.executable, "-c", READ.format(str(path))], os.environ)
            assert end(pid) == 0
    ours.close()


READ = """
from flask_globalstate.stores.shelve import ShelveStore
store = ShelveStore({!r})
assert sorted(store.fetch("A").entries) == ["first", "second"]
store.close()
"""


# --- many names -----------------------------------------------------------------------------------


def test_threads_use_more_names_than_there_are_connections_kept(path):
    others = len(os.listdir("/proc/self/fd"))
    store: Any = open_store(path)
    names = [f"NAME {number}" for number in range(connections.CONNECTIONS_KEPT + 20)]
    errors = []

    def work(thread: int) -> None:
        try:
            for turn, name in itertools.product(range(2), names):
                store.increment(name, "n", 1)
                store.commit([Write(name, f"{thread} {turn}", b"1i"), Write("ALL", name, b"1i")])
                assert f"{thread} {turn}" in store.fetch(name).entries
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    for name in names:
        entries = store.fetch(name).entries
        assert entries["n"].data == b"8i"
        assert len(entries) == 9
    assert sorted(store.names()) == sorted([*names, "ALL"])
    assert len(os.listdir("/proc/self/fd")) - others < 4 * connections.CONNECTIONS_KEPT
    store.close()
