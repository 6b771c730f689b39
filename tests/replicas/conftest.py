"""What the tests here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.replicas.replica import Replica
from flask_globalstate.replicas.requests import running_requests
from flask_globalstate.values.envelope import PlainCodec
from tests.support.conflicts import Pair
from tests.support.fixtures import states
from tests.support.readers import Two
from tests.support.slow_store import NAME, SlowStore
from tests.support.transactions import Names
from tests.support.workers import make_workers

__all__ = ["states"]


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def replica(store: SlowStore) -> Replica:
    return Replica(NAME, store, PlainCodec())


@pytest.fixture
def byte_states() -> Iterator[list[GlobalState]]:
    """Two workers on a store of bytes."""
    states = make_workers()
    yield states
    for state in states:
        state.close()


@pytest.fixture
def mine(states: list[GlobalState]) -> Names:
    return Names(states[0])


@pytest.fixture
def theirs(states: list[GlobalState]) -> Names:
    return Names(states[1])


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture(autouse=True)
def no_request_is_left() -> Iterator[None]:
    """Each test ends the requests that it begins."""
    yield
    assert not running_requests()


@pytest.fixture
def two() -> Iterator[Two]:
    two = Two()
    yield two
    two.end()
