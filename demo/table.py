"""From the bytes of a CSV file to rows that are safe to share: no HTTP and no shared state here."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

MAX_BYTES = 1024 * 1024
MAX_ROWS = 500
MAX_COLUMNS = 20
MAX_CELL = 200
MAX_COLUMN_NAME = 60

NUMBER = re.compile(r"[-+−]?\d[\d.,' ]*%?")

Row = dict[str, str]


class Table(NamedTuple):
    """Rows, and the order in which their columns are shown."""

    columns: list[str]
    rows: list[Row]


class BadCSV(ValueError):
    """A file that is not taken: the code of the message to show, and the line where it went wrong."""

    def __init__(self, code: str, line: int | None = None) -> None:
        super().__init__(code if line is None else f"{code}, line {line}")
        self.code = code
        self.line = line


def parse_csv(data: bytes) -> Table:
    """The table in a CSV file, checked as a whole before anyone stores a part of it.

    :raises BadCSV: with the code of the message that says what is wrong.
    """
    lines = _lines(_decode(data))
    _, columns = next(lines, (0, []))
    _check_columns(columns)
    rows: list[Row] = []
    for number, cells in lines:
        if len(rows) == MAX_ROWS:
            raise BadCSV("csv-too-many-rows")
        if len(cells) != len(columns):
            raise BadCSV("csv-ragged", number)
        if any(len(cell) > MAX_CELL for cell in cells):
            raise BadCSV("csv-long-cell", number)
        rows.append(dict(zip(columns, cells, strict=True)))
    return Table(columns, rows)


def clean_cell(text: str) -> str:
    """The text on one line and without control characters.

    A browser gives back exactly this text when it posts the value it was shown, so that an edit can be
    compared with what is stored.
    """
    return "".join(char for char in " ".join(text.split()) if unicodedata.category(char) != "Cc")


def numeric_columns(table: Table) -> set[str]:
    """The columns that hold nothing but numbers; they are aligned to the right."""
    return {
        column
        for column in table.columns
        if any(row[column] for row in table.rows)
        and all(NUMBER.fullmatch(row[column]) for row in table.rows if row[column])
    }


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise BadCSV("csv-too-large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadCSV("csv-not-text") from error
    # ASCII saved as UTF-16 is also valid UTF-8, with a NUL beside every letter.
    if "\0" in text:
        raise BadCSV("csv-not-text")
    return text


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each line that isn't blank, cleaned, with its number in the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        for line in reader:
            cells = [clean_cell(cell) for cell in line]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise BadCSV("csv-broken", reader.line_num) from error


def _delimiter(text: str) -> str:
    """The comma, or what a spreadsheet in a country with decimal commas writes in its place."""
    header = text.lstrip().partition("\n")[0]
    return max(",;\t", key=header.count)


def _check_columns(columns: list[str]) -> None:
    if not columns:
        raise BadCSV("csv-empty")
    if len(columns) > MAX_COLUMNS:
        raise BadCSV("csv-too-many-columns")
    if len(set(columns)) < len(columns) or not all(0 < len(name) <= MAX_COLUMN_NAME for name in columns):
        raise BadCSV("csv-bad-columns")
