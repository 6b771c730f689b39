"""Two workers of whom one writes between what the other reads and writes."""

from __future__ import annotations

from typing import Any

from tests.support.workers import elsewhere, make_workers


class Pair:
    """Two workers of one setting, each with a global of each kind."""

    def __init__(self, on_conflict: str = "warn", **settings: Any) -> None:
        self.states = make_workers(2, on_conflict=on_conflict, **settings)
        self.state = self.states[0]
        self.data, self.theirs = (state.dict("DATA") for state in self.states)
        self.theme, self.their_theme = (state.value("THEME", initial="dark") for state in self.states)
        self.hits, self.their_hits = (state.counter("HITS") for state in self.states)
        self.data.update(n=1, m=1)

    def conflicts(self) -> Any:
        """How many this worker has met, by name."""
        return dict(self.state.stats()["conflicts"])

    def change(self, **items: Any) -> None:
        """Let the other worker write."""
        elsewhere(self.theirs.update, items)
