"""Two readers of one worker, and a lost update between them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

from tests.support.workers import make_workers


class Two:
    """Two requests of one worker, each in a context of its own, and another worker."""

    def __init__(self, **settings: Any) -> None:
        self.states = make_workers(2, on_conflict="raise", **settings)
        self.data, self.theirs = (state.dict("DATA") for state in self.states)
        self.data["s"] = {"hits": 0, "other": 0, "rows": [1, 2]}
        self.contexts = [contextvars.Context() for _ in range(2)]
        self.requests = [context.run(self.states[0].begin_request) for context in self.contexts]

    def run(self, number: int, function: Callable[[], Any]) -> Any:
        """What a function answers in one of the requests."""
        return self.contexts[number].run(function)

    def end(self) -> None:
        for context, request in zip(self.contexts, self.requests, strict=False):
            context.run(self.states[0].end_request, request)


def add(two: Two, item: str) -> Callable[[], None]:
    def add_one() -> None:
        two.data["s"][item] += 1

    return add_one
