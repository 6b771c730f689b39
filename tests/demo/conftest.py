"""The demo as it is deployed: gunicorn, four workers, an embedded store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from demo import shared
from demo.app import create_app
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


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A browser before a new demo, in which nothing has been counted or changed."""
    monkeypatch.setattr(shared, "plain_hits", 0)
    monkeypatch.setattr(shared, "met_pid", 0)
    app = create_app(
        {
            "TESTING": True,
            "STORE_BACKEND": "memory",
            "STORE_ID": uuid.uuid4().hex,
            "STORE_PATH": str(tmp_path),
        }
    )
    return app.test_client()
