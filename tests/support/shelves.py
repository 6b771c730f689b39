"""Processes on one directory of shelves."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flask_globalstate import GlobalState
from flask_globalstate.stores.shelve import ShelveStore
from tests.support import PATIENCE

fork = multiprocessing.get_context("fork")


NAMES = ("A", "B", "C")


def open_store(path: Path, **options: Any) -> ShelveStore:
    """A worker's store, which waits for as long as a loaded machine may need."""
    return ShelveStore(path, **{"timeout": PATIENCE, **options})


def open_state(path: Path, **options: Any) -> GlobalState:
    """A worker's state, in which each read is checked."""
    options = {"timeout": PATIENCE, **options}
    return GlobalState.from_config(
        {"STORE_BACKEND": "shelve", "STORE_PATH": path, "STORE_SYNC": "read", "STORE_OPTIONS": options}
    )


@contextlib.contextmanager
def opened(path: Path, **options: Any) -> Iterator[ShelveStore]:
    """A store that is closed again."""
    store = open_store(path, **options)
    try:
        yield store
    finally:
        store.close()


def start(act: Callable[..., Any], *arguments: Any, fork: Callable[[], int] = os.fork) -> int:
    """The pid of a child that does something and ends."""
    sys.stdout.flush()
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        act(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def end(pid: int) -> int:
    """The exit code of a child, which must come."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("a child did not end")
        time.sleep(0.001)
