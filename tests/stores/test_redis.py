"""What is RedisStore's own: connections, epochs, lost answers, errors."""

from __future__ import annotations

import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from flask_globalstate import ConfigurationError, StoreUnavailableError, UnsupportedOperationError
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.embedded import find_server
from flask_globalstate.stores.redis import RedisStore


@pytest.fixture
def state_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_a_url_keywords_and_a_client_lead_to_the_same_data(redis_url: str, state_id: str) -> None:
    port = urlsplit(redis_url).port
    with redis.Redis(port=port, decode_responses=True) as client:
        stores = [
            RedisStore(redis_url, state_id=state_id),
            RedisStore(state_id=state_id, host="127.0.0.1", port=port, db=0),
            RedisStore(state_id=state_id, client=client),
        ]
        for store in stores:
            store.increment("N", "a", 1)
        assert [store.increment("N", "a", 0)[1] for store in stores] == [3, 3, 3]
        for store in stores:
            store.close()


def test_a_constructor_opens_nothing() -> None:
    RedisStore("redis://127.0.0.1:1/0")


@pytest.mark.parametrize("use", [lambda s: s.ping(), lambda s: s.fetch("N"), lambda s: s.drop("N")])
def test_a_server_that_is_down_is_named_without_its_password(use: Any) -> None:
    store = RedisStore("redis://user:hunter2@127.0.0.1:1/3")
    with pytest.raises(StoreUnavailableError) as caught:
        use(store)
    text = str(caught.value)
    assert "RedisStore at 127.0.0.1:1/3" in text
    assert "since" in text
    assert "hunter2" not in text
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value.__cause__, redis.ConnectionError)


def test_a_wrong_password_is_one_of_our_errors(redis_url: str) -> None:
    store = RedisStore(redis_url.replace("127.0.0.1", ":hunter2@127.0.0.1"))
    with pytest.raises(StoreUnavailableError) as caught:
        store.fetch("N")
    assert "hunter2" not in str(caught.value)


def test_braces_in_a_state_id_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        RedisStore(state_id="a}b")


def test_scripts_that_the_server_has_forgotten_are_sent_again(
    redis_url: str, state_id: str, client: redis.Redis
) -> None:
    store = RedisStore(redis_url, state_id=state_id)
    store.increment("N", "a", 1)
    client.script_flush()
    assert store.increment("N", "a", 1)[1] == 2
    store.close()


def test_lost_data_begins_a_new_epoch(redis_url: str, state_id: str, client: redis.Redis) -> None:
    store = RedisStore(redis_url, state_id=state_id)
    before = store.commit([Write("N", "a", b"1i")])
    for key in client.scan_iter(f"flask_globalstate:{{{state_id}}}*"):
        client.delete(key)
    after = store.commit([Write("N", "b", b"2i")])
    assert after.epoch != before.epoch
    assert after.number == 1
    assert store.changes("N", before).reset
    store.close()


def test_a_value_that_is_too_large_is_refused_with_the_limit(
    redis_url: str, state_id: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("flask_globalstate.stores.redis.LARGEST_VALUE", 10)
    store = RedisStore(redis_url, state_id=state_id)
    with pytest.raises(UnsupportedOperationError, match=r"'k' of 'N' has 11 bytes.*10"):
        store.commit([Write("N", "a", b"1i"), Write("N", "k", b"x" * 11)])
    assert store.names() == []
    store.close()


def test_a_commit_of_too_many_keys_is_refused_with_the_limit(
    redis_url: str, state_id: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("flask_globalstate.stores.redis.MOST_ARGUMENTS", 100)
    store = RedisStore(redis_url, state_id=state_id)
    with pytest.raises(UnsupportedOperationError, match="50 keys"):
        store.commit([Write("N", str(n), b"1i") for n in range(50)])
    assert store.names() == []
    store.close()


def test_a_connection_that_the_server_has_closed_is_made_again(
    redis_url: str, state_id: str, client: redis.Redis
) -> None:
    store = RedisStore(redis_url, state_id=state_id)
    for n in range(10):
        assert store.increment("N", "a", 1)[1] == n + 1
        client.client_kill_filter(_type="normal", skipme=True)
        assert store.fetch("N", ["a"]).entries["a"].data == b"%di" % (n + 1)
        client.client_kill_filter(_type="normal", skipme=True)
    store.close()


def test_what_the_server_refuses_is_one_of_our_errors_and_the_store_goes_on(
    redis_url: str, state_id: str, client: redis.Redis
) -> None:
    store = RedisStore(redis_url, state_id=state_id)
    store.increment("N", "a", 1)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailableError, match=r"OOM|memory"):
            store.increment("N", "a", 1)
    finally:
        client.config_set("maxmemory", 0)
    assert store.increment("N", "a", 1)[1] == 2
    store.close()


class LosingProxy:
    """Stands between a store and its server, and loses an answer or a command in which a word is."""

    def __init__(self, port: int, word: bytes) -> None:
        self._server = "127.0.0.1", port
        self._word = word
        self.lose_answer = self.lose_command = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(ours,), daemon=True).start()

    def _serve(self, ours: socket.socket) -> None:
        with ours, socket.create_connection(self._server) as theirs:
            while command := ours.recv(1 << 20):
                matches = self._word in command
                if matches and self.lose_command:
                    self.lose_command = False
                    return
                theirs.sendall(command)
                answer = theirs.recv(1 << 20)
                if matches and self.lose_answer:
                    self.lose_answer = False
                    return
                ours.sendall(answer)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy(redis_url: str) -> Iterator[LosingProxy]:
    proxy = LosingProxy(urlsplit(redis_url).port or 0, b"the key")
    yield proxy
    proxy.close()


@pytest.mark.parametrize("lost", ["lose_answer", "lose_command"])
def test_a_write_whose_answer_or_command_was_lost_is_applied_exactly_once(
    proxy: LosingProxy, state_id: str, lost: str
) -> None:
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", state_id=state_id)
    store.increment("N", "the key", 1)
    revision = store.revision("N")
    for n in range(2, 12):
        setattr(proxy, lost, True)
        answered, value = store.increment("N", "the key", 1)
        assert value == n
        assert answered == store.revision("N")
        assert answered.number == revision.number + 1
        setattr(proxy, lost, True)
        revision = store.commit([Write("N", "the key", b"%di" % n)])
        assert revision == store.revision("N")
        assert revision.number == answered.number + 1
        assert not getattr(proxy, lost)
    store.close()


def test_an_attempt_that_was_settled_as_never_is_never_applied(redis_url: str, state_id: str) -> None:
    from flask_globalstate.stores.redis import INCREMENT

    store = RedisStore(redis_url, state_id=state_id)
    store.increment("N", "a", 1)
    late = store._take()
    late.sequence += 1
    assert store._settle(late, RuntimeError()) is None
    with pytest.raises(redis.ConnectionError):  # It arrives after all.
        store._converse(
            late,
            INCREMENT,
            [store._prefix, *store._name_keys("N")],
            [late.id, late.sequence, b"N", b"a", b"1"],
        )
    assert store.increment("N", "a", 0)[1] == 1
    late.connection.disconnect()
    store.close()


def test_a_restarted_server_begins_a_new_epoch_and_answers_are_right(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        command = [find_server(None), "--port", "0", "--unixsocket", path, "--dir", str(tmp_path)]
        server = subprocess.Popen([*command, "--appendonly", "yes"], stdout=subprocess.DEVNULL)
        with redis.Redis(unix_socket_path=path) as client:
            for _ in range(500):
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    threading.Event().wait(0.01)
        return server

    path = str(tmp_path / "s")
    server = start()
    store = RedisStore(f"unix://{path}")
    before = store.commit([Write("N", "a", b"1i")])
    server.kill()
    server.wait()
    with pytest.raises(StoreUnavailableError):
        store.fetch("N")
    server = start()
    assert store.fetch("N").entries["a"].data == b"1i"
    assert store.revision("N").epoch != before.epoch
    assert store.revision("N").number == before.number
    store.close()
    server.kill()
    server.wait()


def test_an_attempt_whose_answer_was_cleared_away_is_an_error_and_is_never_applied_later(
    redis_url: str, state_id: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("flask_globalstate.stores.redis.SESSIONS_KEPT", 1)
    store = RedisStore(redis_url, state_id=state_id)
    store.increment("N", "a", 1)
    late = store._take()
    for _ in range(2):  # The first one clears the answer of the late one away.
        other = RedisStore(redis_url, state_id=state_id)
        other.revision("N")
        other.close()
    with pytest.raises(StoreUnavailableError, match="not known"):
        store._settle(late, RuntimeError())
    assert store._settle(late, RuntimeError()) is None
    late.connection.disconnect()
    store.close()
