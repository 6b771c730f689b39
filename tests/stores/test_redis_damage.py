"""What happens to the keys of a store behind its back: eviction, removal by hand, refusals, garbage."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_globalstate import GlobalState
from flask_globalstate.errors import ConflictError, DecodingError, GlobalStateError, StoreUnavailableError
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.stores.base import ABSENT, CHECK, DELETE, Write
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.stores.redis import store as module
from flask_globalstate.values.revision import Revision
from tests.support import PATIENCE

KINDS = ("data", "log", "order", "gone")
Client = Any


@pytest.fixture
def make(redis_url: str) -> Iterator[Callable[..., RedisStore]]:
    """A store on the shared server, or wherever it is told; all of one state."""
    state_id, stores = uuid.uuid4().hex, []

    def make(url: str = redis_url, **options: Any) -> RedisStore:
        stores.append(RedisStore(url, **{"state_id": state_id, **options}))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def state_key(store: RedisStore) -> str:
    return f"flask_globalstate:{{{store.state_id}}}"


def key(store: RedisStore, kind: str, name: str = "N") -> str:
    return f"{state_key(store)}:{kind}:{name}"


def filled(store: RedisStore) -> Revision:
    """A store that holds a, b and c, and has held d."""
    store.commit([Write("N", letter, letter.encode()) for letter in "abcd"])
    return store.commit([Write("N", "d", DELETE)])


def sizes(client: Client, store: RedisStore, name: str = "N") -> set[int]:
    """How many keys data, log and order hold; what the state says of that and of gone must be right."""
    counts = client.hget(state_key(store), f"c:{name}")
    number, size, gone = (int.from_bytes(counts[n : n + 8], "big") for n in (0, 8, 16))
    assert number == int.from_bytes(client.hget(state_key(store), f"n:{name}")[:8], "big")
    assert gone == client.zcard(key(store, "gone", name))
    return {size} | real_sizes(client, store, name)


def real_sizes(client: Client, store: RedisStore, name: str = "N") -> set[int]:
    """How many keys data, log and order hold."""
    sorted_sets = {client.zcard(key(store, kind, name)) for kind in ("log", "order")}
    return {client.hlen(key(store, "data", name))} | sorted_sets


# --- what is lost of a name ---------------------------------------------------------------------


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


# --- numbers ------------------------------------------------------------------------------------


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


def _milliseconds(client: Client) -> int:
    seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


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


# --- refusals -----------------------------------------------------------------------------------

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


# --- what another program has written -----------------------------------------------------------


def write_by_hand(client: Client, store: RedisStore, field: bytes) -> int:
    """A commit of a key as only another program makes it."""
    number = int(client.hincrby(state_key(store), "number", 1))
    packed = number.to_bytes(8, "big")
    client.hset(key(store, "data"), field, packed + b"foreign")  # type: ignore[call-overload]
    client.zadd(key(store, "log"), {field: number})
    client.zadd(key(store, "order"), {field: number})
    client.hset(state_key(store), "n:N", packed + bytes(8) + b"\1")
    return number


def test_a_key_that_is_no_text_breaks_no_other(make: Any, client: Client) -> None:
    store = make()
    data = SharedDict("N", store, secret=b"x")
    data.update(a=1, b=2)
    assert dict(data) == {"a": 1, "b": 2}
    before = store.revision("N")
    number = write_by_hand(client, store, b"\xff\xfe")
    text = store.keys("N")[1][-1]
    assert store.fetch("N", [text]).entries == {text: (b"foreign", number)}
    assert list(store.fetch("N").entries) == ["a", "b", text]
    changes = store.changes("N", before)
    assert changes.changed == {text: number}
    assert changes.entries == {text: (b"foreign", number)}
    assert (data["a"], data.get("c"), "b" in data) == (1, None, True)
    for use in (lambda: list(data), lambda: dict(data), data.popitem):
        with pytest.raises(DecodingError):
            use()
    data["a"] = 3
    assert data["a"] == 3
    store.commit([Write("N", text, DELETE)])
    assert store.changes("N", before).removed == {text: number + 2}
    assert dict(data) == {"a": 3, "b": 2}


def test_a_name_that_is_no_text_breaks_no_other(make: Any, client: Client) -> None:
    store = make()
    first = filled(store)
    client.hset(state_key(store), b"n:\xff", first.number.to_bytes(8, "big") + bytes(8) + b"\1")  # type: ignore[call-overload]
    mine, foreign = store.names()
    assert mine == "N"
    assert store.fetch(foreign).entries == {}
    store.drop(foreign)
    assert store.names() == ["N"]


def test_what_another_program_has_put_there_is_older_than_any_commit(make: Any, client: Client) -> None:
    store = make()
    filled(store)
    for data in (b"12345678 and more", b"short", b""):
        client.hset(key(store, "data"), "foreign", data)
        assert store.fetch("N").entries["foreign"] == (data, 0)
    at = Revision(store.revision("N").epoch, 0)
    with pytest.raises(ConflictError):
        store.commit([Write("N", "foreign", b"", ABSENT)])
    assert store.commit([Write("N", "foreign", b"2", at)]) == store.revision("N")


@pytest.mark.parametrize("field", ["epoch", "run_id", "number", "created", "n:N", "c:N"])
@pytest.mark.parametrize(
    "garbage",
    [
        None,
        b"",
        b"x",
        b"inf",
        b"nan",
        b"-1",
        b"1e5",
        b"0x10",
        b"5.5",
        b"9" * 15,
        bytes(16),
        bytes(17),
        b"\xff" * 17,
    ],
)
def test_a_field_of_the_state_that_is_garbage_costs_an_epoch_and_no_call(
    make: Any, client: Client, field: str, garbage: bytes | None
) -> None:
    store = make()
    before = filled(store)
    if garbage is None:
        client.hdel(state_key(store), field)
    else:
        client.hset(state_key(store), field, garbage)
    for _ in range(2):
        for use in (
            lambda: store.fetch("N"),
            lambda: store.revision("N"),
            lambda: store.changes("N", before),
            lambda: store.commit([Write("N", "a", b"2")]),
            lambda: store.commit([Write("N", "absent", DELETE)]),
            lambda: store.increment("N", "up", 1),
        ):
            use()  # type: ignore[no-untyped-call]
    assert list(store.fetch("N").entries) == ["a", "b", "c", "up"]
    assert store.names() == ["N"]
    assert len(sizes(client, store)) == 1


#: what a value of the state, an entry, or anything else is made of here
GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"inf", b"nan", b"-1", b"1e5", b"0x10", b"5.5", b"9" * 14, b"9" * 15, b"9" * 400]),
    st.sampled_from(
        [b"1 half", b"1 never", b"9999 never", b"1 a 2 3", b"- - - -", b"\xff" * 17, b"\xff" * 24]
    ),
)
FIELDS = st.sampled_from(["epoch", "run_id", "number", "created", "n:N", "c:N", "a:"])
SCORES = st.sampled_from([float("inf"), float("-inf"), 1.5, -3, 0, 1e13, 1e300, 2**60])


@st.composite
def damages(draw: st.DrawFn) -> Callable[[Client, RedisStore], None]:
    """Something that another program does to the keys of a state."""
    kind = draw(st.sampled_from([*KINDS, "state", "sessions"]))

    def place(store: RedisStore) -> str:
        if kind in KINDS:
            return key(store, kind)
        return state_key(store) + ("" if kind == "state" else ":sessions")

    what = draw(st.sampled_from(["type", "remove", "field", "field", "field", "cut"]))
    if what == "type":
        make = draw(st.sampled_from(["set", "rpush", "sadd", "hset", "zadd"]))
        arguments = {"set": ["x"], "hset": ["x", "y"], "zadd": ["1", "x"]}.get(make, ["x"])

        def damage(client: Client, store: RedisStore) -> None:
            client.delete(place(store))
            client.execute_command(make, place(store), *arguments)

    elif what == "remove" or kind == "sessions":

        def damage(client: Client, store: RedisStore) -> None:
            client.delete(place(store))

    elif kind in ("log", "gone", "order"):
        member, score = draw(st.sampled_from([b"a", b"d", b"new", b"\xff", b"\0q"])), draw(SCORES)

        def damage(client: Client, store: RedisStore) -> None:
            client.zrem(place(store), member) if what == "cut" else client.zadd(place(store), {member: score})

    else:
        fields = FIELDS if kind == "state" else st.sampled_from([b"a", b"up", b"new", b"\xff", b"\0q"])
        field, garbage, cut = draw(fields), draw(GARBAGE), draw(st.integers(0, 20))

        def damage(client: Client, store: RedisStore) -> None:
            name = field
            if name == "a:":
                # Of the session whose turn it is.
                name = b"a:" + store._sessions.idle[-1].id
            held = client.hget(place(store), name)
            if what == "cut" and held:
                client.hset(place(store), name, held[:cut])
            elif garbage:
                client.hset(place(store), name, garbage)
            else:
                client.hdel(place(store), name)

    return damage


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(damage=st.lists(damages(), min_size=1, max_size=3), order=st.permutations(range(10)))
def test_whatever_another_program_writes_it_is_an_answer_or_our_error(
    redis_url: str, client: Client, damage: list[Callable[[Client, RedisStore], None]], order: list[int]
) -> None:
    store = RedisStore(redis_url, state_id=uuid.uuid4().hex)
    data = SharedDict("N", store, secret=b"x")
    try:
        data.update(a=1, d=2)
        del data["d"]
        store.increment("N", "up", 1)
        assert data["a"] == 1
        since = store.revision("N")
        for do in damage:
            with suppress(redis.ResponseError):  # It has done that to a key before.
                do(client, store)
        acts: list[Callable[[], Any]] = [
            lambda: store.fetch("N"),
            lambda: store.fetch("N", ["a", "up"]),
            lambda: store.keys("N"),
            store.names,
            lambda: store.changes("N", since),
            lambda: store.commit([Write("N", "a", b"2")]),
            lambda: store.commit([Write("N", "a", DELETE), Write("M", "a", b"")], {"N": since}),
            lambda: store.increment("N", "up", 1),
            lambda: store.commit([Write("N", f"{n}", b"2", ABSENT) for n in range(3)]),
            lambda: (data.get("a"), "up" in data),
        ]
        began = time.monotonic()
        for number in order:
            # An entry that holds no integer is a TypeError, as ever.
            with suppress(GlobalStateError, TypeError) if number == 7 else suppress(GlobalStateError):
                acts[number]()
        assert time.monotonic() - began < PATIENCE
        # What can't be repaired can be removed, and all is well.
        client.delete(*client.scan_iter(f"*{store.state_id}*"), "none")
        assert dict(data) == {}
        data["a"] = 5
        assert dict(data) == {"a": 5}
    finally:
        store.close()


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, not for time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
