"""Counted commits of processes that die between any two steps of a write, or are many."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.stores.base import Write
from tests.support import PATIENCE
from tests.support.counting import in_child

pytestmark = pytest.mark.slow

ROUNDS = 100


fork = multiprocessing.get_context("fork")


# --- with a server --------------------------------------------------------------------------------


class DyingWords:
    """The words of a seqcount, which end the process before or after the n-th is written."""

    def __init__(self, words: memoryview, writes: int, after: bool) -> None:
        self._words, self._left, self._after = words, writes, after

    def __getitem__(self, index: Any) -> Any:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            os._exit(0)
        self._words[index] = value
        if self._left == 0:
            os._exit(0)


def die_at_word(number: int, after: bool) -> Callable[[Any], None]:
    def arm(store: Any) -> None:
        store._watch.seqcount._words = DyingWords(store._watch.seqcount._words, number, after)

    return arm


def die_around(method: str, after: bool) -> Callable[[Any], None]:
    """End the process before a connection sends, or after it has, or after the answer has come."""

    def arm(store: Any) -> None:
        connection = store._sessions.idle[-1].connection
        original = getattr(connection, method)

        def die(*args: Any, **kwargs: Any) -> Any:
            if after:
                original(*args, **kwargs)
            os._exit(0)

        setattr(connection, method, die)

    return arm


# A commit over two names writes four words: begun, begun, done, done.
STEPS = {
    **{f"before word {n}": die_at_word(n, after=False) for n in (1, 2, 3, 4)},
    **{f"after word {n}": die_at_word(n, after=True) for n in (1, 2, 3, 4)},
    "before the command is sent": die_around("send_packed_command", after=False),
    "after the command is sent": die_around("send_packed_command", after=True),
    "after the answer": die_around("read_response", after=True),
}


def test_the_steps_are_all_there_are(state: GlobalState) -> None:
    one, two = state.dict("ONE"), state.dict("TWO")
    one["n"] = two["n"] = 0
    store: Any = state.store
    real = store._watch.seqcount._words
    written: list[int] = []

    class Recording(DyingWords):
        def __setitem__(self, index: int, value: int) -> None:
            written.append(index)
            real[index] = value

    store._watch.seqcount._words = Recording(real, 0, False)
    store.commit([Write("ONE", "n", b"1i"), Write("TWO", "n", b"1i")])
    store._watch.seqcount._words = real
    assert len(written) == 4


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_reader_is_right_after_a_writer_died(step: str, state: GlobalState) -> None:
    one, two = state.dict("ONE"), state.dict("TWO")
    one["n"] = two["n"] = -1
    store: Any = state.store

    for number in range(ROUNDS):

        def write_and_die(number: int = number) -> None:
            store.commit([Write("ONE", "other", b"1i")])  # Claims a slot, names the connection.
            STEPS[step](store)
            data = b"%di" % number
            store.commit([Write("ONE", "n", data), Write("TWO", "n", data)])
            os._exit(0 if step == "after word 4" else 98)

        assert in_child(write_and_die) == 0
        first = one["n"], two["n"]
        # Whatever the dead writer's command was to become, it has become by now or never will.
        store._sessions.ask_any(lambda session: session.ask("PING"))
        truth = [int(store.fetch(name, ["n"]).entries["n"].data[:-1]) for name in ("ONE", "TWO")]
        assert [one["n"], two["n"]] == truth
        assert first[0] in (number, truth[0])
        assert truth[0] == truth[1]
        if step in ("after the answer", "before word 3", "after word 3", "before word 4", "after word 4"):
            assert truth == [number, number]
    # Nothing is left for readers to stumble over.
    one.get("n")
    one.get("n")
    assert one._replica.freshness.is_unchanged(one._replica)


def test_a_commit_in_the_socket_of_a_dead_writer_does_not_happen_behind_a_reader(
    state: GlobalState, settings: dict[str, Any]
) -> None:
    data = state.dict("DATA")
    data["n"] = 1
    assert data["n"] == data["n"] == 1
    store: Any = state.store
    server = store._server.record()["server"]

    def send_to_a_stopped_server_and_die() -> None:
        store.commit([Write("DATA", "other", b"1i")])
        STEPS["after the command is sent"](store)
        os.kill(server, signal.SIGSTOP)
        store.commit([Write("DATA", "n", b"2i")])

    answers: list[int] = []
    reader = threading.Thread(target=lambda: answers.append(data["n"]))
    assert in_child(send_to_a_stopped_server_and_die) == 0
    reader.start()
    os.kill(server, signal.SIGCONT)
    reader.join(PATIENCE)
    store._sessions.ask_any(lambda session: session.ask("PING"))
    truth = int(store.fetch("DATA", ["n"]).entries["n"].data[:-1])
    assert data["n"] == truth
    assert answers[0] in (1, truth)


def stress(state: GlobalState, processes: int, threads: int, each: int) -> None:
    """Writers say what was acknowledged; a reader that then reads less has read something stale."""
    hits = state.counter("HITS")
    acknowledged = fork.Value(ctypes.c_long, 0)
    barrier = fork.Barrier(processes + 1)

    def count() -> None:
        def body() -> None:
            for _ in range(each):
                number = hits.increment()
                with acknowledged.get_lock():
                    acknowledged.value = max(acknowledged.value, number)

        barrier.wait(PATIENCE)
        workers = [threading.Thread(target=body) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    writers = [fork.Process(target=count) for _ in range(processes)]
    for writer in writers:
        writer.start()
    barrier.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    last = 0
    while any(writer.is_alive() for writer in writers):
        assert time.monotonic() < deadline
        floor = acknowledged.value
        number = hits.value
        assert number >= floor, "read something older than what was acknowledged before"
        assert number >= last, "went back in time"
        last = number
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert hits.value == processes * threads * each


def test_a_reader_never_reads_less_than_was_acknowledged(state: GlobalState) -> None:
    stress(state, processes=3, threads=2, each=400)


@pytest.mark.slow
def test_two_hundred_processes_on_one_file(state: GlobalState) -> None:
    stress(state, processes=200, threads=1, each=3)


def test_a_forked_child_has_a_slot_of_its_own(state: GlobalState) -> None:
    data = state.dict("DATA")
    data["n"] = 1
    store: Any = state.store
    ours = store._watch.seqcount.slot

    def check() -> None:
        assert store._watch.seqcount.slot is None
        data["child"] = 1
        assert store._watch.seqcount.slot not in (None, ours)
        assert store._sessions.idle

    assert in_child(check) == 0
    data["n"] = 2
    assert store._watch.seqcount.slot == ours
    assert dict(data) == {"n": 2, "child": 1}


def test_the_death_of_a_parent_frees_its_slot_though_its_child_lives(
    state: GlobalState, settings: dict[str, Any]
) -> None:
    """The child must not hold the parent's lock through an inherited descriptor."""
    data = state.dict("DATA")
    data["n"] = 1
    store: Any = state.store
    reading, writing = os.pipe()
    is_there, says = os.pipe()

    def parent_that_dies_in_a_commit() -> None:
        store.commit([Write("DATA", "other", b"1i")])
        if os.fork() == 0:
            os.close(writing)
            os.write(says, b".")
            os.read(reading, 1)  # Until the test closes its end.
            os._exit(0)
        os.read(is_there, 1)  # Python has closed in the child what it has inherited.
        STEPS["after word 1"](store)
        store.commit([Write("DATA", "n", b"2i")])

    assert in_child(parent_that_dies_in_a_commit) == 0
    try:
        assert data["n"] == 1
        data.get("n")
        data.get("n")
        assert data._replica.freshness.is_unchanged(data._replica)
    finally:
        for descriptor in (writing, reading, is_there, says):
            os.close(descriptor)
