"""Connections to the server of the application's own, which is started if there is none."""

from __future__ import annotations

import logging
import time
from typing import Any

from ...errors import StoreUnavailableError
from ..commit_watch import CommitWatch
from ..redis.session import Session, Sessions
from .server import EmbeddedServer

logger = logging.getLogger("flask_globalstate")

SEQCOUNT_KEY = b"flask_globalstate:seqcount"


class EmbeddedSessions(Sessions):
    """The sessions of one process with its embedded server.

    :param server: what starts it.
    :param timeout: seconds to wait for it to start or to answer.
    :param watch: counts commits in the seqcount that the server names.
    """

    def __init__(
        self,
        redis: Any,
        label: str,
        state_id: str,
        server: EmbeddedServer,
        timeout: float,
        watch: CommitWatch,
    ) -> None:
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        settings = {"socket_timeout": timeout, "protocol": 2, "retry": retry}
        super().__init__(redis, label, state_id, redis.UnixDomainSocketConnection, settings, retries=5)
        self._server = server
        self._timeout = timeout
        self._watch = watch

    def address(self) -> str:
        return str(self._server.directory.path)

    def open(self) -> Session:
        deadline = time.monotonic() + self._timeout
        while True:
            self._server.ensure()
            try:
                return self._map_seqcount(super().open())
            except StoreUnavailableError as error:
                # It died between our question and our connection; its supervisor starts it again.
                is_lost = isinstance(error.__cause__, self.redis.ConnectionError)
                if not is_lost or time.monotonic() > deadline:
                    raise

    def make_connection(self) -> Any:
        # Where the socket is, is known only once there is a lease.
        return self._connection_class(path=self._server.socket_path(), **self._settings)

    def _map_seqcount(self, session: Session) -> Session:
        try:
            with self.errors():
                identity = session.ask("GET", SEQCOUNT_KEY)
            self._use_seqcount("none" if identity is None else identity.decode())
        except BaseException:
            session.close()
            raise
        return session

    def _use_seqcount(self, identity: str) -> None:
        if self._watch.use(identity):
            logger.warning(
                "%s is on a network file system, where processes may not share memory: each sync asks the "
                "server, which costs a round trip",
                self._server.directory.path,
            )

    def unavailable(self, error: Exception) -> StoreUnavailableError:
        unavailable = super().unavailable(error)
        if "MISCONF" not in str(error):
            return unavailable
        return StoreUnavailableError(
            f"{unavailable}. The server can't write to its disk, and takes no writes until it can: free some "
            f"space on the file system of {self.address()}; nothing needs to be restarted"
        )

    def advice(self) -> str:
        return "see redis.log and supervisor.log there"
