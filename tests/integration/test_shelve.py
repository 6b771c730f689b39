"""Shelves under many processes: who write at once, start at once, are killed, stopped and forked."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flask_globalstate
from flask_globalstate import GlobalState, SharedDict, StoreUnavailableError
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.shelve import ShelveStore, connections
from flask_globalstate.system.seqcount_file import bucket_of
from tests.support.harness import is_alive, wait_for

fork = multiprocessing.get_context("fork")
#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 240
NAMES = ("A", "B", "C")
#: ends without the hooks of Python, and without its knowledge
raw_fork = ctypes.PyDLL(None).fork


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A STORE_PATH that is not made yet."""
    return tmp_path / "shelves"


def open_store(path: Path, **options: Any) -> ShelveStore:
    """A worker's store, which waits for as long as a loaded machine may need."""
    return ShelveStore(path, **{"timeout": DEADLINE, **options})


def open_state(path: Path, **options: Any) -> GlobalState:
    """A worker's state, in which each read is checked."""
    options = {"timeout": DEADLINE, **options}
    return GlobalState.from_config(
        {"STORE_BACKEND": "shelve", "STORE_PATH": path, "STORE_SYNC": "read", "STORE_OPTIONS": options}
    )


@contextlib.contextmanager
def opened(path: Path, **options: Any) -> Iterator[ShelveStore]:
    """A store that is closed again."""
    store = open_store(path, **options)
    try:
        yield store
    finally:
        store.close()


def start(act: Callable[..., Any], *arguments: Any, fork: Callable[[], int] = os.fork) -> int:
    """The pid of a child that does something and ends."""
    sys.stdout.flush()
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        act(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def end(pid: int) -> int:
    """The exit code of a child, which must come."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("a child did not end")
        time.sleep(0.001)


def together(count: int, act: Callable[[int], Any]) -> list[int]:
    """The exit codes of processes that do something at the same moment."""
    barrier = fork.Barrier(count)

    def begin(number: int) -> None:
        barrier.wait(DEADLINE)
        act(number)

    pids = [start(begin, number) for number in range(count)]
    return [end(pid) for pid in pids]


def number_of(store: ShelveStore, name: str, key: str = "n") -> int:
    """The number in an entry that `content` has made; -1 if there is none."""
    entries = store.fetch(name, [key]).entries
    if key not in entries:
        return -1
    number = int(entries[key].data.split()[0])
    assert entries[key].data == content(number), "half of a write is there"
    return number


def content(number: int) -> bytes:
    """What tells whether all of it is there, on one page of a file or on several."""
    return b"%d " % number + b"x" * (number * 7919 % 20_000)


# --- writing at once ----------------------------------------------------------------------------


def test_the_writes_of_four_processes_to_one_name_are_all_there(path):
    def write(number: int) -> None:
        data = open_state(path).dict("DATA")
        for n in range(2500):
            data[number, n] = str(n)

    assert together(4, write) == [0] * 4
    state = open_state(path)
    assert dict(state.dict("DATA")) == {(number, n): str(n) for number in range(4) for n in range(2500)}
    state.close()


def test_the_increments_of_four_processes_are_exact_and_a_reader_never_goes_back(path):
    state = open_state(path)
    hits = state.counter("HITS")
    acknowledged = fork.Value(ctypes.c_long, 0)

    def count(number: int) -> None:
        counter = open_state(path).counter("HITS")
        for _ in range(2500):
            value = counter.increment()
            with acknowledged.get_lock():
                acknowledged.value = max(acknowledged.value, value)

    pids = [start(count, number) for number in range(4)]
    last = 0
    while any(map(is_alive, pids)):
        floor = acknowledged.value
        value = hits.value
        assert value >= max(floor, last), "read something older than what was acknowledged or read before"
        last = value
    assert [end(pid) for pid in pids] == [0] * 4
    assert hits.value == 10_000
    state.close()


def test_processes_and_threads_that_depend_on_what_they_read_lose_nothing(path):
    def work(number: int) -> None:
        state = open_state(path)
        data = state.dict("DATA")

        def add() -> None:
            for _ in range(20):
                data.apply("list", lambda value: [*value, number], default=[])

        threads = [threading.Thread(target=add) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state.close()

    assert together(3, work) == [0] * 3
    state = open_state(path)
    assert sorted(state.dict("DATA")["list"]) == [0] * 60 + [1] * 60 + [2] * 60
    state.close()


# --- starting at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [8, 70])
def test_processes_that_start_together_make_one_store(path, processes):
    def begin(number: int) -> None:
        state = open_state(path)
        data = state.dict("DATA", initial={"first": number})
        for _ in range(5):
            state.counter("HITS").increment()
        data[number] = data["first"]

    assert together(processes, begin) == [0] * processes
    state = open_state(path)
    data = dict(state.dict("DATA"))
    first = data.pop("first")
    assert data == dict.fromkeys(range(processes), first)
    assert state.counter("HITS").value == 5 * processes
    state.close()


# --- killed ---------------------------------------------------------------------------------------


def write_until_killed(path: Path, writer: str, first: int, pipe: int) -> None:
    """Commit in turns over several names, over one, and over one that is new; tell what has returned."""
    store = open_store(path)
    for number in itertools.count(first):
        store.commit([Write(name, writer, content(number)) for name in NAMES])
        os.write(pipe, b"several %d\n" % number)
        store.commit([Write("ALONE", writer, content(number))])
        os.write(pipe, b"alone %d\n" % number)
        store.increment("HITS", "n", 1)
        os.write(pipe, b"hits %d\n" % number)
        if number == first:
            store.commit([Write(f"NEW {number % 20}", writer, content(number))])
            os.write(pipe, b"new %d\n" % number)


class Writer:
    """A process that writes until it is killed.

    :ivar last: the number of the last commit of each kind that has returned, or was found.
    :ivar hits: how many increments have returned.
    """

    def __init__(self, path: Path, name: str, last: dict[str, int]) -> None:
        self.name = name
        self.last = last
        self._pipe, end = os.pipe()
        self.pid = start(write_until_killed, path, name, last["several"] + 1, end)
        os.close(end)
        self._text = b""
        self.hits = 0

    def has_written(self, commits: int) -> bool:
        """Whether so many commits over several names have returned."""
        while self._text.count(b"several") < commits:
            if not (more := os.read(self._pipe, 65536)):
                return False
            self._text += more
        return True

    def kill(self) -> None:
        """End it, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)
        assert end(self.pid) == -signal.SIGKILL
        while more := os.read(self._pipe, 65536):
            self._text += more
        os.close(self._pipe)
        for line in self._text.decode().splitlines():
            kind, _, number = line.partition(" ")
            self.last[kind] = int(number)
            self.hits += kind == "hits"


def look_for_halves(path: Path, stop: Any, looks: Any) -> None:
    """Read one name, another, and the first again: what is in the middle can't be older or newer."""
    store = open_store(path)
    while not stop.is_set():
        for writer, one, other in itertools.product("xy", NAMES, NAMES):
            before, between, after = (number_of(store, name, writer) for name in (one, other, one))
            assert before <= between <= after, f"half a commit: {before} {between} {after}"
        looks.value += 1


def test_writers_that_are_killed_lose_nothing_and_leave_nothing_half_written(path):
    rounds = 200
    stop, looks = fork.Event(), fork.Value(ctypes.c_long, 0)
    reader = start(look_for_halves, path, stop, looks)
    moments = random.Random(4)
    last = {name: dict.fromkeys(("several", "alone", "hits", "new"), -1) for name in "xy"}
    hits = 0
    try:
        for round_ in range(rounds):
            writers = [Writer(path, name, last[name]) for name in "xy"]
            for writer in writers:
                # Every other round they are killed while they start.
                assert round_ % 2 or writer.has_written(3)
                time.sleep(moments.uniform(0, 0.015))
                writer.kill()
            with opened(path) as store:
                hits = check_hits(store, hits, sum(writer.hits for writer in writers))
                for writer in writers:
                    check(store, writer)
        wait_for(lambda: looks.value > 10 or not is_alive(reader), "some looks of the reader")
        assert is_alive(reader), "a reader has seen half of a commit"
    finally:
        stop.set()
        assert end(reader) == 0
    assert min(each["several"] for each in last.values()) > rounds, "they were killed before they wrote"


def check_hits(store: ShelveStore, before: int, returned: int) -> int:
    """What was counted: all that has returned, and no more than one for each that was killed."""
    entries = store.fetch("HITS", ["n"]).entries
    found = int(entries["n"].data[:-1]) if entries else 0
    assert before + returned <= found <= before + returned + 2
    return found


def check(store: ShelveStore, writer: Writer) -> None:
    """All is found as its writer was told, or one commit further."""
    last = writer.last
    (several,) = {number_of(store, name, writer.name) for name in NAMES}
    assert several in (last["several"], last["several"] + 1)
    alone = number_of(store, "ALONE", writer.name)
    assert alone in (last["alone"], several)
    if last["new"] >= 0:
        assert number_of(store, f"NEW {last['new'] % 20}", writer.name) >= last["new"]
    last.update(several=several, alone=alone)


# --- ended between any two steps ----------------------------------------------------------------


STEPS_IN = {
    str(file)
    for file in Path(flask_globalstate.__file__).parent.rglob("*.py")
    if "stores" in file.parts or file.name in ("seqcount.py", "seqcount_file.py")
}


def end_at_step(number: int) -> None:
    """End this process at a line of the store that it comes to."""
    left = number

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in STEPS_IN:
            return None
        left -= 1
        if not left:
            os._exit(9)
        return trace

    sys.settrace(trace)


def commit_over_several(store: ShelveStore, number: int) -> None:
    data = b"%di" % number
    store.commit([Write("ONE", "n", data), Write("TWO", "n", data), Write("TWO", "gone", DELETE)])


def commit_to_new_names(store: ShelveStore, number: int) -> None:
    data = b"%di" % number
    writes = [Write(name, "n", data) for name in ("ONE", "TWO", f"NEW ONE {number}", f"NEW TWO {number}")]
    store.commit(writes)


def commit_to_one(store: ShelveStore, number: int) -> None:
    data = b"%di" % number
    store.commit([Write("TWO", "n", data), Write("TWO", "copy", data), Write("TWO", "gone", DELETE)])


ACTS: dict[str, Callable[[ShelveStore, int], Any]] = {
    "several names": commit_over_several,
    "new names": commit_to_new_names,
    "one name": commit_to_one,
    "increment": lambda store, number: store.increment("TWO", "n", 1),
    "drop": lambda store, number: store.drop("TWO"),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_reader_is_right_after_a_writer_has_ended_between_any_two_steps(path, act):
    state = open_state(path)
    one, two = state.dict("ONE"), state.dict("TWO")
    store: Any = state.store
    # Each step of a commit to new names makes two more files.
    stride = 7 if act == "new names" else 1
    for step in itertools.count(1, stride):
        one["n"] = two["n"] = two["copy"] = -step
        two["gone"] = "here"
        assert (one["n"], dict(two)) == (-step, {"n": -step, "copy": -step, "gone": "here"})

        def write_and_die(step: int = step) -> None:
            store.commit([Write("ONE", "other", b"1i")])  # Claims a slot.
            end_at_step(step)
            ACTS[act](store, step)
            sys.settrace(None)

        code = end(start(write_and_die))
        assert code in (0, 9)
        first = dict(two)
        happened = first != {"n": -step, "copy": -step, "gone": "here"}
        assert happened or code
        if happened:
            assert first in after(act, step)
        if act in ("several names", "new names"):
            assert one["n"] == (step if happened else -step)
        if act == "new names":
            assert (state.dict(f"NEW ONE {step}").get("n") == step) is happened
            assert (state.dict(f"NEW TWO {step}").get("n") == step) is happened
        # Nothing is left for readers to stumble over.
        assert dict(two) == {key: entry_value(store, key) for key in first} == first
        assert two._replica.freshness.is_unchanged(two._replica)
        assert not (path / ".globalstate" / "redo").exists()
        if code == 0:
            break
    assert step > 100
    state.close()


def after(act: str, step: int) -> list[dict[str, Any]]:
    """What is in the second name when it has happened."""
    return {
        "several names": [{"n": step, "copy": -step}],
        "new names": [{"n": step, "copy": -step, "gone": "here"}],
        "one name": [{"n": step, "copy": step}],
        "increment": [{"n": 1 - step, "copy": -step, "gone": "here"}],
        "drop": [{}],
    }[act]


def entry_value(store: ShelveStore, key: str) -> Any:
    """What is in the file, whatever a replica says."""
    data = store.fetch("TWO", [key]).entries[key].data
    return int(data[:-1]) if data[-1:] == b"i" else "here"


# --- stopped ------------------------------------------------------------------------------------


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
            with pytest.raises(StoreUnavailableError, match=r"writing under .* for more than 0\.3 seconds"):
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
            with pytest.raises(StoreUnavailableError, match="writing under"):
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
        thread.join(DEADLINE)
    assert (a["n"], dict(state.dict("OTHER"))) == (2, {"n": 1})
    assert a["n"] == a["n"]
    assert a._replica.freshness.is_unchanged(a._replica)
    state.close()


# --- forked -------------------------------------------------------------------------------------


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
        thread.join(DEADLINE)
    assert errors == []
    for name in names:
        entries = store.fetch(name).entries
        assert entries["n"].data == b"8i"
        assert len(entries) == 9
    assert sorted(store.names()) == sorted([*names, "ALL"])
    assert len(os.listdir("/proc/self/fd")) < 4 * connections.CONNECTIONS_KEPT
    store.close()
