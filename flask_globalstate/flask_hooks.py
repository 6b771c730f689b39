"""Where a state enters a Flask application: what has no public hook, and what differs between its versions.

Flask's decorators add a function behind those that are there, and only before the first request. Ours
are called before or after all others, whenever the state comes. Between the versions these differ:

==========  ==================================  =====================================
Flask       what each request has of its own    when a teardown function raises
==========  ==================================  =====================================
2.3 to 3.1  ``request_ctx``: the ``g`` of a     no other one is called
            view is that of contexts which it
            pushes, too
3.2         ``g``; ``request_ctx`` is           the others are called
            deprecated, even to be imported
==========  ==================================  =====================================
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from flask import Flask, Response, current_app, g
from flask import globals as flask_globals
from jinja2 import Environment

from .proxies.base import Proxy, plain_type_of
from .proxies.value import SharedValue

#: None from Flask 3.2 on; not imported by its name, which is a DeprecationWarning there
_request_ctx: Any = vars(flask_globals).get("request_ctx")
_own: Any = g if _request_ctx is None else _request_ctx


def own_context() -> dict[str, Any]:
    """What is kept with the context of the current request, and with no other context."""
    return _own._get_current_object().__dict__  # type: ignore[no-any-return]


def call_first(app: Flask, hook: Callable[[], None]) -> None:
    """Have ``hook`` called before every other ``before_request`` function: they read what is fresh."""
    _put_first(app.before_request_funcs, hook)


def call_after_view(app: Flask, hook: Callable[[Response], Response]) -> None:
    """Have ``hook`` called after every other ``after_request`` function."""
    _put_first(app.after_request_funcs, hook)  # Flask goes through these backwards.


def call_last(app: Flask, hook: Callable[[], None]) -> None:
    """Have ``hook`` called after every teardown function of a request, also if one of them raises."""
    if _request_ctx is None:
        # Flask goes through these backwards, too.
        _put_first(app.teardown_request_funcs, lambda error: hook())
        return
    tear_down = app.do_teardown_request

    def tear_down_and_call(*arguments: Any, **named: Any) -> None:
        try:
            tear_down(*arguments, **named)
        finally:
            hook()

    app.do_teardown_request = tear_down_and_call  # type: ignore[method-assign]


def take_proxies_in_responses(app: Flask) -> None:
    """Let a view return a proxy where it may return the dict or list that it stands for."""
    if not isinstance(app.make_response, _PlainForResponse):
        app.make_response = _PlainForResponse(app.make_response)  # type: ignore[method-assign, assignment]


def look_up_in_templates_as_plain(app: Flask) -> None:
    """Let ``x.name`` in a template be an item of a shared or tracked dict, as of a plain one."""
    environment = app.jinja_env
    if not isinstance(environment.getattr, _PlainLookUp):
        environment.getattr = _PlainLookUp(environment, environment.getattr)  # type: ignore[method-assign, assignment]
        environment.getitem = _PlainLookUp(environment, environment.getitem)  # type: ignore[method-assign, assignment]


def take_events_as_requests(event: Callable[[Flask], AbstractContextManager[Any]]) -> None:
    """Let each event of Flask-SocketIO, where that is imported, be a request: it calls no hooks of Flask.

    :param event: what is entered around each handler, given its application.
    """
    kind: Any = getattr(sys.modules.get("flask_socketio"), "SocketIO", None)
    if kind is None or hasattr(kind._handle_event, "__wrapped__"):
        return
    handle_event = kind._handle_event

    @functools.wraps(handle_event)
    def handle_as_request(self: Any, handler: Callable[..., Any], *arguments: Any) -> Any:
        @functools.wraps(handler)
        def handled(*given: Any) -> Any:
            with event(current_app):
                return handler(*given)

        return handle_event(self, handled, *arguments)

    kind._handle_event = handle_as_request


def _put_first(hooks: dict[Any, list[Any]], hook: Callable[..., Any]) -> None:
    hooks.setdefault(None, []).insert(0, hook)


class _PlainLookUp:
    """Jinja's look-up of an attribute or an item, which doesn't find what a shared dict has beyond a dict."""

    def __init__(self, environment: Environment, look_up: Callable[[Any, Any], Any]) -> None:
        self._environment = environment
        self._look_up = look_up

    def __call__(self, obj: Any, name: Any) -> Any:
        if isinstance(obj, SharedValue) and name != "value":
            return getattr(obj, str(name))  # Raises, and says what to write.
        plain = plain_type_of(obj)
        if plain is None or not isinstance(name, str) or hasattr(plain, name):
            return self._look_up(obj, name)
        with suppress(TypeError, LookupError):
            return obj[name]
        return self._environment.undefined(obj=obj, name=name)


class _PlainForResponse:
    def __init__(self, make: Callable[[Any], Response]) -> None:
        self._make = make

    def __call__(self, value: Any) -> Response:
        if isinstance(value, tuple) and value and isinstance(value[0], Proxy):
            value = (value[0]._unwrap(), *value[1:])
        return self._make(value._unwrap() if isinstance(value, Proxy) else value)
