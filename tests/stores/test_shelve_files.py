"""What is a shelve store's own: its files, and what other programs write there."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import DecodingError, GlobalState, SignatureError
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.shelve import ShelveStore, foreign
from tests.support.standard import (
    LikeTheStandardLibrary,
    TheStandardLibrary,
    mode,
    python_with,
    read_settings,
)

PYTHON_313 = python_with("dbm.sqlite3")
STANDARD = {"statements": LikeTheStandardLibrary()}
if PYTHON_313 is not None:
    STANDARD["shelve.open"] = TheStandardLibrary(PYTHON_313)  # type: ignore[assignment]


@pytest.fixture(params=STANDARD)
def standard(request: pytest.FixtureRequest) -> LikeTheStandardLibrary:
    """Another program that uses the same files."""
    return STANDARD[request.param]


CONTENT: dict[str, Any] = {
    "a": "text",
    "b": 5,
    "negative": -(2**70),
    "huge": 2**9000,
    "nested": {"list": [1, (2, None)], "set": {1}},
    "none": None,
    "truth": True,
    "float": 1.5,
    "bytes": b"\0.i",
    "Zoë 数": "",
    "": [],
}


def test_the_standard_library_reads_what_was_written(state, path, standard):
    data = state.dict("DATA")
    data.update(CONTENT)
    for _ in range(3):
        data.increment("b")
        data.increment("new", -7)
    data["nested"]["list"].append(3)
    data["gone"] = 1
    del data["gone"]
    state.close()
    expected = {**CONTENT, "b": 8, "new": -21, "nested": {"list": [1, (2, None), 3], "set": {1}}}
    assert standard.read(path / "DATA") == expected


def test_the_standard_library_reads_keys_of_other_types_by_their_key_strings(state, path, standard):
    state.dict("DATA").update({b"\xff": "bytes", 1: "int", (1, "a"): "tuple", None: "None"})
    state.counter("HITS").increment(3)
    state.close()
    assert standard.read(path / "DATA") == {
        "\0bff": "bytes",
        "\0i1": "int",
        "\0t2:i12:sa": "tuple",
        "\0n": "None",
    }
    assert standard.read(path / "HITS") == {"": 3}


def test_what_was_written_is_read_by_the_standard_library_also_while_it_is_in_use(state, path, standard):
    state.dict("DATA").update(CONTENT)
    assert standard.read(path / "DATA") == CONTENT
    state.dict("DATA")["b"] = 6
    assert standard.read(path / "DATA")["b"] == state.dict("DATA")["b"] == 6


def test_a_file_that_another_program_has_made_is_taken_over(open_state, path, standard, caplog):
    path.mkdir(0o700)
    standard.write(path / "DATA", CONTENT)
    (path / "DATA").chmod(0o644)
    state = open_state()
    data = state.dict("DATA", initial={"never": "committed"})
    with caplog.at_level(logging.WARNING, "flask_globalstate"):
        assert dict(data) == CONTENT
    assert list(data) == list(CONTENT)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"took over {len(CONTENT)} entries" in message
    assert str(path / "DATA") in message
    assert mode(path / "DATA") == 0o600
    assert state.store.names() == ["DATA"]
    assert data.increment("b") == 6
    assert_signed(state, "DATA")
    state.close()
    assert standard.read(path / "DATA") == {**CONTENT, "b": 6}


def test_what_another_program_has_changed_is_taken_over_at_the_next_open(open_state, path, standard, caplog):
    state = open_state()
    state.dict("DATA").update(CONTENT, count=1, gone=1, replaced="old")
    state.close()
    standard.write(path / "DATA", {"count": 10, "replaced": ["new"], "made": {}}, removed=("gone",))
    before = state_revision(path)
    with caplog.at_level(logging.WARNING, "flask_globalstate"):
        data = (state := open_state()).dict("DATA")
        expected = {**CONTENT, "count": 10, "replaced": ["new"], "made": {}}
        assert dict(data) == expected
    assert "took over 4 entries" in caplog.text
    assert state.store.revision("DATA").number > before
    assert data.increment("count") == 11
    assert_signed(state, "DATA")
    data["gone"] = "again"
    state.close()
    assert standard.read(path / "DATA") == {**expected, "count": 11, "gone": "again"}
    caplog.clear()
    assert dict(open_state().dict("DATA")) == {**expected, "count": 11, "gone": "again"}
    assert caplog.text == ""


def test_a_file_that_another_program_has_replaced_by_a_new_one_is_taken_over(open_state, path, standard):
    state = open_state()
    state.dict("DATA").update(old=1, b=2)
    revision = state.store.revision("DATA")
    state.close()
    (path / "DATA").unlink()
    standard.write(path / "DATA", {"b": 3})
    state = open_state()
    assert dict(state.dict("DATA")) == {"b": 3}
    assert state.store.revision("DATA").number > revision.number


def test_a_shelf_that_another_program_has_left_empty_counts_as_never_written(open_state, path, standard):
    path.mkdir(0o700)
    standard.write(path / "DATA", {})
    assert dict(open_state().dict("DATA", initial={"a": 1})) == {"a": 1}


def test_what_another_program_has_emptied_stays_empty(open_state, path, standard):
    open_state().dict("DATA").update(a=1, b=2)
    open_state().close()
    standard.write(path / "DATA", {}, removed=("a", "b"))
    state = open_state()
    assert dict(state.dict("DATA", initial={"a": 1})) == {}


def test_what_cant_be_unpickled_breaks_only_its_key(open_state, path, caplog):
    path.mkdir(0o700)
    LikeTheStandardLibrary().write(path / "DATA", {"a": 1, "b": [2]})
    with closing(LikeTheStandardLibrary.connect(path / "DATA")) as connection:
        for key, value in {"class": b"cno_such_module\nC\n.", "junk": b"junk.", "i": b"5i", "e": b""}.items():
            connection.execute("REPLACE INTO Dict VALUES (?, ?)", (key.encode(), value))
    state = open_state()
    data = state.dict("DATA")
    assert (data["a"], data["b"], data.increment("a")) == (1, [2], 2)
    for key in ("class", "junk", "i", "e"):
        with pytest.raises(DecodingError):
            data[key]
    data["class"] = data["junk"] = "good"
    del data["i"], data["e"]
    assert dict(data) == {"a": 2, "b": [2], "class": "good", "junk": "good"}
    assert "can't be read" in caplog.text


def test_keys_that_shelve_doesnt_write_are_left_alone(open_state, path, caplog):
    path.mkdir(0o700)
    LikeTheStandardLibrary().write(path / "DATA", {"a": 1})
    with closing(LikeTheStandardLibrary.connect(path / "DATA")) as connection:
        connection.execute("INSERT INTO Dict VALUES (x'ff', x'ff'), ('text', 'text')")
    for _ in range(2):
        state = open_state()
        assert dict(state.dict("DATA")) == {"a": 1}
        assert len(state.dict("DATA")) == 1
        state.close()
    assert caplog.text.count("left alone") == 2
    with closing(LikeTheStandardLibrary.connect(path / "DATA")) as connection:
        assert connection.execute("SELECT count(*) FROM Dict").fetchone() == (3,)


def test_foreign_values_become_json_where_that_is_the_encoding(open_state, path, standard):
    path.mkdir(0o700)
    standard.write(path / "DATA", {"a": 1, "b": [None, "x"], "c": {1}})
    state = open_state(STORE_ENCODING="json")
    data = state.dict("DATA")
    assert (data["a"], data["b"], data.increment("a")) == (1, [None, "x"], 2)
    with pytest.raises(DecodingError):
        data["c"]
    assert state.store.fetch("DATA", ["b"]).entries["b"].data == b'[null,"x"]e'


def test_what_is_foreign_is_taken_over_in_pieces_and_in_its_order(open_state, path, monkeypatch, standard):
    monkeypatch.setattr(foreign, "BYTES_AT_ONCE", 1000)
    path.mkdir(0o700)
    content = {str(number): "x" * 300 for number in range(50, 0, -1)}
    standard.write(path / "DATA", content)
    state = open_state()
    assert list(state.dict("DATA").items()) == list(content.items())
    assert state.store.revision("DATA").number > 10


def test_a_store_without_a_secret_takes_nothing_over(path, standard):
    path.mkdir(0o700)
    standard.write(path / "DATA", {"a": 1})
    store = ShelveStore(path)
    assert store.fetch("DATA").entries == {}
    store.commit([Write("DATA", "b", b"2i")])
    assert list(store.fetch("DATA").entries) == ["b"]
    store.close()
    state = GlobalState.from_config(read_settings(path))
    assert dict(state.dict("DATA")) == {"b": 2, "a": 1}
    state.close()


def test_a_value_cant_be_moved_to_another_key_or_name_by_another_program(open_state, path):
    state = open_state()
    state.dict("DATA").update(a="secret of a", b="of b")
    state.close()
    with closing(sqlite3.connect(path / "DATA")) as connection, connection:
        (value,) = connection.execute("SELECT value FROM Dict WHERE key = CAST('a' AS BLOB)").fetchone()
        connection.execute("UPDATE Dict SET value = ? WHERE key = CAST('b' AS BLOB)", (value,))
    data = open_state().dict("DATA")
    with pytest.raises(SignatureError):
        data["b"]
    assert data["a"] == "secret of a"


def assert_signed(state: GlobalState, name: str) -> None:
    """Every entry is an integer in clear, or bears a signature."""
    for entry in state.store.fetch(name).entries.values():
        assert entry.data[-1:] in (b"i", b"s")


def state_revision(path: Path) -> int:
    """The number of the last commit, as the file of the store has it."""
    return int((path / ".globalstate" / "store").read_text().split()[2])
