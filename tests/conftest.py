"""What all tests share: a real Redis server, and a check that no test leaves anything behind."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flask_globalstate.stores.embedded import find_server

DEADLINE = 15
OURS = ("redis-server", "supervisor.py", "gunicorn")


def wait_until(condition: Callable[[], object], deadline: float = DEADLINE) -> bool:
    """Whether a condition came true in time."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis server on loopback."""
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    command = [
        find_server(None),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log) as server:
        try:
            with redis.Redis(port=port) as client:
                wait_until(lambda: server.poll() is not None or _answers(client))
            assert server.poll() is None, (folder / "log").read_text()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


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
