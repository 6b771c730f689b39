"""What all tests share: their order, a real Redis server, and a check that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.processes import wait_for
from tests.support.redis_server import RedisServer

HERE = Path(__file__).parent
#: folders whose tests take their time; elsewhere a test or a file says so itself
SLOW = {"integration", "faults", "demo", "libraries"}
# A loaded machine may take any time. The same examples in each run; with FUZZ=1 others.
settings.register_profile(
    "patient",
    deadline=None,
    derandomize=not os.environ.get("FUZZ"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")
OURS = ("redis-server", "valkey-server", "supervisor.py", "gunicorn")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the folders of slow tests, and let all slow tests run last."""
    for item in items:
        if item.path.relative_to(HERE).parts[0] in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_at_the_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the last test if a process of any test is still there, or a file outside of its directory.

    What is made in the directory of temporary files is made in one of our own, which must be empty then.
    """
    folder = tmp_path_factory.getbasetemp()
    outside = Path(tempfile.mkdtemp(prefix="globalstate."))
    # Any user may enter it and write there, as in /tmp.
    outside.chmod(0o1777)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(outside))
        patch.setattr(tempfile, "tempdir", None)
        yield
    try:
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not left_behind(folder, outside), "the end of all that tests have begun")
        assert left_behind(folder, outside) == []
    finally:
        shutil.rmtree(outside, ignore_errors=True)


def left_behind(folder: Path, outside: Path) -> list[str]:
    """The processes of ours that live in the directories of the tests, and what lies outside of them."""
    found = [str(path) for path in outside.iterdir()]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = os.readlink(entry / "cwd")
        except OSError:
            continue  # It has ended, or is a zombie.
        ours = any(str(parent) in command + place for parent in (folder, outside))
        if ours and any(name in command for name in OURS):
            found.append(f"{entry.name}: {command}")
    return found


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
def redis_url(tmp_path_factory: pytest.TempPathFactory, nothing_left_at_the_end: None) -> Iterator[str]:
    """The URL of a real Redis server on loopback, which all tests share: never flush it.

    It names the check at the end, so that pytest before 8.1 too ends the server before that.
    """
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()
