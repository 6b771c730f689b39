"""Helpers of the tests, and how another process imports them."""

from __future__ import annotations

import os
from pathlib import Path

#: seconds that a loaded machine may need for anything; nothing waits for it to pass
PATIENCE = 240
ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that imports the package and these tests from here."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}
