"""Locks, connections and garbage of a store that is interrupted."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import ConflictError, ReentryError
from flask_globalstate.stores import memory
from flask_globalstate.stores.base import ABSENT, DELETE, Write
from flask_globalstate.stores.memory import REMOVALS_KEPT, MemoryStore
from flask_globalstate.stores.shelve import ShelveStore
from tests.support import PATIENCE
from tests.support.steps import Interrupt, at_step, interrupt

pytestmark = pytest.mark.slow


def test_a_conflict_costs_no_connection(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path / "store", timeout=1)
    store.increment("ONE", "a", 1)
    before = [list(idle) for idle in store._connections._idle.values()]
    with pytest.raises(ConflictError):
        store.commit([Write("ONE", "a", b"2i", ABSENT)])
    assert list(store._connections._idle.values()) == before != []
    store.close()


def test_a_write_lock_that_nobody_will_release_is_free(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path / "store", timeout=1)
    store.increment("ONE", "a", 1)
    # There is no statement that would leave it.
    store._write_lock().__enter__()
    assert store.increment("ONE", "a", 1)[1] == 2
    store.close()


def test_the_garbage_collector_waits_while_a_thread_has_the_write_lock_and_not_after(
    tmp_path: Path,
) -> None:
    store = ShelveStore(tmp_path / "store", timeout=1)
    store.increment("ONE", "a", 1)
    assert gc.isenabled()
    with store._write_lock():
        assert not gc.isenabled()
        with pytest.raises(ReentryError):
            store.increment("ONE", "a", 1)
        assert not gc.isenabled()
    assert gc.isenabled()
    store._write_lock().__enter__()
    assert store.increment("ONE", "a", 1)[1] == 2
    assert gc.isenabled()
    gc.disable()
    try:
        store.increment("ONE", "a", 1)
        assert not gc.isenabled()
    finally:
        gc.enable()
    store.close()


def test_no_connection_is_kept_in_the_middle_of_a_transaction(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path / "store", timeout=1)
    store.increment("ONE", "a", 1)
    with store._connections.open("ONE") as shelf:
        shelf.connection.execute("BEGIN IMMEDIATE")
    other = ShelveStore(tmp_path / "store", timeout=1)
    assert other.increment("ONE", "a", 1)[1] == store.increment("ONE", "a", 0)[1] == 2
    store.close()
    other.close()


# --- memory: what is dropped is the user's own ----------------------------------------------------


class Noisy:
    """Uses the store when it goes away."""

    def __init__(self, use: Callable[[], Any]) -> None:
        self._use = use

    def __del__(self) -> None:
        self._use()


WAYS_TO_DROP: dict[str, Callable[[MemoryStore], Any]] = {
    "replaced": lambda store: store.commit([Write("ONE", "a", None)]),
    "deleted": lambda store: store.commit([Write("ONE", "a", DELETE)]),
    "dropped": lambda store: store.drop("ONE"),
    "several": lambda store: store.commit([Write("ONE", "a", None), Write("TWO", "a", None)]),
}


@pytest.mark.parametrize("way", WAYS_TO_DROP)
@pytest.mark.parametrize("by", ["finalizer", "weakref"])
def test_what_goes_away_when_it_is_replaced_can_use_the_store(way: str, by: str) -> None:
    store = MemoryStore()
    told: list[Any] = []

    def use() -> None:
        told.append(store.fetch("ONE", ["a"]).entries.get("a"))
        store.commit([Write("TWO", "told", len(told))])

    one = Noisy(use if by == "finalizer" else lambda: None)
    reference = weakref.ref(one, lambda _: use()) if by == "weakref" else None
    store.commit([Write("ONE", "a", one)])
    del one
    assert told == []
    WAYS_TO_DROP[way](store)
    assert len(told) == 1
    assert told[0] is None or told[0].data is None
    assert store.fetch("TWO").entries["told"].data == 1
    del reference


def test_garbage_that_is_collected_at_any_allocation_never_hangs_a_store_in_memory() -> None:
    store = MemoryStore()
    outcomes = {"used": 0, "raised": 0}

    def use() -> None:
        try:
            store.commit([Write("ONE", "garbage", outcomes["used"])])
            outcomes["used"] += 1
        except ReentryError:
            outcomes["raised"] += 1

    def work() -> None:
        for number in range(3000):
            one = Noisy(use)
            one.me = one  # type: ignore[attr-defined]
            del one
            store.commit([Write("ONE", str(number % 20), [number]), Write("TWO", "n", {number: [number]})])
            store.fetch("ONE")
            store.changes("ONE", store.revision("TWO"))
            if number % 50 == 0:
                store.drop("ONE")

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    finally:
        gc.set_threshold(*before)
    assert store.fetch("TWO").entries["n"].data == {2999: [2999]}
    assert outcomes["used"] + outcomes["raised"] >= 2990


def test_most_garbage_is_not_collected_while_a_store_in_memory_is_locked() -> None:
    store = MemoryStore()
    outcomes = {"used": 0, "raised": 0}

    def use() -> None:
        try:
            store.commit([Write("ONE", "garbage", 1)])
            outcomes["used"] += 1
        except ReentryError:
            outcomes["raised"] += 1

    for number in range(5000):
        one = Noisy(use)
        one.me = one  # type: ignore[attr-defined]
        del one
        store.commit([Write("ONE", str(number % 20), [number])])
    assert outcomes["used"] > 10 * outcomes["raised"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_removal_is_logged_and_the_log_reaches_back_as_far_as_it_says() -> None:
    number, is_reached = 0, True
    while is_reached:
        number += 1
        store = MemoryStore()
        seen = [store.commit([Write("ONE", str(key), key) for key in range(REMOVALS_KEPT + 2)])]
        seen += [store.commit([Write("ONE", str(key), DELETE)]) for key in range(REMOVALS_KEPT)]
        with (
            contextlib.suppress(Interrupt),
            at_step(number, interrupt, memory.__file__) as reached,
        ):
            store.commit([Write("ONE", str(REMOVALS_KEPT), DELETE)])
        is_reached = reached()
        is_made = str(REMOVALS_KEPT) not in store.fetch("ONE").entries
        for place, since in enumerate(seen[:3]):
            answer = store.changes("ONE", since)
            missed = {str(key) for key in range(place, REMOVALS_KEPT + is_made)}
            assert answer.reset or answer.removed.keys() == missed, (number, place)
        assert not store.changes("ONE", seen[1]).reset
