"""Classes of stores as authors write them at first, and what a setting may name beside them."""

from __future__ import annotations

from typing import Any

from flask_globalstate import (
    DurableStore,
)

CONTRACT = ["get", "clear", "__setitem__", "__delitem__", "__len__", "__contains__"]


class Half:
    """As an author's first attempt."""

    def get(self, key: Any) -> Any: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __delitem__(self, key: Any) -> None: ...


class HalfDurable(DurableStore):
    def persist(self, key: str, value: Any) -> None: ...


class WholeDurable(HalfDurable):
    def depersist(self, key: str) -> None: ...

    def durables(self) -> dict[str, Any]:
        return {}

    def last_updated(self) -> int:
        return 0


class Picky(dict[Any, Any]):
    def __init__(self, name: str, size: int = 0) -> None:
        super().__init__()


class Bound:
    def __init__(self, password: str) -> None:
        self.password = password

    def __repr__(self) -> str:
        return self.password

    def make(self) -> dict[Any, Any]:
        return {}


def fail(name: str) -> dict[Any, Any]:
    raise OSError("redis://:hunter2@host")
