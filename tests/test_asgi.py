"""The middleware of ASGI applications: when a request begins, publishes and ends."""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from flask_globalstate import ConfigurationError, GlobalState
from flask_globalstate.asgi import GlobalStateASGIMiddleware
from flask_globalstate.replicas.requests import Request, request_here, running_requests
from tests.support.visiting import app_answer, asgi_answer
from tests.support.workers import make_workers

Messages = list[dict[str, Any]]


@pytest.fixture
def state() -> Iterator[GlobalState]:
    (state,) = make_workers(1)
    yield state
    assert not running_requests()


def application(view: Callable[[], Awaitable[str]]) -> Any:
    """An ASGI application that answers what a coroutine gives."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await view()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})

    return app


def test_a_call_is_one_request_which_ends_with_it(state: GlobalState) -> None:
    seen: list[Request | None] = []

    async def view() -> str:
        seen.append(request_here())
        await asyncio.sleep(0)
        seen.append(request_here())
        return "done"

    app = GlobalStateASGIMiddleware(application(view), state)
    assert app_answer(app, "/") == (200, b"done")
    assert seen[0] is seen[1]
    assert seen[0] is not None
    assert seen[0].over


def test_tasks_and_threads_of_a_request_are_part_of_it_until_it_ends(state: GlobalState) -> None:
    async def view() -> str:
        here = request_here()
        assert await asyncio.to_thread(request_here) is here
        assert await asyncio.create_task(report()) is here
        outliving.append(asyncio.create_task(report_after(ended)))
        return ""

    async def report() -> Request | None:
        return request_here()

    async def report_after(event: asyncio.Event) -> Request | None:
        await event.wait()
        return request_here()

    async def main() -> None:
        await asgi_answer(GlobalStateASGIMiddleware(application(view), state), "/")
        ended.set()
        assert await outliving[0] is None

    outliving: list[asyncio.Task[Request | None]] = []
    ended = asyncio.Event()
    asyncio.run(main())


def test_requests_in_turns_on_one_loop_are_apart(state: GlobalState) -> None:
    data = state.dict("DATA", initial={"n": 0})
    seen: list[Request | None] = []

    async def view() -> str:
        seen.append(request_here())
        number = data["n"]
        await asyncio.sleep(0)
        data["n"] = number + 1
        return ""

    async def main() -> None:
        app = GlobalStateASGIMiddleware(application(view), state)
        await asyncio.gather(*(asgi_answer(app, "/") for _ in range(2)))

    asyncio.run(main())
    assert len(set(seen)) == 2
    assert state.stats()["conflicts"] == {"DATA": 1}  # Both have read 0.


def test_names_of_modules_are_published_before_the_response_leaves(state: GlobalState) -> None:
    module = types.ModuleType("legacy")
    module.THEME = "dark"  # type: ignore[attr-defined]
    state.share_globals(module, "THEME")
    published: list[Any] = []

    async def view() -> str:
        module.THEME = "light"  # type: ignore[attr-defined]
        return ""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def look_and_send(message: Any) -> None:
            published.append(commits(state))
            await send(message)

        await GlobalStateASGIMiddleware(application(view), state)(scope, receive, look_and_send)

    asyncio.run(asgi_answer(outer, "/"))
    assert published[0] == commits(state) == 2  # What was there first, and what the view has bound.


def commits(state: GlobalState) -> int:
    return state.store.commits  # type: ignore[attr-defined, no-any-return]


def test_a_request_whose_application_raises_has_ended(state: GlobalState) -> None:
    async def view() -> str:
        raise ValueError("view")

    with pytest.raises(ValueError, match="view"):
        app_answer(GlobalStateASGIMiddleware(application(view), state), "/")


def test_start_and_end_of_a_server_are_no_request(state: GlobalState) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert request_here() is None
        await send({"type": "lifespan.startup.complete"})

    sent: Messages = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(GlobalStateASGIMiddleware(app, state)({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "lifespan.startup.complete"}]


def test_two_middlewares_join_one_request(state: GlobalState) -> None:
    (other,) = make_workers(1)
    seen: list[Request | None] = []

    async def view() -> str:
        seen.append(request_here())
        return ""

    app = GlobalStateASGIMiddleware(GlobalStateASGIMiddleware(application(view), state), other)
    app_answer(app, "/")
    assert seen[0] is not None
    assert seen[0].over
    assert seen[0].states == []


@pytest.mark.parametrize("multiprocess", [True, False])
def test_a_store_that_is_private_is_warned_of_unless_there_are_no_other_workers(
    multiprocess: bool, caplog: pytest.LogCaptureFixture
) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "memory"})

    async def view() -> str:
        return ""

    app = GlobalStateASGIMiddleware(application(view), state, multiprocess=multiprocess)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            app_answer(app, "/")
    assert len(caplog.records) == multiprocess
    strict = GlobalState.from_config({"STORE_BACKEND": "memory", "STORE_OPTIONS": {"strict": True}})
    if multiprocess:
        with pytest.raises(ConfigurationError, match="private to one process"):
            app_answer(GlobalStateASGIMiddleware(application(view), strict), "/")
