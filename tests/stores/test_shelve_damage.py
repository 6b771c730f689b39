"""Shelves that are damaged, and commits to them that fail in the middle."""

from __future__ import annotations

import functools
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState, GlobalStateError, StoreUnavailableError, UnsupportedOperationError
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.shelve import redo
from flask_globalstate.stores.shelve.file import OpenFile
from tests.support.shelve_files import damages
from tests.support.standard import TIMEOUT, read_settings


class FullDisk:
    """Lets the n-th write into a file fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.left = 0
        apply = OpenFile.apply

        def full(*arguments: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise error
            apply(*arguments)

        monkeypatch.setattr(OpenFile, "apply", full)


ERRORS = {
    "full": (sqlite3.OperationalError("database or disk is full"), StoreUnavailableError),
    "too large": (sqlite3.DataError("string or blob too big"), UnsupportedOperationError),
    "system": (OSError(5, "Input/output error"), StoreUnavailableError),
    "interrupt": (KeyboardInterrupt(), KeyboardInterrupt),
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_commit_over_several_names_that_fails_at_once_has_done_nothing(path, state, monkeypatch, error):
    raised, expected = ERRORS[error]
    one, two = state.dict("ONE"), state.dict("TWO")
    one["n"] = two["n"] = 1
    disk = FullDisk(monkeypatch, raised)
    disk.left = 1
    with pytest.raises(expected), state.transaction():
        one["n"] = two["n"] = 2
    assert (one["n"], two["n"]) == (1, 1)
    assert not (path / ".globalstate" / "redo").exists()
    one["n"] = 3
    assert (one["n"], two["n"]) == (3, 1)


@pytest.mark.parametrize("error", ERRORS)
def test_a_commit_over_several_names_that_fails_in_the_middle_is_finished_before_anything_else(
    path, state, monkeypatch, error
):
    raised, expected = ERRORS[error]
    one, two = state.dict("ONE"), state.dict("TWO")
    one["n"] = two["n"] = 1
    disk = FullDisk(monkeypatch, raised)
    disk.left = 2
    with pytest.raises(expected), state.transaction():
        one["n"] = two["n"] = 2
    assert (path / ".globalstate" / "redo").exists()
    assert (two["n"], one["n"]) == (2, 2)
    assert not (path / ".globalstate" / "redo").exists()


def test_a_value_that_sqlite_cant_hold_is_refused_before_anything(path, state, monkeypatch):
    store = state.store
    store.commit([Write("ONE", "n", b"1i"), Write("TWO", "n", b"1i")])
    before = [store.revision("ONE"), store.revision("TWO")]
    too_large = bytes(redo.LARGEST)  # Zeros, which cost no memory until they are read.
    for writes in (
        [Write("ONE", "n", too_large)],
        [Write("ONE", "n", b"2i"), Write("TWO", "n", too_large)],
    ):
        with pytest.raises(UnsupportedOperationError, match="999999000 bytes"):
            store.commit(writes)
    assert [store.revision("ONE"), store.revision("TWO")] == before
    assert store.fetch("ONE").entries["n"].data == b"1i"


def test_what_is_almost_too_large_fits(state, monkeypatch):
    """Whatever SQLite's limit is, a row takes no more than what is left for it around key and value."""
    store: Any = state.store
    store.commit([Write("ONE", "n", b"1i")])
    with store._connections.open("ONE") as shelf:
        shelf.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
    monkeypatch.setattr(redo, "LARGEST", 100_000 - 1000)
    key = "k" * 40_000
    largest = redo.LARGEST - len(key)
    store.commit([Write("ONE", key, b"x" * (largest - 1) + b"e")])
    assert len(store.fetch("ONE", [key]).entries[key].data) == largest
    monkeypatch.setattr(redo, "LARGEST", 10**9)
    with pytest.raises(UnsupportedOperationError):
        store.commit([Write("ONE", key, b"x" * 100_000)])
    assert len(store.fetch("ONE", [key]).entries[key].data) == largest


#: what was committed, one after the other
STATES: list[dict[str, Any]] = [
    {},
    {f"text {n}": f"value {n} " * 20 for n in range(30)} | {f"number {n}": n * 1111 for n in range(30)},
]


STATES.append({**STATES[-1], "number 3": 4, "nested": [1, {"a": None}]})


STATES.append({**STATES[-1], "page": "x" * 9000})


STATES.append({key: value for key, value in STATES[-1].items() if key != "page"})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of which the last commits are in the log still, as its processes were killed."""
    path, copy = (tmp_path_factory.mktemp("damage") / name for name in ("shelves", "saved"))
    state = GlobalState.from_config(read_settings(path))
    data = state.dict("DATA")
    data.update(STATES[1])
    state.close()
    state = GlobalState.from_config(read_settings(path))
    data = state.dict("DATA")
    data.update({key: STATES[2][key] for key in ("number 3", "nested")})
    data["page"] = STATES[3]["page"]
    del data["page"]
    shutil.copytree(path, copy)
    state.close()
    return copy


#: after the loss of the log the last commits are lost, as after a power failure; else nothing may be
FILES = {
    "DATA": (250, STATES[-1:]),
    "DATA-wal": (120, STATES[1:]),
    "DATA-shm": (30, STATES[-1:]),
    ".globalstate/store": (40, STATES[-1:]),
    ".globalstate/seqcount": (40, STATES[-1:]),
    ".globalstate/secret": (30, STATES[-1:]),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_gives_what_was_committed_or_an_error_of_ours(tmp_path, path, saved, file):
    count, allowed = FILES[file]
    outcomes = {True: 0, False: 0}
    origin = tmp_path / "origin"
    shutil.copytree(saved, origin)
    if file == "DATA":
        bring_in_the_log(origin)  # Which would hide what is in the file.
    for content in damages((origin / file).read_bytes(), count):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(origin, path)
        (path / file).write_bytes(content)
        use_damaged(path, allowed, outcomes)
    assert outcomes[True] > 0


def bring_in_the_log(path: Path) -> None:
    with closing(sqlite3.connect(path / "DATA")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def use_damaged(path: Path, allowed: list[dict[str, Any]], outcomes: dict[bool, int]) -> None:
    """Read all that there is in each way, and write."""
    state = GlobalState.from_config(
        read_settings(path, STORE_OPTIONS={"timeout": TIMEOUT, "synchronous": "OFF"})
    )
    data = state.dict("DATA")
    reads = [functools.partial(read_one, data, key) for key in sorted(STATES[3])]
    reads += [lambda: list(data), lambda: dict(data), lambda: state.store.names()]
    wanted: list[Any] = [[each.get(key) for each in allowed] for key in sorted(STATES[3])]
    wanted += [[list(each) for each in allowed], allowed, [["DATA"]]]
    for read, answers in zip(reads, wanted, strict=True):
        outcomes[is_right(read, answers)] += 1
    for write in (
        lambda: data.update(new=1),
        lambda: data.pop("text 1"),
        lambda: data.increment("number 5"),
        data.clear,
    ):
        with suppress(GlobalStateError, KeyError):
            write()
    with suppress(GlobalStateError):
        state.close()


def read_one(data: Any, key: str) -> Any:
    return data.get(key)


def is_right(read: Callable[[], Any], answers: list[Any]) -> bool:
    """Whether an answer is one of those that are right; an error of ours is no answer."""
    try:
        answer = read()
    except GlobalStateError:
        return False
    assert answer in answers
    return True


@pytest.mark.parametrize("place", ["1", "1000", "NULL", "'1'", "x'01'", "1.5"])
def test_a_damaged_order_of_the_keys_is_an_error(path: Path, place: str) -> None:
    state = GlobalState.from_config(read_settings(path))
    state.dict("DATA").update(a=1, b=2, c=3)
    state.close()
    with closing(sqlite3.connect(path / "DATA", isolation_level=None)) as connection:
        connection.execute(f"UPDATE globalstate_entry SET created = {place} WHERE key = x'63'")
    reader = GlobalState.from_config(read_settings(path))
    data = reader.dict("DATA")
    for read in (dict, list):
        with pytest.raises(StoreUnavailableError, match="order"):
            read(data)
    assert data["c"] == 3
    reader.close()
