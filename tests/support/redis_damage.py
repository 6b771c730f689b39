"""Stores whose keys are damaged behind their back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.values.revision import Revision
from tests.support import PATIENCE

KINDS = ("data", "log", "order", "gone")


Client = Any


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


def _milliseconds(client: Client) -> int:
    seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, not for time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
