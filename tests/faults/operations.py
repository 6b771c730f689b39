"""Operations of which the tests of the checkers make histories."""

from __future__ import annotations

from typing import Any

from .checkers import (
    Operation,
)


def made(
    kind: str, start: float, end: float, argument: Any = None, answer: Any = None, **more: Any
) -> Operation:
    """An operation on one key."""
    return Operation(kind, more.pop("key", "k"), argument, answer, start, end, **more)


def add(start: float, end: float, answer: int | None, **more: Any) -> Operation:
    return made("add", start, end, 1, answer, **more)
