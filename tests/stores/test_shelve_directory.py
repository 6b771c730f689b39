"""The names and the directory of a shelve store: any text, rights, owners."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    GlobalState,
    StoreUnavailableError,
)
from flask_globalstate.stores.shelve.connections import file_name
from tests.support.standard import (
    LikeTheStandardLibrary,
    mode,
    read_settings,
)

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
