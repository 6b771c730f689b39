"""Two workers on one name: what every test of the proxies begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..proxies.mapping import SharedDict
from ..replicas.modes import Mode
from ..stores.base import Backend
from .excuses import Declared, has_revisions

NAME = "DATA"
SECRET = b"secret"


def shared_dict(store: Backend, mode: Mode = "read") -> SharedDict[Any, Any]:
    """A `SharedDict` on a store."""
    return SharedDict(NAME, store, sync=mode, secret=SECRET)


def contents(store: Backend) -> Any:
    """Something that is equal to what it was only if nothing was written."""
    return store.revision(NAME) if has_revisions(store) else list(shared_dict(store).items())


class TwoWorkers(Declared):
    """The fixtures of the suite; ``open_store`` is what the author of a store gives."""

    @pytest.fixture
    def stores(self, open_store: Callable[[], Backend]) -> Iterator[list[Backend]]:
        """Two workers' stores."""
        stores = [open_store(), open_store()]
        yield stores
        for store in stores:
            store.close()

    @pytest.fixture
    def data(self, stores: list[Backend]) -> SharedDict[Any, Any]:
        """A dict."""
        return shared_dict(stores[0])

    @pytest.fixture
    def theirs(self, stores: list[Backend]) -> SharedDict[Any, Any]:
        """The same dict in another worker."""
        return shared_dict(stores[1])
