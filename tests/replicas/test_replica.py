"""What a replica asks its store, and what it answers of what it holds."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.replicas.cache import LONGEST_ABSENT, MOST_ABSENT
from flask_globalstate.replicas.replica import Replica
from flask_globalstate.replicas.requests import Request
from flask_globalstate.state.state import State
from flask_globalstate.stores.base import Revision
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.system.clock import now
from tests.support import PATIENCE
from tests.support.slow_store import NAME, SlowStore, read, write


def test_an_absent_key_is_remembered_as_absent(store: SlowStore) -> None:
    data: SharedDict[str, int] = SharedDict(NAME, store, sync="request")
    write(store, a=1)
    request = Request()
    request.fresh_at[store] = now()
    request.begin()
    try:
        assert data.get("missing") is None
        store.asked.clear()
        assert data.get("missing", 5) == 5
        assert "missing" not in data
        assert store.asked == []
    finally:
        request.end()


def test_the_memory_of_absent_keys_is_bounded(store: SlowStore) -> None:
    data: SharedDict[str, int] = SharedDict(NAME, store)
    cache = data._replica.cache
    for n in range(3 * MOST_ABSENT):
        assert data.get(f"key {n}") is None
    assert len(cache.absent) == MOST_ABSENT
    store.asked.clear()
    assert data.get(f"key {n}") is None  # The last ones are remembered.
    assert store.asked == []
    assert data.get("long" * LONGEST_ABSENT) is None
    assert "long" * LONGEST_ABSENT not in cache.absent
    write(store, **{"long" * LONGEST_ABSENT: 1})
    assert data.get("long" * LONGEST_ABSENT) == 1


def test_a_hit_in_a_request_asks_nothing_and_after_it_is_checked_again(store: SlowStore) -> None:
    data: SharedDict[str, int] = SharedDict(NAME, store, sync="request")
    write(store, a=1)
    assert data["a"] == 1
    request = Request()
    request.fresh_at[store] = now()
    request.begin()
    try:
        store.asked.clear()
        assert data["a"] == 1
        assert store.asked == []
        write(store, a=2)
        assert data["a"] == 1
        request.end()
        assert data["a"] == 2
    finally:
        request.end()


def test_what_is_iterated_is_of_one_revision_even_when_a_newer_answer_came_before(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    assert replica.snapshot() == {"a": 1, "b": 1}
    write(store, a=2)
    write(store, b=2)
    replica.refresh = lambda: None  # type: ignore[method-assign]  # A request that began before both writes.
    replica.cache.evict("b")
    assert read(replica, "b") == 2
    assert replica.snapshot() == {"a": 2, "b": 2}


def test_after_one_change_among_many_a_snapshot_fetches_that_key_only(
    store: SlowStore, replica: Replica, monkeypatch: Any
) -> None:
    write(store, **{f"k{n}": n for n in range(100)})
    replica.snapshot()
    fetched: list[Any] = []
    fetch = store.fetch
    monkeypatch.setattr(store, "fetch", lambda name, keys=None: fetched.append(keys) or fetch(name, keys))
    write(store, k5="new")
    assert replica.snapshot() == {**{f"k{n}": n for n in range(100)}, "k5": "new"}
    assert fetched == [["k5"]]


def test_what_a_snapshot_fetches_is_of_the_revision_of_what_is_held(
    store: SlowStore, replica: Replica
) -> None:
    write(store, **{f"k{n}": 0 for n in range(100)})
    replica.snapshot()
    write(store, k5=1)
    # Between the sync and the fetch of what has changed: k6 is held as it was, k5 is fetched as it is.
    store.meanwhile["changes"] = lambda: write(store, k5=2, k6=2)
    found = replica.snapshot()
    assert (found["k5"], found["k6"]) == (2, 2)


def test_a_failed_write_forgets_its_keys(store: SlowStore, replica: Replica, monkeypatch: Any) -> None:
    write(store, a=1)
    read(replica, "a")

    def commit_and_lose_the_answer(*args: Any) -> Revision:
        MemoryStore.commit(store, *args)
        raise StoreUnavailableError("the answer was lost")

    monkeypatch.setattr(store, "commit", commit_and_lose_the_answer)
    with pytest.raises(StoreUnavailableError):
        replica.commit({"a": 2})
    assert read(replica, "a") == 2


def test_a_snapshot_does_not_mix_revisions_when_another_thread_reads_meanwhile(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    replica.snapshot()
    write(store, b=2)
    replica.cache.evict("b")
    assert read(replica, "b") == 2  # Newer than the last sync, so that the snapshot begins with one.
    replica.refresh = lambda: None  # type: ignore[method-assign]

    def another_thread_reads_what_is_newer() -> None:
        write(store, a=3)
        write(store, b=3)
        replica.cache.evict("b")
        assert read(replica, "b") == 3

    store.meanwhile["changes"] = another_thread_reads_what_is_newer
    assert replica.snapshot() == {"a": 3, "b": 3}


def test_a_key_remembered_as_absent_is_found_when_another_worker_creates_it(
    store: SlowStore, replica: Replica
) -> None:
    with pytest.raises(KeyError):
        read(replica, "a")
    write(store, a=1)
    replica.sync()
    assert read(replica, "a") == 1


def test_an_unchanged_name_asks_nothing(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    read(replica, "a")
    replica.refresh()
    store.asked.clear()
    for _ in range(10):
        replica.refresh()
        assert read(replica, "a") == 1
        assert list(replica.order())
    assert store.asked == ["fetch", "keys"]  # Once for the order; memory finds its keys by a fetch.


def test_a_value_that_comes_along_with_a_sync_is_not_asked_for(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1, unread=1)
    read(replica, "a")
    with pytest.raises(KeyError):
        read(replica, "new")
    store.along = True
    write(store, a=2, unread=2, new=2)
    replica.sync()
    store.asked.clear()
    assert (read(replica, "a"), read(replica, "new")) == (2, 2)
    assert store.asked == []
    # What nobody here has read is not kept: it would be memory for nothing.
    assert read(replica, "unread") == 2
    assert store.asked == ["fetch"]


@pytest.mark.parametrize("mode", ["request", "read"])
def test_what_was_on_its_way_before_a_request_began_is_not_read_in_it(mode: str, tmp_path: Path) -> None:
    states = [State(), State()]
    for state in states:
        state.use_store("shelve", path=str(tmp_path / "store"))
    data, theirs = states[0].dict("D", sync=mode), states[1].dict("D")
    theirs["k"] = "old"
    store, asked, go = states[0].store, threading.Event(), threading.Event()
    real = store.fetch

    def fetch(name: str, keys: Any = None) -> Any:
        answer = real(name, keys)
        if threading.current_thread() is slow:
            asked.set()
            assert go.wait(PATIENCE)
        return answer

    store.fetch = fetch  # type: ignore[method-assign]
    slow = threading.Thread(target=lambda: data["k"])
    slow.start()
    assert asked.wait(PATIENCE)
    theirs["k"] = "new"
    with states[0].request():
        go.set()
        slow.join(PATIENCE)
        assert data["k"] == "new"
    for state in states:
        state.close()


def test_an_answer_of_an_epoch_that_is_gone_shows_nothing(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    assert read(replica, "a") == 1
    gone = Revision("an epoch that is gone", 99)
    replica.show_own("a", gone, "old", False)
    assert read(replica, "a") == 1
