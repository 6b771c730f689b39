"""Addresses and passwords of a store on a server."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest
import redis

from flask_globalstate.errors import (
    ConfigurationError,
    StoreUnavailableError,
)
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.redis import RedisStore, runner
from flask_globalstate.values.revision import Revision
from tests.support.redis_stores import Proxy

PASSWORD = "hunter2/@:%é"


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"protocol": 3}, {"decode_responses": True, "protocol": 3}]
)
def test_the_settings_of_an_existing_client_are_taken_but_not_its_way_with_answers(
    make: Callable[..., RedisStore], redis_url: str, options: dict[str, Any]
) -> None:
    with redis.Redis.from_url(redis_url, **options) as client:
        store = make(None, client=client)
        revision = store.commit([Write("N", "ü", b"\xff\x00")])
        assert store.fetch("N").entries["ü"].data == b"\xff\x00"
        assert store.changes("N", Revision(revision.epoch, 0)).changed == {"ü": revision.number}
        assert store.names() == ["N"]
        assert make().fetch("N").revision == revision


def test_a_client_is_not_used_itself(make: Callable[..., RedisStore], redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    store = make(None, client=client)
    client.close()
    client.connection_pool.disconnect()
    store.commit([Write("N", "a", b"")])
    assert not client.connection_pool._available_connections


def test_url_keywords_and_client_lead_to_the_same_place(
    make: Callable[..., RedisStore], redis_url: str
) -> None:
    port = redis.connection.parse_url(redis_url)["port"]
    with redis.Redis(host="127.0.0.1", port=port, db=3) as client:
        stores = [
            make(f"redis://127.0.0.1:{port}/3"),
            make(f"redis://127.0.0.1:{port}", db=3),
            make(None, host="127.0.0.1", port=port, db=3),
            make(None, client=client),
        ]
    for n, store in enumerate(stores):
        assert store.increment("N", "a", 1)[1] == n + 1
        assert store.address() == f"redis://127.0.0.1:{port}/3"
    assert make().names() == []


def test_a_unix_socket_is_an_address(start_redis: Any, tmp_path: Any, make: Any) -> None:
    path = str(tmp_path / "socket")
    start_redis("--unixsocket", path)
    assert make(f"unix://{path}").increment("N", "a", 1)[1] == 1
    assert make(None, unix_socket_path=path).increment("N", "a", 1)[1] == 2
    assert make(f"unix://{path}").address() == f"unix://{path}"


@pytest.mark.parametrize("state_id", ["", "{", "a}b"])
def test_a_state_id_that_would_move_keys_to_another_slot_is_refused(state_id: str) -> None:
    with pytest.raises(ConfigurationError, match="STORE_ID"):
        RedisStore(state_id=state_id)


def test_every_key_of_a_state_is_in_its_hash_tag_and_states_do_not_meet(start_redis: Any, make: Any) -> None:
    url = start_redis().url
    stores = {state_id: make(url, state_id=state_id) for state_id in ("one", "two:data:N")}
    for store in stores.values():
        store.commit([Write("N", "a", b""), Write("{x}", "a", b"")])
        store.commit([Write("N", "a", DELETE)])
        store.increment("N", "b", 1)
    stores["one"].drop("N")
    assert stores["two:data:N"].keys("N")[1] == ["b"]
    with redis.Redis.from_url(url) as client:
        tags = {key.partition(b"{")[2].partition(b"}")[0] for key in client.scan_iter()}
    assert tags == {b"one", b"two:data:N"}


@pytest.mark.parametrize("at_once", [1, 10])
def test_what_is_kept_of_sessions_that_are_gone_is_bounded(
    start_redis: Any, make: Any, monkeypatch: Any, at_once: int
) -> None:
    monkeypatch.setattr(runner, "SESSIONS_KEPT", 5)
    url = start_redis().url
    sizes = []
    for _ in range(20):
        stores = [make(url) for _ in range(at_once)]
        for store in stores * 2:
            store.increment("N", "a", 1)
        for store in stores:
            store.close()
        with redis.Redis.from_url(url) as client:
            sizes.append(sum(client.memory_usage(key, samples=0) for key in client.scan_iter()))
    assert max(sizes[10:]) <= sizes[9] + 200
    assert make(url).increment("N", "a", 0)[1] == 40 * at_once


def test_every_operation_is_one_round_trip(far: RedisStore, proxy: Proxy) -> None:
    revision = far.revision("W")
    for operation in (
        lambda: far.fetch("W"),
        lambda: far.fetch("W", ["warm", "absent"]),
        lambda: far.keys("W"),
        far.names,
        lambda: far.changes("W", revision),
        lambda: far.revision("W"),
        lambda: far.revisions(["W", "V", "U"]),
        lambda: far.commit([Write("W", "a", b""), Write("V", "b", b"")]),
        lambda: far.increment("W", "up", 1),
        lambda: far.drop("W"),
    ):
        operation()  # A script that the server doesn't know yet is sent a second time.
        before = proxy.requests
        operation()
        assert proxy.requests - before == 1


# --- passwords ------------------------------------------------------------------------------------


def test_a_password_is_used_and_never_shown(start_redis: Any, make: Any) -> None:
    server = start_redis("--requirepass", PASSWORD)
    right = make(None, host="127.0.0.1", port=server.port, password=PASSWORD)
    assert right.increment("N", "a", 1)[1] == 1
    url = f"redis://:hunter2%2F%40%3A%25%C3%A9@127.0.0.1:{server.port}/0"
    assert make(url).increment("N", "a", 1)[1] == 2
    server.stop()
    for store in (right, make(url)):
        for use in (
            store.ping,
            store.check,
            lambda store=store: store.fetch("N"),
            lambda store=store: store.drop("N"),
        ):
            with pytest.raises(StoreUnavailableError) as caught:
                use()
            shown = "".join(traceback.format_exception(caught.value))
            assert "hunter2" not in shown
            assert f"127.0.0.1:{server.port}" in str(caught.value)
    server.start()


def test_a_wrong_password_is_our_error_and_not_shown(start_redis: Any, make: Any) -> None:
    server = start_redis("--requirepass", "right")
    for url in (f"redis://:hunter2@127.0.0.1:{server.port}/0", server.url):
        store = make(url)
        for use in (
            store.ping,
            lambda store=store: store.fetch("N"),
            lambda store=store: store.increment("N", "a", 1),
        ):
            with pytest.raises(StoreUnavailableError) as caught:
                use()
            assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    ["redis://:hunter2@host:port/0", "redis://me:hunter2@[::1/0", "http://:hunter2@h", "me:hunter2@host"],
)
def test_a_url_that_cant_be_read_does_not_show_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="STORE_URL") as caught:
        RedisStore(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
