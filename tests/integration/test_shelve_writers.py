"""Shelves of which many processes write and start at once, and are killed while they do."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flask_globalstate
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.shelve import ShelveStore
from tests.support import PATIENCE
from tests.support.processes import is_alive, wait_for
from tests.support.shelves import NAMES, end, fork, open_state, open_store, opened, start


def together(count: int, act: Callable[[int], Any]) -> list[int]:
    """The exit codes of processes that do something at the same moment."""
    barrier = fork.Barrier(count)

    def begin(number: int) -> None:
        barrier.wait(PATIENCE)
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


# --- writing at once ------------------------------------------------------------------------------


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


# --- starting at once -----------------------------------------------------------------------------


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


# --- ended between any two steps ------------------------------------------------------------------


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
