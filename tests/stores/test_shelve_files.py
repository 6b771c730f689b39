"""What is a shelve store's own: its files, and what other programs write there."""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    DecodingError,
    GlobalState,
    SignatureError,
    StoreUnavailableError,
)
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.shelve import ShelveStore, foreign
from flask_globalstate.stores.shelve.connections import file_name
from flask_globalstate.system import seqcount_file
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


# --- names ----------------------------------------------------------------------------------------

ODD_NAMES = [
    *("a/b", "a%2Fb", "..", ".", "", "../up", "/etc/passwd", "A", "a", "name with space", "a\0b", "\n"),
    *("x" * 300, "x" * 299 + "y", "é", "e\u0301", "数", "🎉", "\udc80", "\x7f", "%", "%-", "%2E", "%2e"),
    *("DATA", "DATA.db", "DATA.dat", "DATA.dir", "DATA.bak", "DATA.pag", "DATA.new", "DATA.backup"),
    *("DATA.backup1", "DATA-wal", "DATA-shm", "DATA-journal", "-wal", ".db", "secret", "store", "redo"),
    *(".globalstate", ".hidden", "@default", "@other", "~", "$HOME", "con", "nul.", "x" * 60),
]


def test_every_name_is_a_file_of_its_own_inside_the_directory(tmp_path, path, open_state):
    for _ in range(2):
        state = open_state()
        for number, name in enumerate(ODD_NAMES):
            state.dict(name)["n"] = [name, number]
        state.close()
    state = open_state()
    assert sorted(state.store.names()) == sorted(ODD_NAMES)
    for number, name in enumerate(ODD_NAMES):
        assert dict(state.dict(name)) == {"n": [name, number]}
    state.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    files = {entry.name for entry in path.iterdir() if entry.is_file()}
    assert len(files) == len(ODD_NAMES)
    assert files == set(map(file_name, ODD_NAMES))
    assert {"DATA", "A", "a", "secret", "store"} <= files
    assert all(len(file) < 200 and file.isascii() for file in files)


def test_dropped_names_are_not_listed_and_have_existed(open_state):
    state = open_state()
    state.dict("DATA")["a"] = 1
    state.dict("OTHER")["a"] = 1
    state.store.drop("DATA")
    assert state.store.names() == ["OTHER"]
    state.close()
    state = open_state()
    assert state.store.names() == ["OTHER"]
    assert dict(state.dict("DATA", initial={"a": 1})) == {}


def test_states_live_side_by_side_in_one_directory(tmp_path, path, open_state):
    ids = ["default", "other", "..", "a/b", "@other", "globalstate"]
    for number, state_id in enumerate(ids):
        state = open_state(STORE_ID=state_id)
        state.dict("DATA").update(n=number)
        assert state.store.names() == ["DATA"]
    for number, state_id in enumerate(ids):
        assert dict(open_state(STORE_ID=state_id).dict("DATA")) == {"n": number}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert len(list(path.iterdir())) == len(ids) + 3  # DATA, its log, and what they share memory by.


def test_a_copy_of_a_file_is_not_taken_for_another_name(path, open_state):
    state = open_state()
    state.dict("DATA")["a"] = 1
    state.close()
    shutil.copy(path / "DATA", path / "COPY")
    state = open_state()
    assert state.store.names() == ["DATA"]
    with pytest.raises(StoreUnavailableError, match="another name"):
        state.dict("COPY").get("a")


# --- the directory --------------------------------------------------------------------------------


def test_directory_and_files_are_private_to_the_user(path, state):
    old = os.umask(0)
    try:
        with state.transaction():
            state.dict("DATA")["a"] = 1
            state.dict("OTHER")["a"] = "x" * 10_000
        state.dict("DATA")["a"] = 2
        open_files = {path / f"DATA{end}" for end in ("", "-wal", "-shm")}
        entries = set(path.rglob("*"))
        assert open_files <= entries
        for entry in entries | {path}:
            assert mode(entry) == (0o700 if entry.is_dir() else 0o600), entry
    finally:
        os.umask(old)


@pytest.mark.parametrize("opened", ["", ".globalstate"])
def test_a_directory_that_is_open_to_others_is_refused_before_anything(path, open_state, opened):
    state = open_state()
    state.dict("DATA")["a"] = 1
    state.close()
    LikeTheStandardLibrary().write(path / "FOREIGN", {"a": 1})
    (path / "FOREIGN").chmod(0o644)
    (path / opened).chmod(0o755)
    before = {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")}
    for act in (lambda state: state.open(), lambda state: state.dict("FOREIGN").get("a")):
        with pytest.raises(ConfigurationError, match="chmod 700"):
            act(open_state())
    assert {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")} == before
    assert mode(path / "FOREIGN") == 0o644
    (path / opened).chmod(0o700)
    assert dict(open_state().dict("DATA")) == {"a": 1}


@pytest.mark.parametrize("place", ["file", "below", "dangling", "proc"])
def test_a_path_that_cant_be_used_is_an_error_that_names_the_setting(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    paths = {
        "file": tmp_path / "file",
        "below": tmp_path / "file" / "store",
        "dangling": tmp_path / "dangling",
        "proc": Path("/proc/flask_globalstate"),
    }
    with pytest.raises(ConfigurationError, match="STORE_PATH"):
        GlobalState.from_config(read_settings(paths[place])).open()
    if place != "proc":  # Of which only mkdir tells that nothing can be made in it.
        with pytest.raises(ConfigurationError, match="STORE_PATH"):
            GlobalState.from_config(read_settings(paths[place])).store.check()


def in_child(act: Callable[[], Any], *, user: int | None = None) -> int:
    """The exit code of a child that does something, as another user if it is given and if we are root."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        if user is not None and os.geteuid() == 0:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        act()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


NOBODY = 65534


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A directory that another user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="flask_globalstate-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def test_a_directory_without_the_right_to_write_is_an_error(public_folder):
    path = public_folder / "shelves"

    def act() -> None:
        state = GlobalState.from_config(read_settings(path))
        state.dict("DATA")["a"] = 1
        state.close()
        path.chmod(0o500)
        # It was well configured once.
        for use in (lambda state: state.open(), lambda state: state.dict("DATA").get("a")):
            with pytest.raises(StoreUnavailableError, match="can't be written by user"):
                use(GlobalState.from_config(read_settings(path)))
        with pytest.raises(ConfigurationError, match="can't be written by user"):
            GlobalState.from_config(read_settings(path / "below"))
        path.chmod(0o700)

    assert in_child(act, user=NOBODY) == 0


def test_a_file_without_the_right_to_write_is_an_error_of_the_store(public_folder):
    path = public_folder / "shelves"

    def act() -> None:
        state = GlobalState.from_config(read_settings(path))
        state.dict("DATA")["a"] = 1
        state.close()
        (path / "DATA").chmod(0o400)
        state = GlobalState.from_config(read_settings(path))
        with pytest.raises(StoreUnavailableError, match="permissions"):
            state.dict("DATA")["a"] = 2
        (path / "DATA").chmod(0o000)
        with pytest.raises(StoreUnavailableError, match="permissions"):
            GlobalState.from_config(read_settings(path)).dict("DATA").get("a")
        (path / "DATA").chmod(0o600)
        assert dict(GlobalState.from_config(read_settings(path)).dict("DATA")) == {"a": 1}

    assert in_child(act, user=NOBODY) == 0


def test_a_directory_of_somebody_else_is_refused(public_folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory to somebody else")
    path = public_folder / "shelves"
    GlobalState.from_config(read_settings(path)).dict("DATA")["a"] = 1
    shutil.chown(path, NOBODY)
    with pytest.raises(ConfigurationError, match="belongs to user"):
        GlobalState.from_config(read_settings(path)).dict("DATA").get("a")


def test_a_directory_that_is_removed_in_use_is_an_error_and_stays_removed(path, state, open_state):
    data, other = state.dict("DATA"), state.dict("NEVER USED")
    data.update(a=1, b=2)
    assert data["a"] == 1
    shutil.rmtree(path)
    reads = [lambda: data["b"], lambda: other.get("a"), lambda: dict(data), state.store.names]
    writes = [lambda: data.update(a=1), lambda: other.update(a=1), lambda: data.increment("a"), data.clear]
    for act in [*reads, *writes] * 2:
        with pytest.raises(StoreUnavailableError, match="removed") as caught:
            act()
        assert str(path) in str(caught.value)
    assert not path.exists()
    fresh = open_state().dict("DATA")
    assert dict(fresh) == {}
    with pytest.raises(StoreUnavailableError, match="removed or replaced"):
        data["b"]


def test_a_child_of_a_process_whose_directory_was_removed_begins_with_no_other(path, state):
    data = state.dict("DATA")
    data["a"] = 1
    shutil.rmtree(path)

    def act() -> None:
        for use in (lambda: data.get("a"), lambda: data.update(a=2)):
            with pytest.raises(StoreUnavailableError, match="removed"):
                use()
        assert not path.exists()

    assert in_child(act) == 0


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_removed_or_replaced_in_use_is_an_error_as_long_as_the_process_lives(
    path, open_state, replaced
):
    first, second = open_state(), open_state()
    for state in (first, second):
        state.dict("DATA").update(a=1, b=2)
        state.dict("OTHER")["a"] = 1
    if replaced:
        shutil.copy(path / "DATA", path / "copy")
        os.replace(path / "copy", path / "DATA")
    else:
        for file in path.glob("DATA*"):
            file.unlink()
    acts: list[Callable[[Any], Any]] = [
        lambda data: data["new"],
        lambda data: data.update(a=1),
        lambda data: data.increment("a"),
        lambda data: data.clear(),
    ]
    for state, _ in itertools.product((first, second), range(3)):
        for act in acts:
            with pytest.raises(StoreUnavailableError, match="removed or replaced") as caught:
                act(state.dict("DATA"))
            assert str(path / "DATA") in str(caught.value)
        state.dict("OTHER")["a"] = 2
    assert (path / "DATA").exists() is replaced
    for state in (first, second):
        state.close()
    assert open_state().dict("DATA").get("a") == (1 if replaced else None)


@pytest.mark.parametrize("file", ["store", "seqcount", "lease"])
def test_a_newcomer_to_a_store_that_has_lost_a_file_says_so_and_makes_no_second(path, open_state, file):
    state = open_state()
    state.dict("DATA")["a"] = 1
    (path / ".globalstate" / file).unlink()
    with pytest.raises(StoreUnavailableError, match=r"removed|missing"):
        (open_state() if file != "lease" else state).dict("DATA").get("a")
    if file != "lease":
        state.dict("DATA")["a"] = 2
        assert not (path / ".globalstate" / file).exists()
    state.close()
    assert open_state().dict("DATA")["a"] == (1 if file == "lease" else 2)


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


def open_files() -> Iterator[str]:
    """The files that this process has open."""
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # The one by which this is read.
            yield os.readlink(f"/proc/self/fd/{number}")


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
