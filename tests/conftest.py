"""What all tests share: a real Redis server, and a check that no test leaves anything behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer

DEADLINE = 15
OURS = ("redis-server", "valkey-server", "supervisor.py", "gunicorn")


def wait_until(condition: Callable[[], object], deadline: float = DEADLINE) -> bool:
    """Whether a condition came true in time."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Gives a Redis server of the test's own, with the options that it is called with."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis server on loopback, which all tests share: never flush it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


def left_behind(folder: Path) -> list[str]:
    """The processes of ours that live in a folder of the tests."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = os.readlink(entry / "cwd")
        except OSError:
            continue  # It has ended, or is a zombie.
        if str(folder) in command + place and any(name in command for name in OURS):
            found.append(f"{entry.name}: {command}")
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session if a server or a worker of a test is still there."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is None:
        return
    folder = factory.getbasetemp()
    if not wait_until(lambda: not left_behind(folder)):
        print("\nleft behind by the tests:", *left_behind(folder), sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
