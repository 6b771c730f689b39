"""The demo as a visitor without JavaScript sees and uses it."""

from __future__ import annotations

import html
import io
import re
from typing import Any

from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

KOBE = {"row_id": "2", "column": "Place", "old": "Kobe"}


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


# Rows


def new_row(**cells: str) -> dict[str, str]:
    columns = ("Bridge", "Place", "Country", "Opened", "Main span (m)")
    return {f"cell:{column}": cells.get(column, "") for column in columns}
