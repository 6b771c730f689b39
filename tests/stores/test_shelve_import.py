"""Shelves of the dbm kinds that Python had before, found in the directory of a shelve store."""

from __future__ import annotations

import functools
import os
import re
import sqlite3
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import StoreUnavailableError
from flask_globalstate.errors import MissingDependencyError
from flask_globalstate.stores.shelve import dbm_import
from tests.support import ROOT
from tests.support.standard import (
    LikeTheStandardLibrary,
    mode,
    python_with,
    run,
)

#: which names the files of a shelf DATA have
KINDS = {"dbm.dumb": ["DATA.dat", "DATA.dir"], "dbm.gnu": ["DATA"], "dbm.ndbm": ["DATA.db"]}
OLD = {f"key {number} ü": ["value", number, "x" * number * 50] for number in range(40)} | {"count": 7}

MAKE = """
import importlib, shelve, sys
kind, path, content = sys.argv[1:]
shelf = shelve.Shelf(importlib.import_module(kind).open(path, "c"))
shelf.update(eval(content))
shelf.close()
"""
READ = """
import importlib, shelve, sys
kind, path = sys.argv[1:]
print(dict(shelve.Shelf(importlib.import_module(kind).open(path, "r"))))
"""


@functools.lru_cache
def python_of(kind: str) -> str:
    """An interpreter with the module of a kind; in the continuous integration there is one for each."""
    python = python_with(kind)
    if python is None:
        pytest.skip(f"no Python here has {kind}")
    return python


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of dbm that is not SQLite's."""
    python_of(request.param)
    return str(request.param)


def make_old(kind: str, path: Path, content: dict[str, Any]) -> list[Path]:
    """The files of a shelf of a kind that is called ``path``."""
    path.parent.mkdir(0o700, exist_ok=True)
    before = set(path.parent.iterdir())
    run([python_of(kind), "-c", MAKE, kind, str(path), repr(content)])
    files = sorted(set(path.parent.iterdir()) - before)
    assert {file.name for file in files} >= set(KINDS[kind])
    return files


def read_old(kind: str, path: Path) -> Any:
    """All that is in a shelf of a kind."""
    return eval(run([python_of(kind), "-c", READ, kind, str(path)]))


def with_module(kind: str, program: str, path: Path) -> list[str]:
    """The lines that a program with our package prints, run by an interpreter that has a kind."""
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    command = [python_of(kind), "-c", OPEN_STATE + textwrap.dedent(program), str(path)]
    return run(command, PYTHONPATH=os.pathsep.join([str(ROOT), *packages])).splitlines()


OPEN_STATE = """
import itertools, logging, os, shutil, sys
from flask_globalstate import GlobalState

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
path = sys.argv[1]

def open_state():
    return GlobalState.from_config({
        "STORE_BACKEND": "shelve", "STORE_PATH": path, "STORE_SYNC": "read", "STORE_OPTIONS": {"timeout": 240}
    })

def in_child(act):
    pid = os.fork()
    if pid == 0:
        act()
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_shelf_of_another_kind_is_imported_and_kept_as_a_backup(kind, path):
    files = make_old(kind, path / "DATA", OLD)
    program = """
        state = open_state()
        assert state.store.names() == ["DATA"]
        data = state.dict("DATA", initial={"never": "committed"})
        print([dict(data), data.increment("count")])
        state.close()
        state = open_state()
        print([dict(state.dict("DATA")), state.store.names()])
        state.close()
    """
    imported, taken_over, *answers = with_module(kind, program, path)
    assert (
        imported == f"WARNING {path / 'DATA'}: imported {len(OLD)} entries from a shelf of {kind}, "
        f"kept as {path / 'DATA.backup'}"
    )
    assert "took over" in taken_over
    assert list(map(eval, answers)) == [[OLD, 8], [{**OLD, "count": 8}, ["DATA"]]]
    assert LikeTheStandardLibrary().read(path / "DATA") == {**OLD, "count": 8}
    assert read_old(kind, path / "DATA.backup") == OLD
    left = {file.name for file in path.iterdir()} - {".globalstate", "DATA"}
    assert left == {file.name.replace("DATA", "DATA.backup") for file in files}


def test_processes_that_come_at_once_import_once(kind, path):
    make_old(kind, path / "DATA", OLD)
    program = """
        def work():
            data = open_state().dict("DATA")
            assert len(data) == 41
            data.increment("count")

        pids = []
        for _ in range(6):
            pid = os.fork()
            if pid == 0:
                work()
                sys.stdout.flush()
                os._exit(0)
            pids.append(pid)
        print([os.waitpid(pid, 0)[1] for pid in pids])
        print(dict(open_state().dict("DATA")))
    """
    lines = with_module(kind, program, path)
    assert eval(lines[-2]) == [0] * 6
    assert eval(lines[-1]) == {**OLD, "count": 13}
    assert sum("imported" in line for line in lines) == sum("took over" in line for line in lines) == 1


def test_an_import_that_ends_between_any_two_steps_loses_nothing_and_is_completed(kind, path):
    few = {"a": 1, "b": ["x" * 5000], "c": None}
    files = make_old(kind, path / "DATA", few)
    program = f"""
        from flask_globalstate.stores import dbm_import, foreign

        STEPS_IN = (dbm_import.__file__, foreign.__file__)
        logging.disable()
        shutil.copytree(path, path + ".saved")

        def end_at(step):
            left = step

            def trace(frame, event, argument):
                nonlocal left
                if frame.f_code.co_filename not in STEPS_IN:
                    return None
                left -= 1
                if not left:
                    os._exit(9)
                return trace

            sys.settrace(trace)
            dict(open_state().dict("DATA"))

        def check():
            state = open_state()
            assert dict(state.dict("DATA")) == {few!r}
            assert state.store.names() == ["DATA"]
            state.close()
            left = {{name for name in os.listdir(path) if name != ".globalstate"}}
            assert left == {{"DATA", *{[file.name.replace("DATA", "DATA.backup") for file in files]!r}}}, left

        for step in itertools.count(1):
            shutil.rmtree(path)
            shutil.copytree(path + ".saved", path)
            code = in_child(lambda: end_at(step))
            assert code in (0, 9), code
            assert in_child(check) == 0, step
            if code == 0:
                break
        print(step)
    """
    (steps,) = with_module(kind, program, path)
    assert int(steps) > 50
    assert read_old(kind, path / "DATA.backup") == few


def test_a_backup_is_never_overwritten(path, open_state):
    for number in range(3):
        make_old("dbm.dumb", path / "DATA", {"a": number})
        state = open_state()
        assert dict(state.dict("DATA")) == {"a": number}
        state.close()
        (path / "DATA").unlink()
    for number, backup in enumerate(["DATA.backup", "DATA.backup1", "DATA.backup2"]):
        assert read_old("dbm.dumb", path / backup) == {"a": number}


def test_a_kind_whose_module_is_missing_is_an_error_that_names_it(kind, path, open_state, monkeypatch):
    files = make_old(kind, path / "DATA", OLD)
    before = [file.read_bytes() for file in files]
    monkeypatch.setitem(sys.modules, kind, None)
    monkeypatch.setattr(dbm_import.dbm, "ndbm", None, raising=False)
    state = open_state()
    data = state.dict("DATA")
    for act in (lambda: data.get("count"), lambda: data.update(a=1), state.store.names):
        with pytest.raises(MissingDependencyError, match=re.escape(kind)) as caught:
            act()
        assert str(path / "DATA") in str(caught.value)
    state.dict("OTHER")["a"] = 1
    assert [file.read_bytes() for file in files] == before


def test_a_damaged_shelf_of_another_kind_is_an_error_and_stays(path, open_state):
    make_old("dbm.dumb", path / "DATA", OLD)
    (path / "DATA.dir").write_bytes(b"'key', (1, 2\n")
    data = open_state().dict("DATA")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"dbm\.dumb"):
            data.get("a")
    assert (path / "DATA.dir").exists()
    assert not (path / "DATA").exists()


def test_two_shelves_of_one_name_are_an_error_and_both_stay(path, open_state):
    python_of("dbm.gnu")
    files = make_old("dbm.gnu", path / "DATA", {"gnu": 1}) + make_old("dbm.dumb", path / "DATA", {"dumb": 1})
    before = [file.read_bytes() for file in files]
    with pytest.raises(StoreUnavailableError, match="two shelves"):
        open_state().dict("DATA").get("a")
    assert [file.read_bytes() for file in files] == before


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE users (name)")
        connection.execute("INSERT INTO users VALUES ('Zoë')")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"hello"),
        lambda path: path.write_bytes(b"hello, world\n" * 1000),
        lambda path: path.write_bytes(bytes(range(256)) * 64),
        lambda path: path.write_bytes(b"SQLite format 3"),
        other_database,
    ],
    ids=["a few bytes", "a text", "many bytes", "a header that is cut", "another database"],
)
def test_a_file_that_is_no_shelf_is_an_error_and_not_touched(path, open_state, make):
    path.mkdir(0o700)
    make(path / "DATA")
    (path / "DATA").chmod(0o644)
    before = (path / "DATA").read_bytes()
    state = open_state()
    data = state.dict("DATA")
    for act in (lambda: data.get("a"), lambda: data.update(a=1), lambda: dict(data), data.clear):
        with pytest.raises(StoreUnavailableError, match="is not a shelf") as caught:
            act()
        assert str(path / "DATA") in str(caught.value)
    state.dict("OTHER")["a"] = 1
    assert state.store.names() == ["OTHER"]
    state.close()
    assert (path / "DATA").read_bytes() == before
    assert mode(path / "DATA") == 0o644
    assert {file.name for file in path.iterdir()} == {"DATA", "OTHER", ".globalstate"}
