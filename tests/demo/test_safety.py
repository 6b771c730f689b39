"""What visitors write is shown as text, and what changes something is only asked for by the page itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from demo import shared
from demo.messages import MESSAGES
from demo.table import (
    MAX_ROWS,
)
from tests.support.visitor import KOBE, hits_on, message_on, new_row, table_on, upload

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
