"""For pytest: a fixture for the tests of a user's own application, and the marks of the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .state.binding import Binding
from .state.config import Config, memory_instead
from .state.state import live_states


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marks of the conformance suite mean."""
    for mark, meaning in (
        ("globalstate_needs", "a law that is not asked of a store that lacks one of these"),
        ("globalstate_without", "a law that is asked only of a store that lacks all of these"),
    ):
        config.addinivalue_line("markers", f"{mark}(*features): {meaning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the laws of the conformance suite that a store is excused from."""
    excused = [item for item in items if _is_excused(item)]
    if excused:
        config.hook.pytest_deselected(items=excused)
        items[:] = [item for item in items if not _is_excused(item)]


def _is_excused(item: pytest.Item) -> bool:
    """Whether a law needs what the store of its class lacks, or is only for stores that lack something."""
    lacks = getattr(getattr(item, "cls", None), "lacks", ())
    needed = {feature for mark in item.iter_markers("globalstate_needs") for feature in mark.args}
    absent = {feature for mark in item.iter_markers("globalstate_without") for feature in mark.args}
    return not needed.isdisjoint(lacks) or not absent.issubset(lacks)


@pytest.fixture
def globalstate_memory() -> Iterator[None]:
    """Give every state a fresh store in memory for one test, whatever the applications' settings are.

    States that are configured get it at once, with their ``initial`` content; those that an
    application configures during the test get it then. Afterwards each has the store that it had.
    """
    before = {state: state._names.binding for state in list(live_states)}
    with memory_instead():
        for state, binding in before.items():
            if binding is not None:
                state._names.bind(Binding(Config.read({})))
        yield
    for state in list(live_states):
        state._names.bind(before.get(state))
