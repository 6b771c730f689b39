"""The extension in every version of Flask that is supported, and in what is none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
from flask import Flask, Response, g

from flask_globalstate import ConfigurationError, GlobalState, flask_hooks
from tests.support import PATIENCE

#: Flask as its next version is: what is deprecated there warns, a request has its own `g`, and every
#: teardown function is called. Where Flask is that already, nothing is done.
NEXT_FLASK = """
import warnings
import flask
from flask import globals as flask_globals

if vars(flask_globals).pop("request_ctx", None) is not None:
    def complain(name):
        warnings.warn(f"{name!r} has merged with 'app_ctx'", DeprecationWarning, stacklevel=2)
        return flask_globals.app_ctx

    def tear_down(self, error=None):
        for hook in reversed(self.teardown_request_funcs.get(None, [])):
            try:
                hook(error)
            except ArithmeticError:
                print("raised")

    flask_globals.__getattr__ = complain
    flask.Flask.do_teardown_request = tear_down
"""


def run_on_next_flask(program: str) -> str:
    """What a program prints, in which every warning is an error."""
    text = NEXT_FLASK + textwrap.dedent(program)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_next_flask_can_be_imported_and_its_requests_begin_and_end() -> None:
    printed = run_on_next_flask(
        """
        from flask import Flask
        import flask_globalstate.pytest_plugin
        from flask_globalstate import GlobalState
        from flask_globalstate.replicas.requests import request_here, running_requests

        app = Flask("app")
        seen = []
        app.teardown_request(lambda error: seen.append(request_here()))
        app.teardown_request(lambda error: 1 / 0)
        data = GlobalState(app).dict("DATA", initial={"a": 1})

        @app.get("/")
        def index():
            seen.append(request_here())
            return data

        try:
            print(app.test_client().get("/").json)
        except ZeroDivisionError:
            print("raised")
        print(seen[0] is seen[1] is not None, request_here(), list(running_requests()))
        """
    )
    assert printed.splitlines()[-1] == "True None []"
    assert "raised" in printed


def test_what_stands_with_a_context_is_seen_in_no_other_one() -> None:
    app = Flask("app")
    with app.test_request_context("/"):
        flask_hooks.own_context()["x"] = 1
        with app.test_request_context("/"):
            assert "x" not in flask_hooks.own_context()
        assert flask_hooks.own_context()["x"] == 1


def test_ours_are_called_first_before_a_view_and_last_after_it() -> None:
    app = Flask("app")
    order: list[str] = []

    def note(what: str, response: Any = None) -> Any:
        order.append(what)
        return response

    for whose in ("theirs", "ours", "theirs"):
        if whose == "ours":
            flask_hooks.call_first(app, lambda: note("ours"))
            flask_hooks.call_after_view(app, lambda response: note("ours", response))
            flask_hooks.call_last(app, lambda: note("ours"))
        else:
            app.before_request(lambda: note("theirs"))
            app.after_request(lambda response: note("theirs", response))
            app.teardown_request(lambda error: note("theirs"))
    app.add_url_rule("/", view_func=lambda: note("view", "fine"))
    app.test_client().get("/")
    begin, end = ["ours", "theirs", "theirs"], ["theirs", "theirs", "ours"]
    assert order == [*begin, "view", *end, *end]


def test_a_state_may_come_after_the_first_request() -> None:
    app = Flask("app")
    answer: list[Any] = ["plain"]
    app.add_url_rule("/", view_func=lambda: answer[-1])
    assert app.test_client().get("/").text == "plain"
    answer.append(GlobalState(app).dict("DATA", initial={"a": 1}))
    assert app.test_client().get("/").json == {"a": 1}


def test_an_application_with_a_class_of_its_own_for_g_is_served() -> None:
    class Globals:
        pass

    app = Flask("app")
    app.app_ctx_globals_class = Globals  # type: ignore[assignment]
    data = GlobalState(app).dict("DATA", initial={"a": 1})

    @app.get("/")
    def index() -> Response:
        g.user = "me"
        return app.make_response(data)  # type: ignore[arg-type]

    assert app.test_client().get("/").json == {"a": 1}


class Quart:
    """Is what `quart.Quart` is to us: no Flask, with much of its interface."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"STORE_BACKEND": "memory"}
        self.extensions: dict[str, Any] = {}
        self.before_request_funcs: dict[Any, Any] = {}


def test_an_application_that_is_not_flasks_is_refused_with_the_way_to_go() -> None:
    app: Any = Quart()
    state = GlobalState()
    data = state.dict("DATA")
    with pytest.raises(ConfigurationError, match=r"Quart is none.*from_config.*GlobalStateASGIMiddleware"):
        state.init_app(app)
    assert (app.extensions, app.before_request_funcs) == ({}, {})
    with pytest.raises(RuntimeError, match="before its store"):
        data["a"] = 1
    other = GlobalState.from_config(app.config)
    with other.request():
        assert other.dict("DATA", initial={"a": 1}) == {"a": 1}
