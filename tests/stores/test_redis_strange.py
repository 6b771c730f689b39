"""What another program has written into the keys of a state in Redis."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_globalstate import ConflictError, DecodingError, GlobalStateError
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.stores.base import ABSENT, DELETE, Write
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.values.revision import Revision
from tests.support import PATIENCE
from tests.support.redis_damage import KINDS, Client, filled, key, sizes, state_key


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


@pytest.mark.slow
@settings(
    max_examples=250,
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
