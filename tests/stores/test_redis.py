"""What is particular to a store on a server: addresses, passwords, lost answers, restarts, limits."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import select
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from flask_globalstate.errors import (
    ConfigurationError,
    ConflictError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.stores.base import ABSENT, DELETE, Write
from flask_globalstate.stores.redis import RedisStore, runner, scripts
from flask_globalstate.stores.redis import session as session_module
from flask_globalstate.stores.redis import store as module
from flask_globalstate.stores.redis.scripts import COMMIT, INCREMENT
from flask_globalstate.stores.redis.session import Sessions
from flask_globalstate.values.revision import Revision
from tests.support import PATIENCE

#: seconds after which an answer is late; a loaded machine gives one in time that is not held back
LATE = 1.0
PASSWORD = "hunter2/@:%é"


class Proxy:
    """Stands between a store and its server, and loses what it is told to lose.

    :param port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        #: what to do with the next requests for a script
        self.plan: Iterator[str] = iter(())
        self.script = b""
        self.requests = 0
        #: requests that were held back, each with the way to the server
        self.held: list[tuple[socket.socket, bytes]] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def lose(self, script: scripts.Script, *plan: str) -> None:
        """What to do with the next requests for a script.

        :param plan: ``pass``, ``lose request``, ``lose answer``, ``spoil answer``, or ``hold`` until
            `release`.
        """
        self.script, self.plan = hashlib.sha1(script.text).hexdigest().encode(), iter(plan)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            thread = threading.Thread(target=self._relay, args=(client, server))
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while self._pass_on(client, server):
                pass
        except (OSError, ValueError):
            pass  # One of them is closed.
        finally:
            client.close()
            if not any(server is held for held, _ in self.held):
                server.close()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        for source in select.select([client, server], [], [])[0]:
            data = source.recv(1_000_000)
            if not data:
                return False
            if source is server:
                client.sendall(data)
                continue
            self.requests += 1
            action = next(self.plan, "pass") if self.script in data else "pass"
            if action == "lose request":
                return False
            if action == "hold":
                self.held.append((server, data))
                client.recv(1)  # Until the client has given up.
                return False
            server.sendall(data)
            if action == "lose answer":
                assert server.recv(1_000_000)
                return False
            if action == "spoil answer":
                assert server.recv(1_000_000)
                client.sendall(b"\0 is not Redis\r\n")
        return True

    def release(self) -> bytes:
        """Send what was held back, and give the answer that nobody waits for."""
        server, data = self.held.pop()
        with server:
            server.sendall(data)
            return server.recv(1_000_000)

    def close(self) -> None:
        """End every connection and thread."""
        for end in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    proxy = Proxy(redis.connection.parse_url(redis_url)["port"])
    yield proxy
    proxy.close()


@pytest.fixture
def make(redis_url: str) -> Iterator[Callable[..., RedisStore]]:
    """A store on the shared server, or wherever it is told; all of one state."""
    state_id, stores = uuid.uuid4().hex, []

    def make(url: str | None = redis_url, **options: Any) -> RedisStore:
        stores.append(RedisStore(url, **{"state_id": state_id, **options}))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def far(make: Callable[..., RedisStore], proxy: Proxy) -> RedisStore:
    """A store behind the proxy, whose connection is open and whose scripts the server knows."""
    store = make(f"redis://127.0.0.1:{proxy.port}/0")
    store.commit([Write("W", "warm", b"")])
    store.increment("W", "up", 1)
    return store


def data_on(store: RedisStore) -> SharedDict[Any, Any]:
    return SharedDict("D", store, secret=b"secret", initial={"initial": True})


# --- addresses ----------------------------------------------------------------------------------


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


# --- passwords ----------------------------------------------------------------------------------


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


# --- lost answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["lose request", "lose answer", "hold"])
def test_an_increment_is_applied_exactly_once(make: Any, far: RedisStore, proxy: Proxy, what: str) -> None:
    if what == "hold":
        far = make(f"redis://127.0.0.1:{proxy.port}/0", socket_timeout=LATE)
        far.increment("W", "up", 0)
    before = far.increment("N", "a", 10)[0]
    proxy.lose(INCREMENT, what)
    revision, value = far.increment("N", "a", 1)
    assert next(proxy.plan, None) is None
    assert (revision.number, value) == (before.number + 1, 11)
    assert far.revision("N") == revision
    if what == "hold":
        assert b"SPENT" in proxy.release()
    assert make().increment("N", "a", 0)[1] == 11


@pytest.mark.parametrize("what", ["lose request", "lose answer", "hold"])
def test_a_commit_is_no_conflict_with_itself(make: Any, far: RedisStore, proxy: Proxy, what: str) -> None:
    if what == "hold":
        far = make(f"redis://127.0.0.1:{proxy.port}/0", socket_timeout=LATE)
    first = far.commit([Write("N", "a", b"1")], {"N": ABSENT})
    proxy.lose(COMMIT, what)
    second = far.commit([Write("N", "a", b"2", first), Write("N", "b", b"2", ABSENT)], {"N": first})
    assert next(proxy.plan, None) is None
    assert second.number == first.number + 1
    third = far.commit([Write("N", "a", b"3", second)])
    if what == "hold":
        assert b"SPENT" in proxy.release()
    assert make().fetch("N") == (third, {"a": (b"3", third.number), "b": (b"2", second.number)})


def test_a_conflict_whose_answer_was_lost_is_a_conflict(far: RedisStore, proxy: Proxy) -> None:
    first = far.commit([Write("N", "a", b"1")])
    second = far.commit([Write("N", "a", b"2")])
    proxy.lose(COMMIT, "lose answer")
    with pytest.raises(ConflictError):
        far.commit([Write("N", "a", b"3", first)])
    assert far.revision("N") == second


def test_a_drop_whose_answer_was_lost_is_one_commit(far: RedisStore, proxy: Proxy) -> None:
    first = far.commit([Write("N", "a", b"1")])
    proxy.lose(COMMIT, "lose answer")
    assert far.drop("N") == (first.epoch, first.number + 1)
    assert far.fetch("N") == ((first.epoch, first.number + 1), {})


def test_increments_over_a_line_that_loses_every_third_message_are_exact(
    make: Any, far: RedisStore, proxy: Proxy
) -> None:
    proxy.lose(INCREMENT, *["pass", "lose answer", "pass", "lose request", "pass"] * 20)
    for n in range(1, 51):
        assert far.increment("N", "a", 1)[1] == n
    assert make().increment("N", "a", 0)[1] == 50


def test_a_write_that_was_given_up_was_not_applied(make: Any, far: RedisStore, proxy: Proxy) -> None:
    far.increment("N", "a", 1)
    proxy.lose(INCREMENT, *["lose request"] * 2)
    with pytest.raises(StoreUnavailableError) as caught:
        far.increment("N", "a", 1)
    assert "not known" not in str(caught.value)
    assert make().increment("N", "a", 0)[1] == 1


GIVEN_UP: dict[str, tuple[scripts.Script, Callable[[RedisStore], Any]]] = {
    "put": (scripts.PUT, lambda store: store.commit([Write("N", "a", b"1")])),
    "several": (scripts.PUT, lambda store: store.commit([Write("N", "b", b"1"), Write("N", "a", b"1")])),
    "increment": (INCREMENT, lambda store: store.increment("N", "a", 1)),
    "commit": (COMMIT, lambda store: store.commit([Write("N", "a", b"1"), Write("M", "a", b"1")])),
    "delete": (COMMIT, lambda store: store.commit([Write("N", "a", DELETE)])),
    "drop": (COMMIT, lambda store: store.drop("N")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GIVEN_UP)
def test_a_write_that_was_given_up_and_arrives_late_overwrites_nothing(
    make: Any, proxy: Proxy, kind: str
) -> None:
    script, write = GIVEN_UP[kind]
    far, near = make(f"redis://127.0.0.1:{proxy.port}/0", socket_timeout=LATE), make()
    near.increment("N", "a", 1)
    write(far)
    proxy.lose(script, "hold", "hold")
    with pytest.raises(StoreUnavailableError) as caught:
        write(far)
    assert not caught.value.may_be_written
    newer = near.commit([Write("N", "a", b"newer")])
    for _ in range(2):
        assert b"SPENT" in proxy.release()
    assert near.fetch("N", ["a"]) == (newer, {"a": (b"newer", newer.number)})


@pytest.mark.parametrize("kind", ["put", "increment", "commit"])
def test_a_write_that_was_refused_in_the_middle_says_so_though_the_answer_was_lost(
    start_redis: Any, make: Any, kind: str
) -> None:
    script, write = GIVEN_UP[kind]
    server = start_redis()
    proxy = Proxy(server.port)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">pass", "~*", "+@all")
        far = make(f"redis://worker:pass@127.0.0.1:{proxy.port}/0")
        try:
            far.increment("N", "a", 1)
            write(far)
            client.execute_command("ACL", "SETUSER", "worker", "-zadd")
            proxy.lose(script, "lose answer")
            with pytest.raises(StoreUnavailableError) as caught:
                write(far)
            assert caught.value.may_be_written
        finally:
            proxy.close()


def test_a_write_that_cant_be_resolved_says_that_it_may_have_been_applied(
    start_redis: Any, make: Any
) -> None:
    server = start_redis()
    proxy = Proxy(server.port)
    try:
        far = make(f"redis://127.0.0.1:{proxy.port}/0")
        far.increment("N", "a", 1)
        proxy.lose(INCREMENT, "hold")
        failures: list[BaseException] = []

        def write() -> None:
            try:
                far.increment("N", "a", 1)
            except StoreUnavailableError as error:
                failures.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        until(lambda: proxy.held)
        server.stop()
        proxy.close()
        writer.join(PATIENCE)
        assert "not known" in str(failures[0])
    finally:
        proxy.close()


def test_a_connection_that_is_killed_while_idle_costs_nothing(make: Any, redis_url: str) -> None:
    store = make()
    for n in range(1, 6):
        assert store.increment("N", "a", 1)[1] == n
        with redis.Redis.from_url(redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
    assert store.fetch("N").entries["a"].data == b"5i"


def test_when_one_connection_is_lost_the_idle_ones_are_not_tried_one_by_one(
    make: Any, redis_url: str
) -> None:
    store = make()
    store.increment("N", "a", 1)
    for act in (lambda: store.fetch("N"), lambda: store.increment("N", "a", 1)):
        # They lead to the same server, which has gone or is another one.
        for session in [store._sessions.take() for _ in range(4)]:
            store._sessions.give_back(session)
        idle = list(store._sessions.idle)
        with redis.Redis.from_url(redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert act()
        assert all(session.is_closed for session in idle)
        assert len(store._sessions.idle) == 1


def test_of_the_connections_of_a_burst_few_stay_open(make: Any, redis_url: str) -> None:
    store, count = make(), 3 * Sessions.MOST_IDLE
    with redis.Redis.from_url(redis_url) as client:

        def connections() -> int:
            return len(client.client_list(_type="normal")) - 1

        threads = [threading.Thread(target=store.increment, args=("N", "a", 1)) for _ in range(count)]
        client.client_pause(10_000, all=False)
        for thread in threads:
            thread.start()
        until(lambda: connections() == count)
        client.client_unpause()
        for thread in threads:
            thread.join(PATIENCE)
        until(lambda: connections() <= Sessions.MOST_IDLE)
    assert store.increment("N", "a", 1)[1] == count + 1


def test_after_an_answer_that_cannot_be_read_it_is_asked_on_another_connection(
    far: RedisStore, proxy: Proxy
) -> None:
    proxy.lose(INCREMENT, "spoil answer")
    before = far._sessions.idle[-1]
    assert far.increment("N", "a", 1)[1] == 1
    proxy.lose(scripts.FETCH, "spoil answer")
    assert far.fetch("N").entries["a"].data == b"1i"
    assert before.is_closed
    assert before not in far._sessions.idle


@pytest.mark.slow
def test_an_answer_that_comes_late_is_not_taken_for_another(make: Any, redis_url: str) -> None:
    store = make(socket_timeout=LATE)
    store.commit([Write("N", key, key.encode()) for key in "ab"])
    with redis.Redis.from_url(redis_url) as client:
        client.client_pause(int(3000 * LATE))
        with pytest.raises(StoreUnavailableError):
            store.fetch("N", ["a"])
        until(lambda: client.ping())
    for key in "ba":
        assert store.fetch("N", [key]).entries[key].data == key.encode()


def test_threads_on_a_line_that_breaks_are_told_the_truth(make: Any, redis_url: str) -> None:
    store, tick = make(), threading.Event()
    applied: list[int] = []
    unknown: list[str] = []

    def work() -> None:
        for _ in range(100):
            try:
                applied.append(store.increment("N", "a", 1)[1])
            except StoreUnavailableError as error:
                if "not known" in str(error):
                    unknown.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with redis.Redis.from_url(redis_url) as client:
        while any(thread.is_alive() for thread in threads):
            client.client_kill_filter(_type="normal", skipme=True)
            tick.wait(0.003)
    assert len(applied) > 100
    assert len(set(applied)) == len(applied)
    assert len(applied) <= make().increment("N", "a", 0)[1] <= len(applied) + len(unknown)


# --- epochs -------------------------------------------------------------------------------------


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


# --- limits and refusals ------------------------------------------------------------------------


def test_a_value_that_is_too_large_is_refused_without_being_sent(make: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "LARGEST_VALUE", 10)
    store, nobody = make(), make("redis://127.0.0.1:1/0")
    for refusing in (store, nobody):
        with pytest.raises(UnsupportedOperationError, match=r"'big' of 'N' has 11 bytes"):
            refusing.commit([Write("N", "a", b""), Write("N", "big", b"x" * 11)])
    assert store.revision("N").number == 0
    store.commit([Write("N", "big", b"x" * 10)])


def test_a_commit_of_too_many_keys_is_refused_without_being_sent(make: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_ARGUMENTS", 100)
    for refusing in (make(), make("redis://127.0.0.1:1/0")):
        with pytest.raises(UnsupportedOperationError, match="50 keys"):
            refusing.commit([Write("N", str(n), b"") for n in range(50)])
    assert make().revision("N").number == 0


def test_a_server_out_of_memory_writes_nothing_and_is_still_read(start_redis: Any, make: Any) -> None:
    url = start_redis().url
    store = make(url)
    first = store.commit([Write("N", "a", b"1")])
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", 1)
        for write in (
            lambda: store.commit([Write("N", "a", b"2"), Write("N", "b", b"2")]),
            lambda: store.increment("N", "up", 1),
        ):
            with pytest.raises(StoreUnavailableError, match="OOM"):
                write()
        assert store.fetch("N") == (first, {"a": (b"1", first.number)})
        client.config_set("maxmemory", 0)
    assert store.increment("N", "up", 1)[0].number == first.number + 1


def test_what_another_program_put_in_the_place_of_a_name_is_our_error(make: Any, redis_url: str) -> None:
    store = make()
    store.commit([Write("N", "a", b"1")])
    place = store._scripts.name_keys("N")[0]
    with redis.Redis.from_url(redis_url) as client:
        client.delete(place)
        client.set(place, "a string")
    for use in (lambda: store.fetch("N"), lambda: store.commit([Write("N", "a", b"2")])):
        with pytest.raises(StoreUnavailableError, match="WRONGTYPE"):
            use()
    assert store.increment("M", "a", 1)[1] == 1


# --- a server that is down ----------------------------------------------------------------------


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


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, not for time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
