"""What the page can say after a change.

An address carries only the code, so nobody can put words in its mouth.
"""

from __future__ import annotations

from typing import NamedTuple

from demo.table import MAX_CELL, MAX_COLUMN_NAME, MAX_COLUMNS, MAX_ROWS


class Message(NamedTuple):
    """A text, and the HTTP status that goes with it where a script asked."""

    text: str
    status: int = 200

    @property
    def good(self) -> bool:
        return self.status == 200


MESSAGES = {
    "sample-loaded": Message("The sample is loaded, in every worker."),
    "csv-loaded": Message("Your table is loaded, in every worker."),
    "cell-saved": Message("Saved, in every worker."),
    "row-added": Message("The row is added, in every worker."),
    "row-deleted": Message("The row is deleted, in every worker."),
    "look-changed": Message("The page looks different now, for everybody."),
    "look-unknown": Message("There is no such look.", 400),
    "cell-changed": Message(
        "Somebody else changed this cell while you were editing it. Nothing was overwritten: "
        "the table shows their value, and you can edit it again.",
        409,
    ),
    "row-gone": Message("Somebody else deleted this row or replaced the table. Nothing was changed.", 409),
    "table-replaced": Message("Somebody else loaded a table with other columns. The row was not added.", 409),
    "busy": Message(
        "Too many people are editing this row at once. Nothing was changed: please try again.", 409
    ),
    "table-full": Message(f"The table is full: it holds {MAX_ROWS} rows. The row was not added.", 409),
    "row-empty": Message("Fill in at least one cell of the new row.", 400),
    "cell-too-long": Message(f"A cell can hold {MAX_CELL} characters. Nothing was changed.", 400),
    "too-large": Message("That is more than this page takes. Nothing was changed.", 413),
    "csv-missing": Message("Choose a CSV file first.", 400),
    "csv-too-large": Message("The file is larger than 1 MiB. The table was not changed.", 413),
    "csv-not-text": Message("The file is not a CSV file in UTF-8. The table was not changed.", 400),
    "csv-empty": Message(
        "The file is empty: its first line must name the columns. The table was not changed.", 400
    ),
    "csv-bad-columns": Message(
        "The first line must give each column a name of its own, of at most "
        f"{MAX_COLUMN_NAME} characters. The table was not changed.",
        400,
    ),
    "csv-too-many-columns": Message(
        f"The file has more than {MAX_COLUMNS} columns. The table was not changed.", 400
    ),
    "csv-too-many-rows": Message(f"The file has more than {MAX_ROWS} rows. The table was not changed.", 400),
    "csv-ragged": Message(
        "Line {line} has more or fewer cells than the first line. The table was not changed.", 400
    ),
    "csv-long-cell": Message(
        f"Line {{line}} has a cell of more than {MAX_CELL} characters. The table was not changed.", 400
    ),
    "csv-broken": Message(
        "Line {line} is not valid CSV; is a quotation mark missing? The table was not changed.", 400
    ),
}


def message_for(code: str | None, line: int | None = None) -> Message | None:
    """The message with this code; None for no code or one that doesn't exist."""
    message = MESSAGES.get(code or "")
    if message is None:
        return None
    return message._replace(text=message.text.replace("{line}", "?" if line is None else str(line)))
