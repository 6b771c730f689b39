"""What the tests here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_globalstate import GlobalState
from tests.support.fixtures import data, mine, theirs
from tests.support.workers import make_workers

__all__ = ["data", "mine", "theirs"]


@pytest.fixture
def states() -> Iterator[list[GlobalState]]:
    states = make_workers()
    yield states
    for state in states:
        state.close()
