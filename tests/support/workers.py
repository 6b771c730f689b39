"""Several workers in one process: states, each with a store object of its own over the same data."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from flask_globalstate import GlobalState
from flask_globalstate.stores.base import CHECK, Expected, Fetched, Write
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.values.revision import Revision

T = TypeVar("T")
Hook = Callable[[], Any]


class WorkerStore(MemoryStore):
    """What one worker has of a store of bytes that several share; something can happen between its steps.

    :ivar before: what happens, once, before a method does its work.
    :ivar after: the same, after it has done it and before the answer is heard.
    :ivar commits: how many commits of this worker have written something.
    :ivar asked: the methods that were called.
    """

    __slots__ = ("after", "asked", "before", "commits")

    holds_objects = False
    shared = True
    data: MemoryStore

    def __init__(self) -> None:
        self.__dict__ = self.data.__dict__
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.asked: list[str] = []
        self.commits = 0

    def _stepwise(self, method: str, do: Callable[[], T]) -> T:
        self.asked.append(method)
        self.before.pop(method, lambda: None)()
        answer = do()
        self.after.pop(method, lambda: None)()
        return answer

    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        def do() -> Revision:
            revision = super(WorkerStore, self).commit(writes, names)
            self.commits += any(write.data is not CHECK for write in writes)
            return revision

        return self._stepwise("commit", do)

    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        return self._stepwise("fetch", lambda: super(WorkerStore, self).fetch(name, keys))

    def keys(self, name: str) -> Any:
        return self._stepwise("keys", lambda: super(WorkerStore, self).keys(name))

    def drop(self, name: str) -> Revision:
        self.commits += 1
        return super().drop(name)


class ObjectStore(WorkerStore):
    """The same with the objects themselves."""

    holds_objects = True


def make_workers(count: int = 2, kind: type[WorkerStore] = WorkerStore, **settings: Any) -> list[GlobalState]:
    """States on the same data, one for each worker."""
    data = MemoryStore()
    backend = type("Worker", (kind,), {"data": data, "__slots__": ()})
    given = {f"STORE_{key.upper()}": value for key, value in settings.items()}
    return [
        GlobalState.from_config({"STORE_BACKEND": backend, "STORE_SECRET_KEY": "secret", **given})
        for _ in range(count)
    ]


def store_of(state: GlobalState) -> WorkerStore:
    """Its store, with what happens between its steps."""
    store = state.store
    assert isinstance(store, WorkerStore)
    return store


def elsewhere(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """What a function answers outside of the request and of the transactions of this context."""
    return contextvars.Context().run(function, *arguments, **named)
