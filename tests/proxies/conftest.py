"""What the tests here share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState
from tests.support.authors import CustomStore, create_custom_store
from tests.support.fixtures import data, mine, states, theirs
from tests.support.lists import STORES

__all__ = ["data", "mine", "states", "theirs"]


@pytest.fixture(params=STORES)
def settings(request: Any, tmp_path: Path) -> dict[str, Any]:
    return {
        "memory": {"STORE_BACKEND": "memory"},
        "shelve": {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")},
        "custom": {"STORE_BACKEND": CustomStore, "STORE_FACTORY": create_custom_store},
    }[request.param]


@pytest.fixture
def state(settings: dict[str, Any]) -> Iterator[GlobalState]:
    made = GlobalState.from_config(settings)
    yield made
    made.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[GlobalState]]:
    """Two states on one store, as two workers have them."""
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    made = [GlobalState.from_config(settings) for _ in range(2)]
    yield made
    for one in made:
        one.close()
