"""Two workers on one store: what every test of the store contract begins with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..stores.base import Store
from .excuses import Declared

OpenStore = Callable[[], Store]


def sample(store: Store, n: int) -> Any:
    """An opaque value: bytes, or an object where the store holds objects."""
    return ("object", n) if store.holds_objects else b"value %d" % n


class TwoStores(Declared):
    """The fixtures of the suite; ``open_store`` is what the author of a store gives."""

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[Store]:
        """A store object."""
        store = open_store()
        yield store
        store.close()

    @pytest.fixture
    def other(self, open_store: OpenStore) -> Iterator[Store]:
        """Another store object over the same data: another worker."""
        store = open_store()
        yield store
        store.close()


def in_threads(bodies: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
