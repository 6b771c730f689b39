"""The answers of a name that was never written."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Entry
from .schema import Changed, Head

NEVER = Head(0, 0, 0, 0)


class NoFile:
    """A stand-in for the file of a name that was never written."""

    def head(self) -> Head:
        """As of an `OpenFile`."""
        return NEVER

    def fetch(self, keys: Sequence[bytes] | None) -> tuple[int, dict[bytes, Entry]]:
        """As of an `OpenFile`."""
        return 0, {}

    def number_of(self, key: bytes) -> int | None:
        """As of an `OpenFile`."""
        return None

    def all_keys(self) -> tuple[int, list[bytes]]:
        """As of an `OpenFile`."""
        return 0, []

    def changes(self, since: int) -> Changed:
        """As of an `OpenFile`."""
        return Changed(NEVER, {}, {})
