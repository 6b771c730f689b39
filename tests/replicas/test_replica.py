"""The rules of the replica, each by an interleaving that goes wrong without it.

A store whose answers can be held back stands for a slow thread: what happens in ``meanwhile`` happens
after the store has answered and before the asking thread hears it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.replicas.cache import LONGEST_ABSENT, MOST_ABSENT
from flask_globalstate.replicas.freshness import Outage
from flask_globalstate.replicas.options import ReplicaOptions
from flask_globalstate.replicas.replica import Replica
from flask_globalstate.replicas.requests import Request
from flask_globalstate.state.state import State
from flask_globalstate.stores.base import DELETE, Changes, Fetched, Revision, Store, Write
from flask_globalstate.stores.memory import REMOVALS_KEPT, MemoryStore
from flask_globalstate.values.envelope import PlainCodec

NAME = "DATA"

#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 240


class SlowStore(MemoryStore):
    """Counts what it is asked, and can answer late.

    :ivar along: whether changed values come along with a sync.
    """

    def __init__(self) -> None:
        super().__init__()
        self.along = False
        self.asked: list[str] = []
        self.meanwhile: dict[str, Callable[[], None]] = {}
        self.down = False

    def _late(self, method: str, answer: Any) -> Any:
        if self.down:
            raise StoreUnavailableError("down")
        self.asked.append(method)
        then = self.meanwhile.pop(method, None)
        if then is not None:
            then()
        return answer

    def fetch(self, name: str, keys: Any = None) -> Fetched:
        return self._late("fetch", super().fetch(name, keys))

    def changes(self, name: str, since: Revision) -> Changes:
        changes = super().changes(name, since)
        if self.along:
            changes = changes._replace(entries=super().fetch(name, changes.changed).entries)
        return self._late("changes", changes)

    def keys(self, name: str) -> Any:
        return self._late("keys", super().keys(name))

    def begin_epoch(self) -> None:
        """Lose everything, as a server does that is started without its data."""
        self._epoch, self._number, self._names = "another epoch", 0, {}


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def replica(store: SlowStore) -> Replica:
    return Replica(NAME, store, PlainCodec())


def write(store: Store, **items: Any) -> None:
    """Another worker commits."""
    store.commit([Write(NAME, key, value) for key, value in items.items()])


def read(replica: Replica, key: str) -> Any:
    """A read as SharedDict does it, without a check for freshness."""
    try:
        return replica.values[key]
    except KeyError:
        return replica.read(key)


def test_rule_2_a_fetch_does_not_move_synced(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    assert read(replica, "a") == 1
    write(store, a=2)
    write(store, b=2)
    assert read(replica, "b") == 2  # An answer of a later revision, and a is still the old one.
    replica.sync()
    assert read(replica, "a") == 2


def test_rule_2_an_own_commit_does_not_move_synced(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    assert read(replica, "a") == 1
    write(store, a=2)
    replica.commit({"b": 2})
    replica.sync()
    assert read(replica, "a") == 2


def test_rule_2_a_late_answer_of_changes_does_not_move_synced_back(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")

    def another_thread_syncs() -> None:
        write(store, a=2, b=2)
        replica.sync()

    store.meanwhile["changes"] = another_thread_syncs
    replica.sync()
    assert replica.synced_at(store.revision(NAME))


def test_rule_3_a_slow_fetch_does_not_put_back_what_a_sync_has_dropped(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    read(replica, "b")

    def another_worker_writes_and_another_thread_syncs() -> None:
        write(store, a=2)
        replica.sync()

    store.meanwhile["fetch"] = another_worker_writes_and_another_thread_syncs
    assert read(replica, "a") == 1  # That read began before the write.
    assert read(replica, "a") == 2


def test_rule_3_a_slow_fetch_does_not_remember_as_absent_what_a_sync_has_seen(
    store: SlowStore, replica: Replica
) -> None:
    write(store, b=1)
    read(replica, "b")

    def another_worker_writes_and_another_thread_syncs() -> None:
        write(store, a=2)
        replica.sync()

    store.meanwhile["fetch"] = another_worker_writes_and_another_thread_syncs
    with pytest.raises(KeyError):
        read(replica, "a")
    assert read(replica, "a") == 2


@pytest.mark.parametrize("used_before", [True, False])
def test_rule_3_a_slow_fetch_does_not_hide_a_write_of_ones_own(
    store: SlowStore, replica: Replica, used_before: bool
) -> None:
    write(store, a=1, b=1)
    if used_before:
        read(replica, "b")
    store.meanwhile["fetch"] = lambda: replica.commit({"a": 2})
    assert read(replica, "a") == 1
    assert read(replica, "a") == 2


def test_rule_3_a_slow_fetch_does_not_hide_an_increment_of_ones_own(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    store.meanwhile["fetch"] = lambda: replica.increment("a", 1) and None
    assert read(replica, "a") == 1
    assert read(replica, "a") == 2


def test_rule_3_slow_keys_do_not_bring_back_an_order_that_a_sync_has_dropped(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")

    def another_worker_writes_and_another_thread_syncs() -> None:
        write(store, b=2)
        replica.sync()

    store.meanwhile["keys"] = another_worker_writes_and_another_thread_syncs
    assert list(replica.order()) == ["a"]
    assert list(replica.order()) == ["a", "b"]


def test_rule_4_a_key_held_at_the_named_revision_is_not_dropped(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    write(store, b=2)
    assert read(replica, "b") == 2
    replica.sync()  # Names b, at the revision at which it is held.
    assert replica.values == {"a": 1, "b": 2}


def test_rule_4_a_key_found_absent_at_the_named_revision_is_not_asked_for_again(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    read(replica, "b")
    write(store, a=DELETE)
    with pytest.raises(KeyError):
        read(replica, "a")
    replica.sync()
    store.asked.clear()
    with pytest.raises(KeyError):
        read(replica, "a")
    assert store.asked == []


def test_rule_4_what_a_late_answer_names_does_not_drop_what_is_newer(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")
    write(store, a=2)

    def another_thread_is_ahead() -> None:
        write(store, a=3)
        replica.sync()
        assert read(replica, "a") == 3

    store.meanwhile["changes"] = another_thread_is_ahead
    replica.sync()
    assert replica.values == {"a": 3}


def test_rule_5_another_epoch_empties_the_replica(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    store.begin_epoch()
    write(store, b=2)  # The same number as before, of another history.
    replica.sync()
    with pytest.raises(KeyError):
        read(replica, "a")
    assert read(replica, "b") == 2


def test_rule_5_a_fetch_of_another_epoch_empties_the_replica(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    store.begin_epoch()
    write(store, b=2)
    assert read(replica, "b") == 2
    assert "a" not in replica.values


def test_rule_5_a_log_that_reaches_back_too_little_empties_the_replica(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    replica.commit({"a": 2})
    read(replica, "a")
    keys = {f"k{i}": i for i in range(REMOVALS_KEPT + 1)}
    other = Replica(NAME, store, PlainCodec())
    other.commit({"a": 3})
    other.commit(keys)
    other.commit(dict.fromkeys(["a", *keys], DELETE))
    replica.sync()
    with pytest.raises(KeyError):
        read(replica, "a")


def test_rule_5_an_answer_of_an_epoch_that_is_gone_does_not_reset_again(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=2)
        replica.sync()
        assert read(replica, "a") == 2

    store.meanwhile["fetch"] = the_server_is_replaced_and_another_thread_notices
    with pytest.raises(KeyError):
        read(replica, "b")
    assert replica.synced_at(store.revision(NAME))
    assert replica.values == {"a": 2}


def test_rule_5_an_own_commit_of_an_epoch_that_is_gone_does_not_reset_again(
    store: SlowStore, replica: Replica, monkeypatch: Any
) -> None:
    write(store, a=1)
    read(replica, "a")
    real = store.commit

    def commit(writes: Any, names: Any = None) -> Revision:
        revision = real(writes, names)
        monkeypatch.undo()
        store.begin_epoch()
        write(store, a=3)
        replica.sync()
        assert read(replica, "a") == 3
        return revision

    monkeypatch.setattr(store, "commit", commit)
    replica.commit({"b": 2})
    assert replica.synced_at(store.revision(NAME))
    assert replica.values == {"a": 3}


def test_a_late_value_of_an_epoch_that_is_gone_is_not_shown_after_a_newer_one(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=0, b=1)
    write(store, a=1)
    read(replica, "b")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=2)
        replica.sync()
        assert read(replica, "a") == 2

    store.meanwhile["fetch"] = the_server_is_replaced_and_another_thread_notices
    assert replica.read("a") == 2


def test_a_late_sync_of_an_epoch_that_is_gone_asks_again(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    read(replica, "a")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=2)
        replica.sync()
        read(replica, "a")

    store.meanwhile["changes"] = the_server_is_replaced_and_another_thread_notices
    replica.sync()
    assert replica.values == {"a": 2}


def test_rule_2_a_late_answer_of_an_epoch_that_is_gone_does_not_move_synced(
    store: SlowStore, replica: Replica
) -> None:
    for n in range(5):
        write(store, a=n)
    read(replica, "a")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=10)
        replica.sync()
        assert read(replica, "a") == 10
        write(store, a=11)  # Its number is below that of the answer that is late.

    store.meanwhile["changes"] = the_server_is_replaced_and_another_thread_notices
    replica.sync()
    assert read(replica, "a") == 11


def test_an_absent_key_is_remembered_as_absent(store: SlowStore) -> None:
    data: SharedDict[str, int] = SharedDict(NAME, store, sync="request")
    write(store, a=1)
    request = Request()
    request.fresh_stores.add(store)
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
    request.fresh_stores.add(store)
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


def test_a_key_removed_and_written_again_moves_to_the_end(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    assert list(replica.order()) == ["a", "b"]
    store.commit([Write(NAME, "a", DELETE)])
    write(store, a=1)
    assert list(replica.order()) == ["b", "a"]


def test_an_overwritten_key_keeps_its_place_and_costs_no_new_list_of_keys(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    replica.order()
    write(store, a=2)
    store.asked.clear()
    assert list(replica.order()) == ["a", "b"]
    assert "keys" not in store.asked


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


def test_manual_reads_ask_nothing_until_sync(store: SlowStore) -> None:
    write(store, a=1, b=1)
    data: SharedDict[str, int] = SharedDict(NAME, store, sync="manual")
    assert data["a"] == 1
    store.asked.clear()
    write(store, a=2, c=3)
    assert (data["a"], data.get("c"), len(data), "c" in data) == (1, None, 2, False)
    assert data.copy() == {"a": 1, "b": 1}
    assert store.asked == []
    data.sync(sender="a signal")
    assert data.copy() == {"a": 2, "b": 1, "c": 3}


def test_manual_sees_its_own_writes(store: SlowStore) -> None:
    write(store, a=1, b=1)
    data: SharedDict[str, int] = SharedDict(NAME, store, sync="manual")
    assert len(data) == 2
    data["c"] = 3
    del data["a"]
    assert data.copy() == {"b": 1, "c": 3}
    assert ("a" in data, data["c"], list(data)) == (False, 3, ["b", "c"])
    data.clear()
    assert data.copy() == {}


def test_an_outage_is_tolerated_for_as_long_as_was_said(store: SlowStore, monkeypatch: Any) -> None:
    now = [1000.0]
    monkeypatch.setattr("flask_globalstate.replicas.freshness.time.monotonic", lambda: now[0])
    patient = Replica(NAME, store, PlainCodec(), ReplicaOptions(outage=Outage(30)))
    strict = Replica(NAME, store, PlainCodec())
    write(store, a=1)
    assert (patient.read("a"), strict.read("a")) == (1, 1)
    store.down = True
    with pytest.raises(StoreUnavailableError):
        strict.refresh()
    patient.refresh()
    now[0] += 29
    patient.refresh()
    now[0] += 2
    with pytest.raises(StoreUnavailableError):
        patient.refresh()
    store.down = False
    patient.refresh()
    store.down = True
    patient.refresh()  # A new outage, with a time of its own.


def test_initial_is_committed_by_whoever_comes_first_and_once(store: SlowStore) -> None:
    calls: list[int] = []

    def initial() -> dict[str, int]:
        calls.append(1)
        return {"a": 1}

    first = Replica(NAME, store, PlainCodec(), ReplicaOptions(initial))
    second = Replica(NAME, store, PlainCodec(), ReplicaOptions(lambda: {"a": 2}))
    assert first.snapshot() == {"a": 1}
    first.clear()
    assert second.snapshot() == {}
    assert Replica(NAME, store, PlainCodec(), ReplicaOptions(initial)).snapshot() == {}
    assert calls == [1]


def test_a_write_before_the_first_read_comes_after_initial(store: SlowStore) -> None:
    replica = Replica(NAME, store, PlainCodec(), ReplicaOptions(lambda: {"a": 1}))
    replica.commit({"b": 2})
    assert replica.snapshot() == {"a": 1, "b": 2}


def test_initial_that_another_worker_commits_meanwhile_is_taken(store: SlowStore, monkeypatch: Any) -> None:
    def initial() -> dict[str, int]:
        write(store, a=5)  # Between our look and our commit.
        return {"a": 1}

    assert Replica(NAME, store, PlainCodec(), ReplicaOptions(initial)).snapshot() == {"a": 5}


def test_a_store_that_lost_its_history_is_given_initial_again(store: SlowStore) -> None:
    replica = Replica(NAME, store, PlainCodec(), ReplicaOptions(lambda: {"a": 1}))
    assert replica.snapshot() == {"a": 1}
    store.begin_epoch()
    replica.sync()
    assert replica.snapshot() == {"a": 1}


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


def test_the_order_survives_a_write_of_ones_own_to_a_key_in_it(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    replica.order()
    replica.commit({"a": 2})
    replica.refresh = lambda: None  # type: ignore[method-assign]
    store.asked.clear()
    assert list(replica.order()) == ["a", "b"]
    assert store.asked == ["changes"]


def test_a_key_that_another_worker_creates_is_in_the_order(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    assert list(replica.order()) == ["a"]
    write(store, b=1)
    assert list(replica.order()) == ["a", "b"]
    assert replica.contains("b")


def test_a_key_remembered_as_absent_is_found_when_another_worker_creates_it(
    store: SlowStore, replica: Replica
) -> None:
    with pytest.raises(KeyError):
        read(replica, "a")
    write(store, a=1)
    replica.sync()
    assert read(replica, "a") == 1


def test_rule_1_the_row_is_read_before_changes_are_asked(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    read(replica, "a")
    store.meanwhile["changes"] = lambda: write(store, a=2)  # Too late for that answer.
    replica.refresh()
    replica.refresh()
    assert read(replica, "a") == 2


def test_rule_1_a_row_that_is_not_idle_is_not_remembered(
    store: SlowStore, replica: Replica, monkeypatch: Any
) -> None:
    write(store, a=1)
    read(replica, "a")
    monkeypatch.setattr(store, "is_idle", lambda name, row: False)
    replica.refresh()
    assert not replica.freshness.is_unchanged(replica)
    monkeypatch.undo()
    replica.refresh()
    assert replica.freshness.is_unchanged(replica)


def test_rule_1_what_is_remembered_is_remembered_for_one_name_only(store: SlowStore) -> None:
    replicas = [Replica(name, store, PlainCodec()) for name in ("one", "two")]
    for name in ("one", "two"):
        store.commit([Write(name, "a", 1)])
    for replica in replicas:
        read(replica, "a")
    for name in ("one", "two"):
        store.commit([Write(name, "a", 2)])
    replicas[0].refresh()
    for replica in replicas:
        replica.refresh()
        assert read(replica, "a") == 2


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


def test_rule_3_what_comes_along_late_does_not_put_back_what_another_sync_has_dropped(
    store: SlowStore, replica: Replica
) -> None:
    store.along = True
    for reads_again in (True, False):
        write(store, a=1)
        read(replica, "a")
        write(store, a=2)

        def another_thread_syncs(reads_again: bool = reads_again) -> None:
            write(store, a=3)
            replica.sync()
            if reads_again:
                assert read(replica, "a") == 3

        store.meanwhile["changes"] = another_thread_syncs
        replica.sync()
        assert read(replica, "a") == 3


def test_rule_3_what_comes_along_late_does_not_hide_a_write_of_ones_own(
    store: SlowStore, replica: Replica
) -> None:
    store.along = True
    write(store, a=1)
    read(replica, "a")
    write(store, a=2)
    store.meanwhile["changes"] = lambda: replica.commit({"a": 3}) and None
    replica.sync()
    assert read(replica, "a") == 3


def test_rule_5_what_comes_along_of_an_epoch_that_is_gone_is_not_kept(
    store: SlowStore, replica: Replica
) -> None:
    store.along = True
    write(store, a=1)
    read(replica, "a")
    write(store, a=2)

    def begin_again() -> None:
        store.begin_epoch()
        write(store, a=3)
        replica.sync()

    store.meanwhile["changes"] = begin_again
    replica.sync()
    assert read(replica, "a") == 3


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
            assert go.wait(DEADLINE)
        return answer

    store.fetch = fetch  # type: ignore[method-assign]
    slow = threading.Thread(target=lambda: data["k"])
    slow.start()
    assert asked.wait(DEADLINE)
    theirs["k"] = "new"
    with states[0].request():
        go.set()
        slow.join(DEADLINE)
        assert data["k"] == "new"
    for state in states:
        state.close()


def test_an_answer_of_an_epoch_that_is_gone_shows_nothing(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    assert read(replica, "a") == 1
    gone = Revision("an epoch that is gone", 99)
    replica.show_own("a", gone, "old", False)
    assert read(replica, "a") == 1


def test_a_name_is_not_taken_for_seeded_in_an_epoch_that_was_met_meanwhile(
    store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica("N", store, PlainCodec(), ReplicaOptions(lambda: {"first": 1}))
    real = store.revision

    def revision(name: str) -> Revision:
        answer = real(name)
        monkeypatch.setattr(store, "revision", real)
        replica.ask().accepts(Revision("another", 7))
        return answer

    monkeypatch.setattr(store, "revision", revision)
    asked: list[str] = []
    replica.seed()
    monkeypatch.setattr(store, "revision", lambda name: asked.append(name) or real(name))
    replica.seed()
    assert replica.cache.epoch == real("N").epoch
    assert asked == []
