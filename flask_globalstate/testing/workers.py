"""Two workers on one name: what every test of the proxies begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..proxies.mapping import SharedDict
from ..replicas.modes import Mode
from ..stores.base import Store

NAME = "DATA"
SECRET = b"secret"


def shared_dict(store: Store, mode: Mode = "read") -> SharedDict[Any, Any]:
    """A `SharedDict` on a store."""
    return SharedDict(NAME, store, sync=mode, secret=SECRET)


def has_revisions(store: Store) -> bool:
    """Whether a store tells of revisions; one that is made from another contract has none."""
    return store.replica_kind == "revisions"


def contents(store: Store) -> Any:
    """Something that is equal to what it was only if nothing was written."""
    return store.revision(NAME) if has_revisions(store) else list(shared_dict(store).items())


class TwoWorkers:
    """The fixtures of the suite; ``open_store`` is what the author of a store gives."""

    @pytest.fixture
    def stores(self, open_store: Callable[[], Store]) -> Iterator[list[Store]]:
        """Two workers' stores."""
        stores = [open_store(), open_store()]
        yield stores
        for store in stores:
            store.close()

    @pytest.fixture
    def data(self, stores: list[Store]) -> SharedDict[Any, Any]:
        """A dict."""
        return shared_dict(stores[0])

    @pytest.fixture
    def theirs(self, stores: list[Store]) -> SharedDict[Any, Any]:
        """The same dict in another worker."""
        return shared_dict(stores[1])
