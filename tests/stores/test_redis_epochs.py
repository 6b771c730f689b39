"""A server that lost or changed its data begins a new epoch; one that is down is told of."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from flask_globalstate.errors import (
    ConflictError,
    StoreUnavailableError,
)
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redis import RedisStore, scripts
from flask_globalstate.stores.redis import session as session_module
from flask_globalstate.values.revision import Revision
from tests.support.redis_stores import until


def data_on(store: RedisStore) -> SharedDict[Any, Any]:
    return SharedDict("D", store, secret=b"secret", initial={"initial": True})


# --- epochs ---------------------------------------------------------------------------------------


def test_a_flush_begins_a_new_epoch(start_redis: Any, make: Any) -> None:
    url = start_redis().url
    store, other = make(url), make(url)
    data, theirs = data_on(store), data_on(other)
    data.update(a=1, b=2)
    assert dict(theirs) == {"initial": True, "a": 1, "b": 2}
    before = store.revision("D")
    with redis.Redis.from_url(url) as client:
        client.flushall()
    assert (data.get("a"), len(theirs), list(theirs)) == (None, 1, ["initial"])
    theirs["c"] = 3
    assert dict(data) == {"initial": True, "c": 3}
    assert store.revision("D").epoch != before.epoch
    assert store.changes("D", before).reset
    with pytest.raises(ConflictError):
        store.commit([Write("D", "c", b"", before)])


@pytest.mark.parametrize("kept", [True, False])
def test_a_restart_begins_a_new_epoch_and_no_answer_is_wrong(start_redis: Any, make: Any, kept: bool) -> None:
    server = start_redis("--appendonly", "yes" if kept else "no")
    store, other = make(server.url), make(server.url)
    data, theirs = data_on(store), data_on(other)
    data.update(a=1, b=2)
    assert dict(theirs) == {"initial": True, "a": 1, "b": 2}
    before = store.revision("D")
    server.stop()
    for mapping in (data, theirs):
        with pytest.raises(StoreUnavailableError):
            mapping["a"]
    server.start()
    assert theirs.get("a") == data.get("a") == (1 if kept else None)
    theirs["a"] = 5
    assert data["a"] == 5
    assert list(data) == list(theirs) == (["initial", "a", "b"] if kept else ["initial", "a"])
    after = store.revision("D")
    assert after.epoch != before.epoch
    assert store.changes("D", before).reset
    for stale in (before, Revision(before.epoch, after.number)):
        with pytest.raises(ConflictError):
            other.commit([Write("D", "a", b"", stale)])
        with pytest.raises(ConflictError):
            other.commit([Write("D", "x", b"")], {"D": stale})


def test_a_server_that_took_over_the_data_of_another_begins_a_new_epoch(start_redis: Any, make: Any) -> None:
    one, two = start_redis(), start_redis()
    store, standby = make(one.url), make(two.url)
    epochs = {store.increment("N", "a", 1)[0].epoch, standby.increment("N", "a", 5)[0].epoch}
    with redis.Redis.from_url(two.url) as client:
        # The connections of its own clients stay open.
        client.config_set("repl-diskless-load", "disabled")
        client.replicaof("127.0.0.1", one.port)
        until(lambda: client.info("replication")["master_link_status"] == "up")
        client.replicaof("NO", "ONE")
    revision, value = standby.increment("N", "a", 1)
    assert value == 2
    assert revision.epoch not in epochs


def test_revisions_of_two_epochs_never_fit_in_one_commit(make: Any) -> None:
    store = make()
    first = store.commit([Write("N", "a", b""), Write("N", "b", b"")])
    old = Revision("another epoch", first.number)
    with pytest.raises(ConflictError):
        store.commit([Write("N", "a", b"1", first), Write("N", "b", b"1", old)])
    assert store.revision("N") == first


def test_a_server_that_forgot_the_scripts_is_given_them_again(start_redis: Any, make: Any) -> None:
    url = start_redis().url
    store = make(url)
    first = store.commit([Write("N", "a", b"1")])
    with redis.Redis.from_url(url) as client:
        for use in (
            lambda: store.commit([Write("N", "a", b"2")]),
            lambda: store.fetch("N"),
            lambda: store.keys("N"),
            lambda: store.changes("N", first),
            lambda: store.revision("N"),
            lambda: store.increment("N", "up", 1),
            lambda: store.drop("N"),
        ):
            client.script_flush()
            use()
        assert store.revision("N").number == first.number + 3


def test_small_values_come_along_with_changes_if_they_are_few(make: Any) -> None:
    store = make()
    first = store.commit([Write("N", "before", b"1")])
    largest = 1024 - scripts.REVISION_SIZE
    store.commit(
        [Write("N", "a", b"2"), Write("N", "b", b"x" * largest), Write("N", "c", b"x" * (largest + 1))]
    )
    found = store.changes("N", first)
    assert {key: entry.data for key, entry in found.entries.items()} == {"a": b"2", "b": b"x" * largest}
    store.commit([Write("N", str(number), b"3") for number in range(13)])
    assert len(store.changes("N", first).entries) == 15
    store.commit([Write("N", "one more", b"3")])
    assert store.changes("N", first).entries == {}
    assert len(store.changes("N", first).changed) == 17


# --- a server that is down ------------------------------------------------------------------------


def test_a_server_that_is_down_says_where_since_when_and_what_to_do(
    start_redis: Any, make: Any, monkeypatch: Any
) -> None:
    server = start_redis()
    store = make(server.url)
    store.increment("N", "a", 1)
    server.stop()
    seconds = itertools.count(1_000_000, 100)
    clock = SimpleNamespace(
        time=lambda: next(seconds), strftime=time.strftime, localtime=time.gmtime, monotonic=time.monotonic
    )
    monkeypatch.setattr(session_module, "time", clock)

    def message() -> str:
        with pytest.raises(StoreUnavailableError) as caught:
            store.fetch("N")
        assert isinstance(caught.value, ConnectionError)
        assert isinstance(caught.value.__cause__, redis.ConnectionError)
        return str(caught.value)

    first = message()
    for part in (
        "RedisStore",
        f"127.0.0.1:{server.port}/0",
        "since 1970-01-12 13:46:40",
        "check that the server",
    ):
        assert part in first
    assert "since 1970-01-12 13:46:40" in message()
    server.start()
    assert store.increment("N", "a", 1)[1] == 1
    server.stop()
    assert "since 1970-01-12 13:46:40" not in message()
    server.start()


def test_a_name_that_nobody_knows_is_our_error(make: Any) -> None:
    store = make("redis://no-such-host.invalid:6379/0")
    for use in (store.ping, lambda: store.fetch("N")):
        with pytest.raises(StoreUnavailableError, match=r"no-such-host\.invalid"):
            use()


def test_ping_leaves_no_connection(start_redis: Any, make: Any) -> None:
    url = start_redis().url
    store = make(url)
    with redis.Redis.from_url(url) as client:
        store.ping()
        store.check()
        until(lambda: len(client.client_list()) == 1)
        store.fetch("N")
        assert len(client.client_list()) == 2
        store.close()
        until(lambda: len(client.client_list()) == 1)
