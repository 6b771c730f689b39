"""Fixtures that several folders have; a conftest imports what its folder has."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import processes_in, wait_for


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process in its directory, and end what it has left."""
    yield
    try:
        wait_for(lambda: not processes_in(tmp_path), f"the end of every process in {tmp_path}")
    finally:
        for pid in processes_in(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
