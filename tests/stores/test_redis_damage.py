"""What happens to the keys of a store behind its back: eviction, and removal by hand."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from flask_globalstate import ConflictError, GlobalState
from flask_globalstate.stores.base import ABSENT, CHECK, DELETE, Write
from flask_globalstate.stores.redis import store as module
from flask_globalstate.values.revision import Revision
from tests.support.redis_damage import KINDS, Client, _milliseconds, filled, key, sizes, state_key, until


@pytest.mark.parametrize("lost", [*[(kind,) for kind in KINDS], ("data", "log", "order"), KINDS])
@pytest.mark.parametrize(
    "first", ["fetch", "keys", "changes", "put", "several", "increment", "commit", "drop"]
)
def test_a_part_that_is_lost_begins_an_epoch(
    make: Any, client: Client, lost: tuple[str, ...], first: str
) -> None:
    store, other = make(), make()
    before = filled(store)
    for kind in lost:
        assert client.delete(key(store, kind))
    use = {
        "fetch": lambda: other.fetch("N", ["a"]),
        "keys": lambda: other.keys("N"),
        "changes": lambda: other.changes("N", before),
        "put": lambda: other.commit([Write("N", "z", b"z")]),
        "several": lambda: other.commit([Write("N", "y", b"y"), Write("N", "z", b"z")]),
        "increment": lambda: other.increment("N", "up", 1),
        "commit": lambda: other.commit([Write("N", "z", b"z"), Write("M", "z", b"z")]),
        "drop": lambda: other.drop("N"),
    }
    use[first]()
    # A commit to other keys may leave it to who reads what was lost.
    answer = store.changes("N", before)
    assert answer.reset
    assert answer.revision.epoch != before.epoch
    assert answer.revision.number >= before.number
    found = store.fetch("N")
    if first != "drop":
        assert set("abc") & set(found.entries) == (set() if "data" in lost else set("abc"))
    assert set(store.keys("N")[1]) == set(found.entries)
    assert len(sizes(client, store)) == 1


@pytest.mark.parametrize("kind", ["data", "log", "order"])
def test_a_single_key_that_is_removed_by_hand_begins_an_epoch(make: Any, client: Client, kind: str) -> None:
    store = make()
    before = filled(store)
    (client.hdel if kind == "data" else client.zrem)(key(store, kind), "b")
    found = store.fetch("N")
    assert found.revision.epoch != before.epoch
    left = ["a", "c"] if kind == "data" else ["a", "b", "c"]
    assert sorted(found.entries) == left
    assert store.keys("N")[1] == (["a", "c", "b"] if kind == "order" else left)
    assert store.changes("N", before).reset
    assert len(sizes(client, store)) == 1
    # It is repaired: the next calls go on in this epoch.
    second = store.commit([Write("N", "a", b"2", Revision(found.revision.epoch, found.entries["a"].number))])
    assert second.epoch == found.revision.epoch
    assert store.changes("N", found.revision).changed == {"a": second.number}


def test_a_state_that_is_lost_costs_no_name(make: Any, client: Client) -> None:
    store = make()
    before = filled(store)
    until(lambda: _milliseconds(client) > before.number)
    client.delete(state_key(store))
    with pytest.raises(ConflictError):
        store.commit([Write("N", "a", b"initial")], {"N": ABSENT})
    found = store.fetch("N")
    assert {key: entry.data for key, entry in found.entries.items()} == {"a": b"a", "b": b"b", "c": b"c"}
    assert found.revision.epoch != before.epoch
    assert found.revision.number > before.number
    assert store.names() == ["N"]


def test_workers_read_nothing_stale_after_an_eviction(redis_url: str, client: Client) -> None:
    settings = {
        "STORE_URL": redis_url,
        "STORE_SECRET_KEY": "x",
        "STORE_SYNC": "read",
        "STORE_ID": uuid.uuid4().hex,
    }
    one, two = (GlobalState.from_config(settings) for _ in range(2))
    try:
        mine, theirs = one.dict("N"), two.dict("N")
        mine.update(a=1, b=2)
        assert dict(theirs) == {"a": 1, "b": 2}
        for kind in ("data", "log", "order"):
            client.delete(key(one.store, kind))  # type: ignore[arg-type]
        assert len(mine) == 0
        assert "a" not in theirs
        theirs["a"] = 5
        assert dict(mine) == {"a": 5}
    finally:
        one.close()
        two.close()


def test_what_an_older_release_has_written_meanwhile_is_no_gap(make: Any, client: Client) -> None:
    store = make()
    before = filled(store)
    # As its scripts do: they know nothing of the counts.
    number = before.number + 1
    packed = number.to_bytes(8, "big")
    floor_and_live = client.hget(state_key(store), "n:N")[8:]
    client.hset(key(store, "data"), "e", packed + b"e")
    client.zadd(key(store, "log"), {"e": number})
    client.zadd(key(store, "order"), {"e": 99})
    client.hset(state_key(store), mapping={"number": number, "created": 99, "n:N": packed + floor_and_live})
    after = store.changes("N", before)
    assert after.revision == (before.epoch, number)
    assert after.changed == {"e": number}
    for use in (
        lambda: store.commit([Write("N", "f", b"")]),
        lambda: store.commit([Write("N", "a", DELETE)]),
        lambda: store.increment("N", "up", 1),
    ):
        client.hset(state_key(store), "c:N", bytes(24))
        assert use()  # type: ignore[no-untyped-call]
        assert len(sizes(client, store)) == 1
    assert store.revision("N").epoch == before.epoch


def test_what_is_counted_of_a_name_is_what_there_is(make: Any, client: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "REMOVALS_KEPT", 3)
    store = make()
    epoch = filled(store).epoch
    many = [Write("N", f"{n}", b"") for n in range(2500)]
    for writes in (
        [Write("N", "a", b"2")],
        [Write("N", "new", b"")],
        many,
        [Write("N", "a", DELETE), Write("N", "absent", DELETE), Write("N", "b", b"3"), Write("M", "x", b"")],
        [write._replace(data=DELETE) for write in many],
        [Write("N", "a", b"4")],
        [Write("N", "a", CHECK, ABSENT), Write("M", "x", DELETE)],
    ):
        try:
            store.commit(writes)
        except ConflictError:
            assert writes[0].data is CHECK
        assert len(sizes(client, store)) == 1
    for _ in range(2):
        store.increment("N", "up", 1)
        assert len(sizes(client, store)) == 1
    store.drop("N")
    assert sizes(client, store) == {0}
    store.increment("N", "up", 1)
    assert sizes(client, store) == {1}
    assert store.revision("N").epoch == epoch


def test_no_key_of_ours_has_a_time_to_live(make: Any, client: Client) -> None:
    store = make()
    filled(store)
    store.increment("N", "up", 1)
    keys = list(client.scan_iter(f"*{store.state_id}*"))
    assert len(keys) == 6
    assert {client.ttl(key) for key in keys} == {-1}
