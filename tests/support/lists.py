"""Shared lists and sets on every kind of store."""

from __future__ import annotations

from typing import Any

from flask_globalstate import GlobalState, SharedList, SharedSet

PLAIN_KINDS = {SharedList: list, SharedSet: set}


STORES = ["memory", "shelve", "custom"]


def make(state: GlobalState, kind: type[Any], name: str = "X", **options: Any) -> Any:
    return (state.list if kind is SharedList else state.set)(name, **options)
