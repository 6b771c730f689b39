"""When shared module globals are published, and who hears of it if they can't be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g
from werkzeug.test import Client, create_environ
from werkzeug.wrappers import Response

from flask_globalstate import GlobalState, GlobalStateMiddleware, SharedCounter, StoreUnavailableError
from flask_globalstate.replicas.requests import request_here, running_requests
from tests.support.legacy_modules import Worker, module


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Flask, Any, GlobalState]]:
    """An application, its module whose HITS and THEME are shared, and another worker's state."""
    app = Flask("app")
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    app.config.update(settings)
    # Before ours, as a legacy application has them.
    app.after_request(lambda response: [legacy.hit(), response][1])
    app.teardown_request(lambda error: legacy.hit(100) if "late" in g else None)
    state = GlobalState(app)
    legacy = module()
    state.share_globals(legacy, "DATA", "THEME", HITS=SharedCounter)
    other = GlobalState.from_config(settings)
    yield app, legacy, other
    state.close()
    other.close()


def test_it_is_published_before_the_response_leaves(served: Any) -> None:
    app, legacy, other = served
    seen: list[Any] = []
    app.after_request(lambda response: [legacy.hit(10), response][1])

    @app.get("/")
    def index() -> str:
        legacy.hit(1000)
        legacy.set_theme("light")
        legacy.replace({"n": 1}, [], set())
        return str(legacy.HITS)

    def start_response(status: str, headers: Any) -> Any:
        seen.append([other.counter("legacy.HITS").value, other.value("legacy.THEME").value])
        seen.append(other.dict("legacy.DATA").copy())
        return lambda data: None

    for turn in (1, 2):
        body = app.wsgi_app(create_environ("/"), start_response)
        assert b"".join(body) == str((turn - 1) * 1011 + 1000).encode()
        assert seen[-2:] == [[turn * 1011, "light"], {"n": 1}]


def test_what_comes_after_the_response_is_published_at_the_end_of_the_request(served: Any) -> None:
    app, _, other = served

    @app.get("/")
    def index() -> str:
        g.late = True
        return "fine"

    app.test_client().get("/")
    assert other.counter("legacy.HITS").value == 101


def test_what_a_view_did_before_it_failed_is_published(served: Any) -> None:
    app, legacy, other = served

    @app.get("/")
    def index() -> str:
        legacy.set_theme("light")
        legacy.hit(5)
        raise ValueError("x")

    assert app.test_client().get("/").status_code == 500
    assert (other.counter("legacy.HITS").value, other.value("legacy.THEME").value) == (6, "light")
    app.testing = True
    with pytest.raises(ValueError, match="x"):
        app.test_client().get("/")
    assert other.counter("legacy.HITS").value == 11


def test_a_request_sees_what_others_have_published(served: Any) -> None:
    app, legacy, other = served
    app.add_url_rule("/", view_func=lambda: f"{legacy.HITS} {legacy.THEME}")
    client = app.test_client()
    assert client.get("/").text == "0 dark"
    other.counter("legacy.HITS").increment(10)
    other.value("legacy.THEME").value = "light"
    assert client.get("/").text == "11 light"


def test_a_request_whose_changes_cannot_be_published_fails(served: Any, monkeypatch: Any) -> None:
    app, _, other = served
    app.add_url_rule("/", view_func=lambda: "fine")
    client = app.test_client()
    assert client.get("/").status_code == 200

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as broken:
        broken.setattr(app.extensions["globalstate"].store, "increment", fail)
        with pytest.raises(StoreUnavailableError):
            client.get("/")
    # What it had counted is not lost: Flask calls what comes after a view for the page of the error too.
    assert client.get("/").status_code == 200
    assert other.counter("legacy.HITS").value == 1 + 2 + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreUnavailableError], ids=["cut-short", "not-known"])
def test_what_may_have_been_counted_is_not_counted_again(served: Any, monkeypatch: Any, error: Any) -> None:
    app, legacy, other = served
    app.add_url_rule("/", view_func=lambda: str(legacy.HITS))
    state = app.extensions["globalstate"]
    real = state.store.increment

    def count_and_fail(*arguments: Any) -> Any:
        real(*arguments)
        failure = error("the answer was not heard")
        failure.may_be_written = True
        raise failure

    legacy.HITS += 3
    with monkeypatch.context() as broken:
        broken.setattr(state.store, "increment", count_and_fail)
        with pytest.raises(error):
            state.publish_globals()
    state.publish_globals()
    assert other.counter("legacy.HITS").value == 3
    assert legacy.HITS == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THEME", lambda: None),
        ("DATA", {"a": lambda: None}),
        ("DATA", {object(): 1}),
        ("LOG", [lambda: None]),
    ],
)
def test_what_can_never_be_published_fails_one_request(served: Any, name: str, value: Any) -> None:
    app, legacy, _ = served
    app.extensions["globalstate"].share_globals(legacy, "LOG")
    app.add_url_rule("/", view_func=lambda: setattr(legacy, name, value) or "", endpoint="bind")
    app.add_url_rule("/read", view_func=lambda: repr(getattr(legacy, name)), endpoint="read")
    client = app.test_client()
    before = client.get("/read").text
    assert client.get("/").status_code == 500
    assert client.get("/read").text == before
    legacy.hit(1)
    assert client.get("/read").status_code == 200


def test_a_request_that_cannot_begin_is_over(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(SharedCounter, "_unwrap", fail)
    with pytest.raises(StoreUnavailableError):
        state.begin_request()
    assert request_here() is None
    assert not running_requests()


def test_the_middleware_publishes_when_the_application_has_answered_and_at_the_end(tmp_path: Path) -> None:
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    state, other = GlobalState.from_config(settings), GlobalState.from_config(settings)
    legacy = module()
    state.share_globals(legacy, HITS=SharedCounter)
    shared = other.counter("legacy.HITS")

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        legacy.hit(1)

        def body() -> Iterator[bytes]:
            yield str(shared.value).encode()
            legacy.hit(10)

        return body()

    for turn in (1, 2):
        with Client(GlobalStateMiddleware(application, state), Response).get("/") as response:
            assert response.text == str(11 * turn - 10)
        assert shared.value == 11 * turn
    state.close()
    other.close()


def test_the_middleware_closes_a_response_that_cannot_be_published(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    closed: list[bool] = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def application(environ: Any, start_response: Any) -> Body:
        legacy.hit()
        return Body()

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(state.store, "increment", fail)
    with pytest.raises(StoreUnavailableError):
        Client(GlobalStateMiddleware(application, state), Response).get("/")
    assert closed == [True]


def test_sync_publishes_and_refreshes_without_a_request(start: Callable[..., Worker]) -> None:
    first, second = (start().share("THEME", "DATA", HITS=SharedCounter) for _ in range(2))
    first.legacy.hit(3)
    first.legacy.set_theme("light")
    first.legacy.replace({"n": 7}, [], set())
    first.state.sync()
    second.legacy.hit(4)
    second.state.sync()
    assert (second.legacy.HITS, second.legacy.THEME, second.legacy.DATA) == (7, "light", {"n": 7})


def test_a_transaction_that_fails_takes_nothing_from_a_counter(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))

    @first.state.transactional
    def fail() -> None:
        first.legacy.hit(3)
        first.state.sync()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    first.state.sync()
    assert second.read("HITS") == first.read("HITS") == 3


def test_in_a_transaction_nothing_is_published_before_its_end(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    with first.state.request(), first.state.transaction():
        first.legacy.hit(3)
        first.state.sync()
        assert second.read("HITS") == 0
    assert second.read("HITS") == 3
