"""Connections to the server of the application's own, which is started if there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...errors import StoreUnavailableError
from ..redis.session import Session, Sessions
from .server import EmbeddedServer

SEQCOUNT_KEY = b"flask_globalstate:seqcount"


class EmbeddedSessions(Sessions):
    """The sessions of one process with its embedded server.

    :param server: what starts it.
    :param timeout: seconds to wait for it to start or to answer.
    :param use_seqcount: called with the id of the seqcount that a server counts in, at each connection.
    :param current_slot: called before each write: gives the slot of this process, and the name that its
        connections bear for it; None where nothing is counted.
    """

    def __init__(
        self,
        redis: Any,
        label: str,
        server: EmbeddedServer,
        timeout: float,
        use_seqcount: Callable[[str], None],
        current_slot: Callable[[], tuple[int, str] | None],
    ) -> None:
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        settings = {"socket_timeout": timeout, "protocol": 2, "retry": retry}
        super().__init__(redis, label, redis.UnixDomainSocketConnection, settings, retries=5)
        self._server = server
        self._timeout = timeout
        self._use_seqcount = use_seqcount
        self._current_slot = current_slot

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

    def prepare_to_write(self, session: Session) -> None:
        current = self._current_slot()
        # Answered before the first commit: whoever mends our slot finds every connection of ours.
        if current is not None and session.named_for != current[0]:
            with self.errors(keep_connection_errors=True):
                session.ask("CLIENT", "SETNAME", current[1])
            session.named_for = current[0]

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
