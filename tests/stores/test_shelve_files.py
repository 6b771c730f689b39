"""What is a shelve store's own: its files, and what other programs write there."""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    DecodingError,
    GlobalState,
    SignatureError,
)
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.shelve import ShelveStore, foreign
from flask_globalstate.system import seqcount_file
from tests.support.shelve_files import open_files
from tests.support.standard import (
    TIMEOUT,
    LikeTheStandardLibrary,
    TheStandardLibrary,
    mode,
    python_with,
    read_settings,
    run,
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


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *({"synchronous": value} for value in ("SOMETIMES", "full", "", None, 2, [])),
        *({"cache_size": value} for value in (0, -1, 1.5, "100", True)),
        *({"timeout": value} for value in (0, -1, "20", None, True, float("nan"), float("inf"))),
        {"unknown": 1},
    ],
    ids=repr,
)
def test_a_bad_option_is_a_configuration_error_that_names_it(path, options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError, match=name) as caught:
        GlobalState.from_config(read_settings(path, STORE_OPTIONS=options))
    assert name == "unknown" or repr(value) in str(caught.value)
    assert not path.exists()


SYNCS = """
import os, sys
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.shelve.file import OpenFile
from flask_globalstate.stores.shelve import ShelveStore
store = ShelveStore(sys.argv[1], synchronous=sys.argv[2])
one, several = [Write("A", "n", b"1i")], [Write(name, "n", b"1i") for name in "AB"]
for writes in (one, several, one, several):
    store.commit(writes)
os.getppid()
store.commit(one)
os.getppid()
store.commit(several)
os.getppid()
"""


@pytest.mark.parametrize(("synchronous", "least"), [("OFF", (0, 0)), ("NORMAL", (0, 0)), ("FULL", (1, 4))])
def test_a_commit_is_on_the_disk_before_it_returns_if_that_is_asked_for(tmp_path, synchronous, least):
    strace = shutil.which("strace")
    assert strace, "this test needs strace"
    trace = tmp_path / "trace"
    command = [
        strace,
        "-f",
        "-o",
        str(trace),
        sys.executable,
        "-c",
        SYNCS,
        str(tmp_path / "store"),
        synchronous,
    ]
    run(command)
    _, one, several, _ = re.split(r"getppid\(\).*\n", trace.read_text())
    for calls, number in zip((one, several), least, strict=True):
        syncs = len(re.findall(r"\bf(?:data)?sync\(", calls))
        assert syncs >= number if number else not syncs


# --- memory ---------------------------------------------------------------------------------------


VALUES, SIZE = 4096, 512 * 1024


READ_ALL = """
import sys
from flask_globalstate import GlobalState

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

state = GlobalState.from_config({
    "STORE_BACKEND": "shelve", "STORE_PATH": sys.argv[1], "STORE_OPTIONS": {"cache_size": 100}})
data = state.dict("DATA")
keys = list(data)
first = data[keys[0]][:10]
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # The highest so far is what it is now.
start = status("VmRSS:")
read = sum(len(data[key]) for key in keys)
print(read, (status("VmHWM:") - start) // 1024)
state.close()
"""


@pytest.mark.slow
def test_a_worker_that_reads_two_gigabytes_in_turn_keeps_little_of_them(path):
    state = GlobalState.from_config(read_settings(path, STORE_OPTIONS={"synchronous": "OFF"}))
    store: Any = state.store
    # Written once, and not to a log first.
    store._connections.options = store._connections.options._replace(journal="OFF")
    data = state.dict("DATA")
    value = bytes(range(256)) * (SIZE // 256)
    try:
        for first in range(0, VALUES, 64):
            data.update((str(number), value) for number in range(first, first + 64))
        state.close()
        read, more = map(int, run([sys.executable, "-c", READ_ALL, str(path)]).split())
    finally:
        shutil.rmtree(path)
    assert read == VALUES * SIZE == 2 * 1024**3
    assert more < 100


# --- threads, and other file systems --------------------------------------------------------------


def test_a_store_that_is_closed_by_one_thread_loses_nothing_of_another(path, state):
    hits, data = state.counter("HITS"), state.dict("DATA")
    stop = threading.Event()
    done: list[int] = []
    errors: list[BaseException] = []

    def count() -> None:
        try:
            while not stop.is_set():
                done.append(hits.increment())
                data[str(done[-1])] = done[-1]
                assert data[str(done[-1])] == done[-1]
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=count)
    writer.start()
    for _ in range(100):
        floor = len(done)
        state.store.close()
        assert hits.value >= floor
    stop.set()
    writer.join(TIMEOUT)
    assert errors == []
    assert hits.value == len(done) == done[-1]
    state.store.close()
    assert [file for file in open_files() if file.startswith(str(path)) and "seqcount" not in file] == []


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process believe that its directories are on a file system of another kind."""

    def believe(kind: str) -> None:
        device = tmp_path.stat().st_dev
        line = f"1 0 {os.major(device)}:{os.minor(device)} / / rw - {kind} none rw\n"
        (tmp_path / "mountinfo").write_text(line)
        monkeypatch.setattr(seqcount_file, "MOUNTS", tmp_path / "mountinfo")

    return believe


@pytest.mark.parametrize("made_on", ["nfs4", "ext4"])
def test_processes_that_may_share_no_memory_see_each_other(path, open_state, mount, made_on, caplog):
    mount(made_on)
    state = open_state()
    state.dict("DATA")["n"] = state.dict("OTHER")["n"] = -1
    state.close()
    mount("nfs4")  # The directory was moved there.
    states = [open_state(), open_state()]
    for number in range(3):
        for writer, reader in (states, states[::-1]):
            with writer.transaction():
                writer.dict("DATA")["n"] = writer.dict("OTHER")["n"] = number
            assert reader.dict("DATA")["n"] == reader.dict("OTHER")["n"] == number
            with reader.request():
                assert reader.dict("DATA")["n"] == number
            assert reader.store.watch("DATA") is None
    assert not list(path.glob("*-shm"))
    assert "network file system" in caplog.text


def test_a_store_that_is_never_closed_warns_of_nothing_when_it_is_forgotten(tmp_path: Path) -> None:
    store: Any = ShelveStore(tmp_path / "store")
    store.commit([Write("N", "a", b"1")])
    with warnings.catch_warnings(record=True) as warned:  # By Python 3.13 and later.
        warnings.simplefilter("always")
        del store
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
