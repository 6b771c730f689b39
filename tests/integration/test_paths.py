"""Stores under unusual paths, read-only ones, and ones that are removed in use."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_globalstate.errors import ConfigurationError, StoreUnavailableError
from tests.support import PATIENCE
from tests.support.actors import open_state
from tests.support.harness import Crowd
from tests.support.processes import (
    end_now,
    has_ended,
    processes_in,
    remove,
    servers,
    starts,
    supervisors,
    wait_for,
)

# --- unusual paths ------------------------------------------------------------------------------


@pytest.fixture(params=["long", "odd", "tmpfs"])
def unusual_path(request, tmp_path) -> Iterator[Path]:
    """A STORE_PATH that is not made yet."""
    if request.param == "long":
        path = tmp_path.joinpath(*["a directory " + "x" * 40] * 5)
        assert len(os.fsencode(path)) > 200
        yield path
    elif request.param == "odd":
        yield tmp_path / 'Daten von Jürgen\'s 数据 — 100% $HOME "a"' / "store"
    else:
        # Linux has one; elsewhere any other directory is as good.
        shared = Path("/dev/shm")
        folder = (shared if os.access(shared, os.W_OK) else tmp_path) / f"flask_globalstate-{os.getpid()}"
        try:
            yield folder / "store"
        finally:
            wait_for(lambda: not processes_in(folder), f"the end of every process in {folder}")
            shutil.rmtree(folder)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of the package."""
    return subprocess.run(
        [sys.executable, "-m", "flask_globalstate", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_store_works_under_an_unusual_path(unusual_path):
    path = unusual_path
    with Crowd("newcomer", 3, path=str(path), grace=10) as crowd:
        crowd.start()
        answers = crowd.hear()
        assert len({epoch for _, epoch in answers}) == 1
        assert (len(servers(path)), len(supervisors(path)), starts(path)) == (1, 1, 1)
        crowd.say()
        assert crowd.join() == [["0", "1", "2"]] * 3
    end_now(path)
    state = open_state(str(path))
    try:
        assert state.counter("COUNT").value == 60
    finally:
        state.close()
    end_now(path)


def test_the_command_line_works_under_an_unusual_path(unusual_path):
    path = unusual_path
    with Crowd("client", 1, path=str(path), grace=10) as crowd:
        crowd.start()
        assert crowd.hear() == [1]
        (server,) = servers(path)
        answer = command("status", "--path", str(path))
        assert answer.returncode == 0, answer.stderr
        assert str(server) in answer.stdout
        refused = command("stop", "--path", str(path))
        assert "has clients" in refused.stderr
        assert servers(path) == [server]
        crowd.processes[0].stdin.close()
        crowd.processes[0].wait(PATIENCE)
        answer = command("stop", "--path", str(path))
        assert answer.returncode == 0, answer.stderr
        assert has_ended(path)


@pytest.fixture
def read_only_folder(tmp_path) -> Iterator[Path]:
    """A directory of ours in which nothing can be made, not even by root."""
    folder = tmp_path / "read only"
    folder.mkdir(0o700)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        yield Path("/proc")  # A root without the right to mount.


def refusals(path: Path) -> list[str]:
    """How a state under a path is refused, in each way to come to it first."""
    texts = []
    for use in (
        lambda state: state.open(),
        lambda state: state.counter("COUNT").increment(),
        lambda state: state.dict("DATA").get("a"),
        lambda state: state.store.secret(),
        lambda state: state.store.open(),
    ):
        with pytest.raises(ConfigurationError) as caught:
            use(open_state(str(path)))
        texts.append(str(caught.value))
    return texts


def test_a_read_only_path_is_an_error_that_names_the_setting(read_only_folder):
    for path in (read_only_folder / "store", read_only_folder / "below" / "store"):
        for text in refusals(path):
            assert "STORE_PATH" in text
            assert str(path) in text
        assert not path.exists()


def test_a_path_that_nobody_can_make_is_an_error_that_names_the_setting():
    # /proc lets nobody make a directory, whatever its permissions say.
    path = Path("/proc/flask_globalstate")
    for text in refusals(path):
        assert "STORE_PATH" in text
        assert str(path) in text


# --- a directory that is removed ----------------------------------------------------------------


def test_a_store_that_is_removed_in_use_says_so_and_ends(tmp_path):
    path = tmp_path / "store"
    with (
        Crowd("user_of_a_removed_store", 2, path=str(path), writes=True) as writers,
        Crowd("user_of_a_removed_store", 2, path=str(path), writes=False) as readers,
    ):
        for crowd in (writers, readers):
            crowd.start()
            crowd.hear()
        pids = servers(path) + supervisors(path)
        assert len(pids) == 2
        for crowd in (writers, readers):
            crowd.say()
        remove(path)
        wait_for(lambda: not {*servers(path), *supervisors(path)}, "the end of server and supervisor")
        for crowd, _ in itertools.product((writers, readers), range(5)):
            for kind, text in crowd.hear():
                assert kind == "StoreUnavailableError", text
                assert "removed" in text
                assert str(path) in text
        assert not path.exists()
        for crowd in (writers, readers):
            crowd.say()
            crowd.join()
    assert not path.exists()
    assert not processes_in(tmp_path)

    # A new start is what the error advises.
    state = open_state(str(path))
    try:
        assert state.counter("COUNT").increment() == 1
    finally:
        state.close()
    end_now(path)


def test_a_child_of_a_process_whose_store_was_removed_begins_with_no_other(tmp_path):
    path = tmp_path / "store"
    state = open_state(str(path))
    try:
        assert state.counter("COUNT").increment() == 1
        shutil.rmtree(path)
        pid = os.fork()
        if pid == 0:
            try:
                state.counter("COUNT").increment()
            except StoreUnavailableError as error:
                os._exit(0 if "removed" in str(error) and not path.exists() else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        state.close()
    wait_for(lambda: not processes_in(tmp_path), "the end of the server")


def test_a_store_that_is_replaced_in_use_is_not_taken_for_the_old_one(tmp_path):
    path = tmp_path / "store"
    old, new = open_state(str(path)), None
    try:
        assert old.counter("COUNT").increment() == 1
        path.rename(tmp_path / "elsewhere")
        new = open_state(str(path))
        assert new.counter("COUNT").increment() == 1

        def refusal() -> str:
            try:
                old.counter("COUNT").increment()
            except StoreUnavailableError as error:
                return str(error)
            return ""

        assert "removed or replaced" in wait_for(refusal, "an error in the client of the old store")
        assert new.counter("COUNT").value == 1
    finally:
        for state in (old, new):
            if state is not None:
                state.close()
    end_now(path)
    wait_for(lambda: not processes_in(tmp_path), "the end of the old server")
