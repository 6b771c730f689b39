"""What the tests here share."""

from __future__ import annotations

import pytest

from flask_globalstate.replicas.replica import Replica
from flask_globalstate.values.envelope import PlainCodec
from tests.support.slow_store import NAME, SlowStore


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def replica(store: SlowStore) -> Replica:
    return Replica(NAME, store, PlainCodec())
