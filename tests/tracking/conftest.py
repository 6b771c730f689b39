"""What the tests here share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flask_globalstate import GlobalState
from tests.support.workers import make_workers, store_of


@pytest.fixture
def states() -> Iterator[list[GlobalState]]:
    states = make_workers()
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
