"""Durable stores of several workers in one process, which tell what they were asked."""

from __future__ import annotations

from typing import Any

from flask_globalstate import (
    DurableStore,
    SharedDict,
)
from flask_globalstate.stores.durable import ReloadedStore


class Shelf:
    """What the objects of several workers share, and what they were asked."""

    def __init__(self) -> None:
        self.items: dict[str, Any] = {}
        self.number = 0
        self.asked: list[str] = []


class MemoryDict(DurableStore):
    """As durabledict's own; ``last_updated`` is a count of the writes."""

    def __init__(self, name: str, shelf: Shelf) -> None:
        super().__init__(name)
        self.shelf = shelf

    def persist(self, key: str, value: Any) -> None:
        self.shelf.asked.append("persist")
        self.shelf.items[key] = value
        self.shelf.number += 1

    def depersist(self, key: str) -> None:
        self.shelf.asked.append("depersist")
        del self.shelf.items[key]
        self.shelf.number += 1

    def durables(self) -> dict[str, Any]:
        self.shelf.asked.append("durables")
        return dict(self.shelf.items)

    def last_updated(self) -> Any:
        self.shelf.asked.append("last_updated")
        return self.shelf.number


def worker(shelf: Shelf, kind: type[Any] = MemoryDict, **options: Any) -> Any:
    """The dict of another worker."""
    named = {
        key: options.pop(key) for key in ("sync", "initial", "encoding", "old_encoding") if key in options
    }
    return SharedDict("DATA", ReloadedStore(kind, shelf=shelf, **options), secret=b"secret", **named)


def asked(shelf: Shelf) -> list[str]:
    """What was asked since the last time."""
    found, shelf.asked = shelf.asked, []
    return found
