"""A state of which every read asks for the newest, and what it is sure of."""

from __future__ import annotations

from pathlib import Path

from flask_globalstate import GlobalState, SharedCounter
from tests.support.actors import open_state

WAIT = 60


def reading_state(tmp_path: Path) -> GlobalState:
    """Another client of the same store, with replicas and a seqcount of its own."""
    state = open_state(str(tmp_path / "store"), timeout=WAIT)
    state.counter("HITS", sync="read")
    return state


def number_in_store(state: GlobalState) -> int:
    """What the server has, whatever any replica says."""
    (entry,) = state.store.fetch("HITS").entries.values()
    return int(entry.data[:-1])


def is_remembered(counter: SharedCounter) -> bool:
    """Whether two reads leave a reader sure that nothing was written since and nothing is under way."""
    counter.value  # noqa: B018
    counter.value  # noqa: B018
    return counter._replica.freshness.is_unchanged(counter._replica)
