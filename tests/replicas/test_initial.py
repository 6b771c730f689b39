"""Initial content, the order of keys, outages, and `manual` mode of a replica."""

from __future__ import annotations

from typing import Any

import pytest

from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.replicas.freshness import Outage
from flask_globalstate.replicas.options import ReplicaOptions
from flask_globalstate.replicas.replica import Replica
from flask_globalstate.stores.base import DELETE, Revision, Write
from flask_globalstate.values.envelope import PlainCodec
from tests.support.slow_store import NAME, SlowStore, write


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


def test_a_name_is_not_taken_for_seeded_in_an_epoch_that_was_met_meanwhile(
    store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica("N", store, PlainCodec(), ReplicaOptions(lambda: {"first": 1}))
    real = store.revision

    def revision(name: str) -> Revision:
        answer = real(name)
        monkeypatch.setattr(store, "revision", real)
        replica.ask().generation_of(Revision("another", 7))
        return answer

    monkeypatch.setattr(store, "revision", revision)
    asked: list[str] = []
    replica.seed()
    monkeypatch.setattr(store, "revision", lambda name: asked.append(name) or real(name))
    replica.seed()
    assert replica.cache.epoch == real("N").epoch
    assert asked == []
