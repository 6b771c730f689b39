"""What the tests of the stores of files share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate import (
    GlobalState,
    GlobalStateError,
)
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redis import RedisStore
from tests.support.durables import Shelf
from tests.support.redis_damage import Client
from tests.support.redis_stores import Proxy
from tests.support.standard import read_settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A STORE_PATH that is not made yet."""
    return tmp_path / "shelves"


@pytest.fixture
def open_state(path: Path) -> Iterator[Callable[..., GlobalState]]:
    """Opens states on the path, which are closed in the end."""
    states = []

    def open_one(**settings: Any) -> GlobalState:
        states.append(GlobalState.from_config(read_settings(path, **settings)))
        return states[-1]

    yield open_one
    for state in states:
        with suppress(GlobalStateError):
            state.close()


@pytest.fixture
def state(open_state: Callable[..., GlobalState]) -> GlobalState:
    return open_state()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


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


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
