"""Numbers that only grow, and commands that a server refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from flask_globalstate import (
    StoreUnavailableError,
)
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.values.revision import Revision
from tests.support.redis_damage import (
    KINDS,
    Client,
    _milliseconds,
    filled,
    key,
    real_sizes,
    sizes,
    state_key,
    until,
)

# --- numbers --------------------------------------------------------------------------------------


def test_an_epoch_begins_at_the_milliseconds_of_the_server(make: Any, client: Client) -> None:
    store = make()
    before = client.time()[0] * 1000
    first = store.commit([Write("N", "a", b"")])
    assert before < first.number <= client.time()[0] * 1000 + 1001
    assert store.commit([Write("N", "a", b"")]).number == first.number + 1


def test_numbers_grow_over_a_flush(start_redis: Any, make: Any) -> None:
    server = start_redis()
    store = make(server.url)
    last = filled(store)
    with redis.Redis.from_url(server.url) as client:
        until(lambda: _milliseconds(client) > last.number)
        client.flushall()
        after = store.increment("N", "up", 1)[0]
    assert after.epoch != last.epoch
    assert after.number > last.number


def test_numbers_grow_over_a_server_whose_clock_is_behind(make: Any, client: Client) -> None:
    store = make()
    filled(store)
    client.hset(state_key(store), "number", (client.time()[0] + 10**7) * 1000)
    for lose in (
        lambda: client.hset(state_key(store), "run_id", "another"),
        lambda: client.zrem(key(store, "order"), "a"),
    ):
        last = store.commit([Write("N", "a", b"")])
        lose()  # type: ignore[no-untyped-call]
        after = store.increment("N", "up", 1)[0]
        assert after.epoch != last.epoch
        assert after.number > last.number


def test_numbers_grow_over_a_failover_that_loses_writes(start_redis: Any, make: Any) -> None:
    one, two = start_redis(), start_redis()
    store, standby = make(one.url), make(two.url)
    with redis.Redis.from_url(two.url) as client:
        store.increment("N", "a", 1)
        client.config_set("repl-diskless-load", "disabled")
        client.replicaof("127.0.0.1", one.port)
        until(lambda: client.info("replication")["master_link_status"] == "up")
        client.replicaof("NO", "ONE")
        lost = [store.increment("N", "a", 1)[0] for _ in range(20)]
        # The clock goes on; it has no finer steps.
        until(lambda: _milliseconds(client) > lost[-1].number)
        revision, value = standby.increment("N", "a", 1)
    assert value == 2
    assert revision.epoch != lost[-1].epoch
    assert revision.number > lost[-1].number


@pytest.mark.parametrize("number", [10**13 - 2, 10**14 - 4])
def test_numbers_of_fourteen_digits_are_exact_in_every_script(make: Any, client: Client, number: int) -> None:
    store = make()
    first = filled(store)
    client.hset(state_key(store), mapping={"number": number, "created": number})
    second = store.commit([Write("N", "a", b"2", Revision(first.epoch, first.number - 1))])
    assert second == (first.epoch, number + 1)
    third = store.commit([Write("N", "a", DELETE, second), Write("N", "b", b"3")], {"N": second})
    assert third.number == number + 2
    fourth, value = store.increment("N", "up", 7)
    assert (fourth.number, value) == (number + 3, 7)
    changes = store.changes("N", second)
    assert changes.changed == {"b": third.number, "up": fourth.number}
    assert changes.removed["a"] == third.number
    found = store.fetch("N")
    assert found.revision == store.revision("N") == fourth
    assert {key: entry.number for key, entry in found.entries.items()} == {
        "b": third.number,
        "c": first.number - 1,
        "up": fourth.number,
    }
    last = client.hgetall(state_key(store))
    assert str(fourth.number).encode() in next(last[field] for field in last if field[:2] == b"a:").split()


# --- refusals -------------------------------------------------------------------------------------


WRITES: dict[str, Callable[[RedisStore], Any]] = {
    "put": lambda store: store.commit([Write("N", "a", b"2")]),
    "put a new one": lambda store: store.commit([Write("N", "z", b"2")]),
    "put several": lambda store: store.commit([Write("N", "a", b"2"), Write("N", "z", b"2")]),
    "increment": lambda store: store.increment("N", "up", 1),
    "commit": lambda store: store.commit([Write("N", "a", b"2"), Write("M", "z", b"2")]),
    "delete": lambda store: store.commit([Write("N", "a", DELETE), Write("N", "b", b"2")]),
    "drop": lambda store: store.drop("N"),
}


def refusal(write: str, store: RedisStore) -> StoreUnavailableError | None:
    """The error of a write, if it was refused."""
    try:
        WRITES[write](store)
    except StoreUnavailableError as error:
        return error
    return None


def dump(client: Client, store: RedisStore) -> dict[bytes, Any]:
    """All that is stored of a state but what is kept of sessions."""
    place = state_key(store).encode()
    found = {key: client.dump(key) for key in client.scan_iter(f"*{store.state_id}*")}
    if client.type(place + b":sessions") == b"list":
        del found[place + b":sessions"]
    if client.type(place) == b"hash":
        found[place] = {k: v for k, v in client.hgetall(place).items() if k[:2] != b"a:"}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "state", "sessions"])
@pytest.mark.parametrize("write", WRITES)
def test_a_key_of_a_wrong_type_is_found_before_anything_is_written(
    make: Any, client: Client, kind: str, write: str
) -> None:
    store = make()
    filled(store)
    store.increment("N", "up", 1)
    place = {"state": state_key(store), "sessions": f"{state_key(store)}:sessions"}.get(kind) or key(
        store, kind
    )
    was = client.dump(place)
    client.set(place, "a string")
    before = dump(client, store)
    other = make()
    error = refusal(write, other)
    if error is None:
        # It has no need of what has gone.
        assert kind == "gone"
        assert write in ("put", "put a new one", "put several", "increment")
    else:
        assert "WRONGTYPE" in str(error)
        assert not error.may_be_written
        assert dump(client, store) == before
    client.restore(place, 0, was, replace=True)
    assert WRITES[write](other)
    assert len(sizes(client, store)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_a_list_of_sessions_that_is_none_is_found_before_anything_is_written(
    make: Any, client: Client, write: str
) -> None:
    store = make()
    filled(store)
    client.hdel(state_key(store), b"a:" + store._sessions.idle[-1].id)
    client.set(f"{state_key(store)}:sessions", "a string")
    before = dump(client, store)
    error = refusal(write, store)
    assert "WRONGTYPE" in str(error)
    assert dump(client, store) == before


COMMANDS = [
    "zadd",
    "zrem",
    "hdel",
    "hset",
    "del",
    "zremrangebyrank",
    "rpush",
    "hlen",
    "zcard",
    "time",
    "hmget",
]


@pytest.fixture
def restricted(start_redis: Any, make: Any) -> tuple[Client, RedisStore, RedisStore]:
    """A client that may do everything, a store that may, and one as ``worker``, who may so far."""
    server = start_redis()
    client = redis.Redis.from_url(server.url)
    client.execute_command("ACL", "SETUSER", "worker", "on", ">pass", "~*", "&*", "+@all")
    store = make(server.url)
    filled(store)
    return client, store, make(f"redis://worker:pass@127.0.0.1:{server.port}/0")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("write", WRITES)
def test_who_may_not_run_a_command_is_refused_before_anything_is_written(
    restricted: tuple[Client, RedisStore, RedisStore], command: str, write: str
) -> None:
    client, store, worker = restricted
    with client:
        client.execute_command("ACL", "SETUSER", "worker", f"-{command}")
        before = dump(client, store)
        error = refusal(write, worker)
        if error is not None:
            assert not error.may_be_written
            assert dump(client, store) == before
        assert len(sizes(client, store)) == 1


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_is_refused_in_the_middle_says_so_and_nobody_reads_of_a_half(
    restricted: tuple[Client, RedisStore, RedisStore], command: str, write: str
) -> None:
    client, store, worker = restricted
    with client:
        WRITES[write](worker)
        filled(store)
        before, since = dump(client, store), store.revision("N")
        client.execute_command("ACL", "SETUSER", "worker", f"-{command}")
        error = refusal(write, worker)
        if error is not None and error.may_be_written:
            assert store.changes("N", since).reset
            assert store.revision("N").epoch != since.epoch
        elif error is not None:
            assert dump(client, store) == before
        found = store.fetch("N")
        assert len(real_sizes(client, store)) == 1
        client.execute_command("ACL", "SETUSER", "worker", f"+{command}")
        after = WRITES[write](worker)
        assert (after[0] if write == "increment" else after).number > found.revision.number
        assert len(sizes(client, store)) == 1
        assert (store.fetch("N"), store.keys("N")) == (worker.fetch("N"), worker.keys("N"))
