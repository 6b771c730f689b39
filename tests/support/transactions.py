"""Names of two workers on which transactions are tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask_globalstate import GlobalState


class Names:
    """One global of each kind."""

    def __init__(self, state: GlobalState) -> None:
        self.state = state
        self.data = state.dict("DATA", initial={"a": 1, "l": [1]})
        self.other = state.dict("OTHER")
        self.hits = state.counter("HITS")
        self.theme = state.value("THEME", initial="dark")

    def all(self) -> tuple[Any, ...]:
        """The content of all of them."""
        return dict(self.data), dict(self.other), self.hits.value, self.theme.value


class Stop(Exception):
    """Ends a transaction."""


def attempt(state: GlobalState, function: Callable[[], Any]) -> Any:
    """What a function answers in a transaction."""
    with state.transaction():
        return function()
