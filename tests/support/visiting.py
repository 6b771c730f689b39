"""The front page of an application, of whatever kind it is, without a server."""

from __future__ import annotations

import asyncio
from typing import Any

from flask import Flask


def visit(app: Any) -> None:
    """Fail unless the page ``/`` of an application can be seen, if it has one."""
    if "/" in addresses(app):
        status, body = app_answer(app, "/")
        assert status == 200, body


def addresses(app: Any) -> list[str]:
    """The addresses that an application of Flask, Quart, FastAPI or Starlette knows."""
    if hasattr(app, "url_map"):
        return [rule.rule for rule in app.url_map.iter_rules()]
    return [route.path for route in app.routes]


def app_answer(app: Any, path: str) -> tuple[int, bytes]:
    """The status and the body of what an application answers."""
    if isinstance(app, Flask):
        response = app.test_client().get(path)
        return response.status_code, response.data
    messages = asyncio.run(asgi_answer(app, path))
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages)


async def asgi_answer(app: Any, path: str) -> list[dict[str, Any]]:
    """The messages that an ASGI application sends for a request."""
    messages: list[dict[str, Any]] = []
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # The client stays.
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        },
        receive,
        send,
    )
    return messages
