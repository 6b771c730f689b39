"""The table of the demo: its cells, rows and files, edited with links and forms only."""

from __future__ import annotations

import html
import io
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from demo import shared
from demo.table import (
    MAX_BYTES,
    MAX_CELL,
    MAX_COLUMN_NAME,
    MAX_COLUMNS,
    MAX_ROWS,
    Table,
    numeric_columns,
    parse_csv,
)
from tests.support.visitor import KOBE, message_on, new_row, post, table_on, upload

AS_JSON = {"Accept": "application/json"}


# Editing


def test_a_cell_is_edited_with_links_and_forms_only(client: FlaskClient) -> None:
    links = re.findall(r'<a class="cell" href="([^"]*)"[^>]*>Kobe<', client.get("/").text)
    form = client.get(html.unescape(links[0])).text.split('<form class="cell-form"')[1].split("</form>")[0]
    fields = {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}
    assert fields == {**KOBE, "new": "Kobe"}
    action = re.search(r'action="([^"]*)"', form)
    assert action is not None
    page = post(client, action[1], **{**fields, "new": "Awaji"})
    assert message_on(page) == "Saved, in every worker."
    assert table_on(page)[1] == ["Akashi Kaikyō", "Awaji", "Japan", "1998", "1991"]


def test_an_edit_keeps_its_row_in_its_place(client: FlaskClient) -> None:
    before = [row[0] for row in table_on(client.get("/"))]
    assert [row[0] for row in table_on(post(client, "/cell", **KOBE, new="Awaji"))] == before


def test_an_edit_never_overwrites_what_somebody_else_wrote(client: FlaskClient) -> None:
    post(client, "/cell", **KOBE, new="theirs")
    page = post(client, "/cell", **KOBE, new="mine")
    assert "Nothing was overwritten" in message_on(page)
    assert table_on(page)[1][1] == "theirs"


class ChangedMeanwhile:
    """TABLE, where another worker changes a cell between our read and our write."""

    def __init__(self, table: Any, column: str, times: int = 1) -> None:
        self.table, self.column, self.times = table, column, times

    def get(self, row_id: int) -> Any:
        return self.table.get(row_id)

    def compare_and_set(self, row_id: int, expected: Any, new: Any) -> bool:
        if self.times:
            self.times -= 1
            self.table[row_id] = {**self.table[row_id], self.column: f"theirs {self.times}"}
        return bool(self.table.compare_and_set(row_id, expected, new))


def test_two_cells_of_a_row_can_be_edited_at_once(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shared, "TABLE", ChangedMeanwhile(shared.TABLE, "Country"))
        assert shared.edit_cell(2, "Place", "Kobe", "mine") == "cell-saved"
    assert table_on(client.get("/"))[1][1:3] == ["mine", "theirs 0"]


def test_a_cell_changed_between_read_and_write_is_not_overwritten(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shared, "TABLE", ChangedMeanwhile(shared.TABLE, "Place"))
        assert shared.edit_cell(2, "Place", "Kobe", "mine") == "cell-changed"
    assert table_on(client.get("/"))[1][1] == "theirs 0"


def test_an_edit_of_a_row_that_never_rests_gives_up(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shared, "TABLE", ChangedMeanwhile(shared.TABLE, "Country", times=1000))
        assert shared.edit_cell(2, "Place", "Kobe", "mine") == "busy"
    assert table_on(client.get("/"))[1][1] == "Kobe"


@pytest.mark.parametrize("form", [{"row_id": "77"}, {"row_id": "x"}, {"column": "Colour"}])
def test_an_edit_of_what_is_not_there_says_so(client: FlaskClient, form: dict[str, str]) -> None:
    before = table_on(client.get("/"))
    page = post(client, "/cell", **{**KOBE, "new": "Awaji", **form})
    assert "deleted this row or replaced the table" in message_on(page)
    assert table_on(page) == before


def test_a_cell_too_long_is_refused(client: FlaskClient) -> None:
    assert table_on(post(client, "/cell", **KOBE, new="x" * MAX_CELL))[1][1] == "x" * MAX_CELL
    page = post(client, "/cell", **{**KOBE, "old": "x" * MAX_CELL}, new="y" * (MAX_CELL + 1))
    assert message_on(page) == f"A cell can hold {MAX_CELL} characters. Nothing was changed."
    assert table_on(page)[1][1] == "x" * MAX_CELL


def test_a_script_is_told_what_came_of_an_edit(client: FlaskClient) -> None:
    saved = client.post("/cell", data={**KOBE, "new": "Awaji"}, headers=AS_JSON)
    refused = client.post("/cell", data={**KOBE, "new": "mine"}, headers=AS_JSON)
    assert (saved.status_code, saved.get_json()["good"]) == (200, True)
    assert (refused.status_code, refused.get_json()["good"]) == (409, False)
    assert "Nothing was overwritten" in refused.get_json()["text"]


def test_a_row_is_added_at_the_end(client: FlaskClient) -> None:
    page = post(client, "/row/add", **new_row(Bridge=" Severn\n", Opened="1966"))
    assert message_on(page) == "The row is added, in every worker."
    assert table_on(page)[12:] == [["Severn", "", "", "1966", ""]]


def test_two_new_rows_never_have_the_same_id(client: FlaskClient) -> None:
    post(client, "/row/add", **new_row(Bridge="Severn"))
    post(client, "/table/sample")
    page = post(client, "/row/add", **new_row(Bridge="Severn"))
    assert len(set(re.findall(r'data-row="(\d+)"', page.text))) == 13
    assert not set(re.findall(r'data-row="(\d+)"', page.text)) & {str(row_id) for row_id in range(MAX_ROWS)}


def test_a_row_is_deleted_and_the_others_stay(client: FlaskClient) -> None:
    before = table_on(client.get("/"))
    page = post(client, "/row/delete", row_id="2")
    assert message_on(page) == "The row is deleted, in every worker."
    assert table_on(page) == before[:1] + before[2:]
    assert "Somebody else deleted this row" in message_on(post(client, "/row/delete", row_id="2"))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (new_row(), "Fill in at least one cell"),
        (new_row(Bridge="x" * (MAX_CELL + 1)), f"A cell can hold {MAX_CELL} characters"),
        ({"cell:Name": "Severn"}, "Somebody else loaded a table with other columns"),
    ],
)
def test_a_row_that_does_not_fit_is_not_added(
    client: FlaskClient, form: dict[str, str], message: str
) -> None:
    page = post(client, "/row/add", **form)
    assert message_on(page).startswith(message)
    assert len(table_on(page)) == 12


def test_a_full_table_takes_no_more_rows(client: FlaskClient) -> None:
    upload(client, b"Name\n" + b"x\n" * MAX_ROWS)
    page = post(client, "/row/add", **{"cell:Name": "one more"})
    assert message_on(page).startswith("The table is full")
    assert len(table_on(page)) == MAX_ROWS


# Loading a table


def test_an_upload_replaces_the_whole_table(client: FlaskClient) -> None:
    page = upload(client, '\ufeffCity,Country\r\nGraz,Austria\r\n\r\n"Lyon, 7e","Fr""ance"\r\n'.encode())
    assert message_on(page) == "Your table is loaded, in every worker."
    assert table_on(page) == [["Graz", "Austria"], ["Lyon, 7e", 'Fr"ance']]
    assert re.findall(r'<th scope="col"[^>]*>(.*?)</th>', page.text) == ["City", "Country"]


def test_the_sample_can_be_loaded_again(client: FlaskClient) -> None:
    before = table_on(client.get("/"))
    upload(client, b"City\nGraz\n")
    page = post(client, "/table/sample")
    assert message_on(page) == "The sample is loaded, in every worker."
    assert table_on(page) == before


def test_a_spreadsheets_semicolons_and_tabs_are_understood() -> None:
    assert parse_csv(b"City;Price\nGraz;1,5\n") == Table(
        ["City", "Price"], [{"City": "Graz", "Price": "1,5"}]
    )
    assert parse_csv(b"City\tPrice\nGraz\t1,5\n").columns == ["City", "Price"]


BAD_FILES = {
    "empty": (b"", "The file is empty"),
    "only blank lines": (b"\n\n , \n", "The file is empty"),
    "binary": (b"\x89PNG\r\n\xff", "The file is not a CSV file in UTF-8"),
    "UTF-16": ("City\nGraz\n".encode("utf-16-le"), "The file is not a CSV file in UTF-8"),
    "too large": (b"City\n" + b"x" * MAX_BYTES, "The file is larger than 1 MiB"),
    "far too large": (b"City\n" + b"x\n" * MAX_BYTES, "The file is larger than 1 MiB"),
    "too many rows": (b"City\n" + b"x\n" * (MAX_ROWS + 1), f"The file has more than {MAX_ROWS} rows"),
    "too many columns": (
        ",".join(f"c{number}" for number in range(MAX_COLUMNS + 1)).encode(),
        f"The file has more than {MAX_COLUMNS} columns",
    ),
    "a column without a name": (b"City,\nGraz,1\n", "The first line must give each column a name"),
    "two columns of one name": (b"City,City\nGraz,Wien\n", "The first line must give each column a name"),
    "a long column name": (
        b"c" * (MAX_COLUMN_NAME + 1) + b"\nx\n",
        "The first line must give each column a name",
    ),
    "a short line": (b"City,Country\nGraz,Austria\nLyon\n", "Line 3 has more or fewer cells"),
    "a long line": (b"City,Country\nGraz,Austria,Europe\n", "Line 2 has more or fewer cells"),
    "a long cell": (
        b"City\nGraz\n" + b"x" * (MAX_CELL + 1),
        f"Line 3 has a cell of more than {MAX_CELL} characters",
    ),
    "an open quote": (b'City\nGraz\n"Lyon\n', "Line 3 is not valid CSV"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_explained_and_changes_nothing(client: FlaskClient, name: str) -> None:
    data, message = BAD_FILES[name]
    before = table_on(client.get("/"))
    page = upload(client, data)
    assert message_on(page).startswith(message)
    assert message_on(page).endswith("The table was not changed.")
    assert table_on(page) == before


def test_an_upload_without_a_file_says_so(client: FlaskClient) -> None:
    assert message_on(post(client, "/table/upload")) == "Choose a CSV file first."
    assert message_on(post(client, "/table/upload", csv=(io.BytesIO(b""), ""))) == "Choose a CSV file first."


def test_the_limits_themselves_are_allowed() -> None:
    columns = ["c" * MAX_COLUMN_NAME, *(f"c{number}" for number in range(MAX_COLUMNS - 1))]
    line = ",".join("x" * MAX_CELL for _ in columns)
    assert len(parse_csv("\n".join([",".join(columns), line]).encode()).rows) == 1
    assert len(parse_csv(b"City\n" + b"x\n" * MAX_ROWS).rows) == MAX_ROWS


def test_a_body_too_long_is_read_to_its_end_so_that_the_browser_gets_the_answer(client: FlaskClient) -> None:
    body = io.BytesIO(b"x" * (MAX_BYTES * 2))
    response = client.post("/table/upload", input_stream=body, content_type="multipart/form-data; boundary=b",
                           headers={"Content-Length": str(MAX_BYTES * 2)})  # fmt: skip
    assert response.location.startswith("/?message=csv-too-large")
    assert body.tell() == MAX_BYTES * 2


def test_a_form_too_long_is_refused_without_speaking_of_files(client: FlaskClient) -> None:
    page = post(client, "/cell", **KOBE, new="x" * 2 * MAX_BYTES)
    assert message_on(page) == "That is more than this page takes. Nothing was changed."


def test_columns_of_numbers_are_known() -> None:
    table = parse_csv(b"a;b;c;d\n1;1 200,5;x;\n;-3%;1;\n")
    assert numeric_columns(table) == {"a", "b"}


# What the script polls


def test_the_table_is_sent_only_to_pages_that_have_another(client: FlaskClient) -> None:
    first = client.get("/api/state").get_json()
    assert ">Kobe<" in first["table"]
    digest = re.findall(r'data-digest="(\w+)"', client.get("/").text)[0]
    assert f'data-digest="{digest}"' in first["table"]
    assert client.get("/api/state", query_string={"table": digest}).get_json()["table"] is None
    post(client, "/cell", **KOBE, new="Awaji")
    after = client.get("/api/state", query_string={"table": digest}).get_json()
    assert ">Awaji<" in after["table"]
