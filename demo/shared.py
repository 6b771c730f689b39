"""The globals of the demo, and everything that is done with them.

This is the file to read: it is what a Flask app with module-level globals looks like, but for the way
in which the globals are made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from demo.table import MAX_CELL, MAX_ROWS, Row, Table, clean_cell, parse_csv
from flask_globalstate import GlobalState

SAMPLE = parse_csv((Path(__file__).parent / "sample.csv").read_bytes())
THEMES = ("dark", "light")
ACCENTS = ("teal", "violet", "amber")
STOPPED = "stopped"
EDIT_ATTEMPTS = 10

state = GlobalState()

HITS = state.counter("HITS")
WORKERS = state.dict("WORKERS")  # pid: requests answered, and STOPPED: those of workers that are gone
THEME = state.value("THEME", initial="dark")
ACCENT = state.value("ACCENT", initial="teal")
COLUMNS = state.value("COLUMNS", initial=SAMPLE.columns)
TABLE = state.dict("TABLE", initial=dict(enumerate(SAMPLE.rows, start=1)))
ROW_IDS = state.counter("ROW_IDS")

plain_hits = 0  # What HITS was before. Every worker has its own, so it is wrong in all of them.
met_pid = 0  # This one is right to be the worker's own: has this process said hello yet?


class Hit(NamedTuple):
    """One request, as the worker that answered it counted it."""

    pid: int
    hits: int
    plain_hits: int


def count_hit() -> Hit:
    """Count one request, in the shared counter and in the plain global."""
    global plain_hits
    meet_this_worker()
    plain_hits += 1
    WORKERS.increment(os.getpid())
    return Hit(os.getpid(), HITS.increment(), plain_hits)


def peek() -> Hit:
    """The counters as they are, without counting."""
    meet_this_worker()
    return Hit(os.getpid(), int(HITS), plain_hits)


def meet_this_worker() -> None:
    """Put this worker on the list, once in its life, and move those that have stopped to one sum."""
    global met_pid
    pid = os.getpid()
    if met_pid == pid:
        return
    met_pid = pid
    # An entry under our own pid is of an earlier process: a container gives the same pids at every start.
    for other in [key for key in WORKERS if key != STOPPED and (key == pid or not is_running(key))]:
        # Only one of the workers that start together is given the number.
        answered: int | None = WORKERS.pop(other, None)
        if answered:
            WORKERS.increment(STOPPED, by=answered)
    WORKERS.setdefault(pid, 0)


def is_running(pid: int) -> bool:
    """Whether a process of this host has the pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def current_rows() -> tuple[dict[int, Row], Table]:
    """The rows by their ids, each with exactly the columns of the table."""
    columns: list[str] = COLUMNS.value
    rows = {row_id: {name: row.get(name, "") for name in columns} for row_id, row in TABLE.snapshot().items()}
    return rows, Table(columns, list(rows.values()))


def replace_table(table: Table) -> None:
    """Put another table in the place of the present one.

    These are three commits. In this order nobody is shown the rows of one table under the columns of
    the other, but a page may be shown without rows, and two loads at the same moment may leave the
    rows of both.
    """
    TABLE.clear()
    COLUMNS.value = table.columns
    TABLE.update({new_row_id(): row for row in table.rows})


def new_row_id() -> int:
    """An id that no other worker gives. Those up to MAX_ROWS belong to the rows of the start."""
    return MAX_ROWS + ROW_IDS.increment()


def add_row(cells: Mapping[str, str]) -> str:
    """Add a row at the end; the answer is the code of a message."""
    columns: list[str] = COLUMNS.value
    if set(cells) != set(columns):
        return "table-replaced"
    if len(TABLE) >= MAX_ROWS:
        return "table-full"
    row = {name: clean_cell(cells[name]) for name in columns}
    if not any(row.values()):
        return "row-empty"
    if too_long(row.values()):
        return "cell-too-long"
    TABLE[new_row_id()] = row
    return "row-added"


def delete_row(row_id: int | None) -> str:
    """Delete a row; the answer is the code of a message."""
    return "row-gone" if row_id is None or TABLE.pop(row_id, None) is None else "row-deleted"


def edit_cell(row_id: int | None, column: str, old: str, new: str) -> str:
    """Change one cell, if it still holds what its editor was shown; the answer is the code of a message."""
    new = clean_cell(new)
    if too_long([new]):
        return "cell-too-long"
    if row_id is None:
        return "row-gone"
    for _ in range(EDIT_ATTEMPTS):
        row: Row | None = TABLE.get(row_id)
        if row is None or column not in row:
            return "row-gone"
        if row[column] != old:
            return "cell-changed"
        # Refused when another worker changed this row since we read it, if only in another cell.
        if TABLE.compare_and_set(row_id, row, {**row, column: new}):
            return "cell-saved"
    return "busy"


def too_long(cells: Iterable[str]) -> bool:
    """Whether one of the cells is longer than a cell may be."""
    return any(len(cell) > MAX_CELL for cell in cells)


def set_look(theme: str | None, accent: str | None) -> str:
    """Change how the page looks, for everybody; the answer is the code of a message."""
    if theme not in (None, *THEMES) or accent not in (None, *ACCENTS):
        return "look-unknown"
    if theme is not None:
        THEME.value = theme
    if accent is not None:
        ACCENT.value = accent
    return "look-changed"
