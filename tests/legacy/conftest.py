"""What the tests here share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    GlobalState,
)
from flask_globalstate.replicas.requests import request_here
from tests.support.legacy_modules import Worker


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the request that a test has begun, and forget the modules that it has made.

    What a thread publishes beside a test comes at any moment.
    """
    monkeypatch.setenv("FLASK_STORE_BACKGROUND_INTERVAL", "0")
    before = set(sys.modules)
    yield
    if (request := request_here()) is not None:
        request.end()
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers on one store."""
    workers: list[Worker] = []

    def start_one(**settings: Any) -> Worker:
        workers.append(Worker(tmp_path / "store", **settings))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.state.close()


@pytest.fixture(params=["memory", "shelve"])
def state(request: Any, tmp_path: Path) -> Iterator[GlobalState]:
    settings = {"STORE_BACKEND": request.param, "STORE_PATH": str(tmp_path / "store")}
    made = GlobalState.from_config(settings)
    yield made
    made.close()


@pytest.fixture
def threads_are_switched_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
