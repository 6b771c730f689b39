"""Fixtures that several folders have; a conftest imports what its folder has."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState
from tests.support.processes import processes_in, wait_for
from tests.support.workers import ObjectStore, WorkerStore, make_workers, store_of


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process in its directory, and end what it has left."""
    yield
    try:
        wait_for(lambda: not processes_in(tmp_path), f"the end of every process in {tmp_path}")
    finally:
        for pid in processes_in(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=[WorkerStore, ObjectStore], ids=["bytes", "objects"])
def states(request: Any) -> Iterator[list[GlobalState]]:
    """Two workers; a store of objects is shared by two states of one process."""
    states = make_workers(2, request.param)
    yield states
    for state in states:
        state.close()


@pytest.fixture
def data(states: list[GlobalState]) -> Any:
    """A dict."""
    return states[0].dict("DATA")


@pytest.fixture
def theirs(states: list[GlobalState]) -> Any:
    """The same dict in another worker."""
    return states[1].dict("DATA")


@pytest.fixture
def mine(states: list[GlobalState]) -> Any:
    """The store of this worker."""
    return store_of(states[0])
