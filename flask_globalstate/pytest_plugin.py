"""The pytest fixture for the tests of a user's own application."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .state.binding import Binding
from .state.config import Config, memory_instead
from .state.state import live_states


@pytest.fixture
def globalstate_memory() -> Iterator[None]:
    """Give every state a fresh store in memory for one test, whatever the applications' settings say.

    States that are configured get it at once, with their ``initial`` content; those that an
    application configures during the test get it then. Afterwards each has the store that it had.
    """
    before = {state: state._binding for state in list(live_states)}
    with memory_instead():
        for state, binding in before.items():
            if binding is not None:
                state._bind(Binding(Config.read({})))
        yield
    for state in list(live_states):
        state._bind(before.get(state))
