"""A class of a user's inside tracked values, and whether a value is tracked at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask_globalstate.tracking.plain import TrackedContainer


@dataclass
class Point:
    """A user's class."""

    x: int = 0
    tags: list[str] = field(default_factory=list)


def holds_nothing_tracked(value: Any) -> bool:
    """Whether a value is plain at every depth."""
    if isinstance(value, TrackedContainer):
        return False
    items = value.values() if isinstance(value, dict) else value
    return not isinstance(value, (list, tuple, dict, set)) or all(map(holds_nothing_tracked, items))
