"""Looking at an embedded server that runs: nothing is started, and no lease keeps it from ending."""

from __future__ import annotations

from typing import Any, NoReturn

from ...system.files import OpenFolder
from ..redis.store import RedisStore, Session
from .store import RedisliteStore


class RedisliteSpectator(RedisStore):
    """The data of an embedded server, for reading only: a write from here would not be counted.

    :param store: the store that is looked at, which is not opened by that.
    :raises ConfigurationError: if the directory is another user's, or others may write to it.
    :raises StoreUnavailableError: if no server runs.
    """

    networked = False

    def __init__(self, store: RedisliteStore) -> None:
        server = store._server
        server.require_running()
        # Held open, since a long path to the socket begins there.
        self._folder = OpenFolder(server.directory.path)
        super().__init__(
            state_id=store.state_id, unix_socket_path=server.socket_path(self._folder.descriptor)
        )

    def _attempt(self, *arguments: Any) -> NoReturn:
        self.refuse("be written to by who only looks at it")

    def _enter(self, session: Session) -> NoReturn:
        self.refuse("be looked at before a worker has used it again: its server was started anew")

    def _mend(self, session: Session, name: str) -> NoReturn:
        self.refuse(f"show {name!r}, of which the server has lost a part, before a worker has read it")
