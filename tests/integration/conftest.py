"""Every test here gets a directory in which no process may be left."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.fixtures import nothing_left_behind
from tests.support.harness import Server, serving

__all__ = ["nothing_left_behind"]


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractContextManager[Server]]:
    """`harness.serving` in the directory of the test."""
    return functools.partial(serving, tmp_path)
