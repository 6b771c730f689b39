"""The demo as it is deployed: gunicorn, four workers, an embedded store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.screenshot import find_browser, running_demo
from tests.support.chromium import Chromium

WORKERS = 4


@pytest.fixture
def served_demo(tmp_path: Path) -> Iterator[str]:
    """The address of a demo under gunicorn with four workers, in which nothing has been counted yet."""
    with running_demo(tmp_path, WORKERS) as address:
        yield address


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    """A browser; .ci/run sees to it that there is one."""
    path = find_browser()
    if path is None:
        pytest.skip("needs chromium")
    browser = Chromium(path, tmp_path / "profile")
    yield browser
    browser.close()
