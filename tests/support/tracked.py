"""Two workers of whom both hold a tracked value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Point:
    """A user's class."""

    x: int = 0
    tags: list[str] = field(default_factory=list)
