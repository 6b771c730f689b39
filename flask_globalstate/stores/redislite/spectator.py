"""Looking at an embedded server that runs: nothing is started, and no lease keeps it from ending."""

from __future__ import annotations

from typing import Any, NoReturn

from ...errors import UnsupportedOperationError
from ...system.files import OpenFolder
from ..redis.runner import ScriptRunner
from ..redis.session import Session
from ..redis.store import RedisStore
from .store import RedisliteStore


class RedisliteSpectator(RedisStore):
    """The data of an embedded server, for reading only: a write from here would not be counted.

    :param store: the store that is looked at, which is not opened by that.
    :raises ConfigurationError: if the directory is another user's, or others may write to it.
    :raises StoreUnavailableError: if no server runs.
    """

    def __init__(self, store: RedisliteStore) -> None:
        server = store._server
        server.require_running()
        # Held open, since a long path to the socket begins there.
        self._folder = OpenFolder(server.directory.path)
        super().__init__(
            state_id=store.state_id, unix_socket_path=server.socket_path(self._folder.descriptor)
        )
        self._scripts = _Reader(self._sessions, None)


class _Reader(ScriptRunner):
    """Scripts that write nothing, and repair nothing."""

    def write(self, *arguments: Any) -> NoReturn:
        raise UnsupportedOperationError("who only looks at a store can't write to it")

    def _enter(self, session: Session) -> NoReturn:
        raise UnsupportedOperationError(
            "the server was started anew; who only looks sees its data when a worker has used it again"
        )

    def _repair(self, session: Session, name: str) -> NoReturn:
        raise UnsupportedOperationError(
            f"the server has lost a part of {name!r}; who only looks sees it when a worker has read it again"
        )
