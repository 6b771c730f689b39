"""Every test here gets a directory in which no process may be left."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from harness import Server, processes_in, serving, wait_for


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process, and end what it has left."""
    yield
    try:
        wait_for(lambda: not processes_in(tmp_path), f"the end of every process in {tmp_path}")
    finally:
        for pid in processes_in(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractContextManager[Server]]:
    """`harness.serving` in the directory of the test."""
    return functools.partial(serving, tmp_path)
