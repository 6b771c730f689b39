"""States on stores of dict-like classes."""

from __future__ import annotations

from typing import Any

from flask_globalstate import (
    GlobalState,
)
from tests.support.authors import CustomStore, create_custom_store


def custom(factory: Any = create_custom_store, backend: Any = CustomStore, **settings: Any) -> GlobalState:
    return GlobalState.from_config({"STORE_BACKEND": backend, "STORE_FACTORY": factory, **settings})
