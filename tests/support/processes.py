"""The processes of a store, as /proc tells of them, and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.support import PATIENCE

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
    """The first true answer of ``condition``."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.01)
    return answer


def stays(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether ``condition`` is true all the time; the only wait here that is for time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that run."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split() if is_alive(int(child))]


def processes_in(folder: Path) -> dict[int, str]:
    """Every process that runs in ``folder`` or below it, with its command line."""
    found = {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            where = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
            if Path(where).is_relative_to(folder) and is_alive(int(entry)):
                found[int(entry)] = Path(f"/proc/{entry}/cmdline").read_text().replace("\0", " ")
    return found


def servers(path: Path) -> list[int]:
    """The servers of a STORE_PATH, of whatever product."""
    return [pid for pid, line in processes_in(path).items() if "-server" in line.split(" ")[0]]


def supervisors(path: Path) -> list[int]:
    """The supervisors of a STORE_PATH."""
    return [pid for pid, line in processes_in(path).items() if "supervisor.py" in line]


def the_server(path: Path) -> int:
    """The one redis-server of a STORE_PATH."""
    (pid,) = servers(path)
    return pid


def has_ended(path: Path) -> bool:
    """Whether an embedded store has left neither process, socket nor address."""
    return not (processes_in(path) or (path / "redis.sock").exists() or (path / "server.json").exists())


def end_now(path: Path) -> None:
    """End an embedded store that has no clients, without its time of grace."""
    for pid in supervisors(path):
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: has_ended(path), f"the end of the server of {path}")


def remove(path: Path) -> None:
    """Remove a directory though files are made in it meanwhile."""

    def is_gone() -> bool:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()

    wait_for(is_gone, f"the removal of {path}")


def starts(path: Path) -> int:
    """How many servers were ever up in a STORE_PATH."""
    return (path / "supervisor.log").read_text().count(" is up")


def log_of(path: Path) -> str:
    """What the supervisor of a STORE_PATH has written."""
    return (path / "supervisor.log").read_text()
