"""Processes that stand still or lack something for a while, and a disk that can be filled."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import wait_for

from .gunicorns import end

#: has room for a log of 4 MiB beside each shelf
SMALL_DISK = 64 << 20


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes stand still meanwhile."""
    for pid in pids:
        end(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            end(pid, signal.SIGCONT)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A place for a store that can be filled; a disk of its own where we may mount one."""
    folder.mkdir()
    options = f"size={SMALL_DISK},mode=700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, check=False
    )
    try:
        yield folder
    finally:
        if mounted.returncode == 0:
            wait_for(lambda: _unmounted(folder), f"an end to the use of {folder}")


def _unmounted(folder: Path) -> bool:
    return subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def limited(pids: list[int], which: int, limit: int) -> Iterator[None]:
    """Processes have a lower limit meanwhile."""
    before = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            before[pid] = resource.prlimit(pid, which)
            resource.prlimit(pid, which, (limit, before[pid][1]))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, which, limits)
