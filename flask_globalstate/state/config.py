"""Checks the settings of a state, and makes a store from them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, GlobalStateError
from ..replicas.modes import MODES
from ..stores import SCHEMES, find_store, load, store_names
from ..stores.addresses import shown
from ..stores.base import Backend, Store
from ..stores.custom import AdaptedStore, DictLikeStore
from ..stores.durable import DurableStore, ReloadedStore
from ..values.encodings import ENCODINGS
from .settings import DEFAULTS, Settings, as_bytes

#: while not empty, every configuration is one of memory
_memory_instead: list[bool] = []
ON_CONFLICT = ("ignore", "warn", "raise")


@dataclass(frozen=True)
class Config:
    """Checked settings. Two equal ones mean the same store.

    The fields are the settings of the configuration table, without their prefix; ``backend`` is a `Store`,
    or a class that a store is made from.
    """

    backend: type[Any]
    factory: Callable[..., Any] | None = field(repr=False)
    path: Path | None
    url: str | None = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    id: str
    sync: str
    encoding: Any
    old_encoding: Any
    secret_key: bytes | None = field(repr=False)
    secret_key_fallbacks: tuple[bytes, ...] = field(repr=False)
    on_conflict: str
    max_staleness: float
    background_interval: float
    stale_if_down: float

    @classmethod
    def read(
        cls,
        settings: Mapping[str, Any],
        *,
        prefix: str = "STORE",
        base: str | None = None,
        environment: bool = True,
    ) -> Config:
        """Read settings from a mapping, else the environment, else the defaults, and check them.

        :param settings: keys with a prefix, such as STORE_BACKEND, and their values.
        :param prefix: what the keys begin with, without the underscore.
        :param base: the directory that relative paths start at, and that holds the default STORE_PATH.
        :param environment: whether the environment is read.
        :raises ConfigurationError: naming the key, the value and what is allowed.
        """
        if _memory_instead:
            settings, environment = {f"{prefix}_BACKEND": "memory"}, False
        reader = _Checked(settings, prefix, environment)
        reader.warn_about_misspelled_settings()
        url = reader.url()
        backend = reader.backend(url)
        return cls(
            backend=backend,
            factory=reader.factory(backend),
            path=reader.path(backend, base),
            url=url,
            options=reader.options(),
            id=reader.id(),
            sync=reader.choice("SYNC", tuple(MODES)),
            encoding=reader.encoding("ENCODING", backend),
            old_encoding=reader.encoding("OLD_ENCODING", backend),
            secret_key=reader.secret("SECRET_KEY"),
            secret_key_fallbacks=reader.secrets("SECRET_KEY_FALLBACKS"),
            on_conflict=reader.choice("ON_CONFLICT", ON_CONFLICT),
            max_staleness=reader.seconds("MAX_STALENESS"),
            background_interval=reader.seconds("BACKGROUND_INTERVAL"),
            stale_if_down=reader.seconds("STALE_IF_DOWN"),
        )

    @classmethod
    def of(cls, **settings: Any) -> Config:
        """Check settings that are given by keyword, without a prefix; the others have their defaults.

        :raises ConfigurationError: as `read`; for an unknown setting too.
        """
        given = {key.upper(): value for key, value in settings.items()}
        unknown = sorted(given.keys() - DEFAULTS.keys())
        if unknown:
            raise ConfigurationError(
                f"there is no setting {', '.join(unknown).lower()}; there are {', '.join(DEFAULTS).lower()}"
            )
        return cls.read({f"STORE_{key}": value for key, value in given.items()}, environment=False)

    def make_store(self) -> Backend:
        """Make the store, without opening it.

        :raises ConfigurationError: for an option that the store doesn't know, naming the known ones.
        """
        if issubclass(self.backend, Store):
            store: Backend = self._make_registered()
        else:
            store = _adapter_of(self.backend)(self.backend, self.factory, **self.options)
        store.state_id = self.id
        return store

    def _make_registered(self) -> Store:
        ours = {"path": self.path, "url": self.url, "state_id": self.id}
        parameters = _parameters_of(self.backend)
        given = {key: value for key, value in ours.items() if key in parameters and value is not None}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            known = sorted(set(parameters) - set(ours))
            unknown = sorted(set(self.options) - set(known))
            if unknown:
                raise ConfigurationError(
                    f"STORE_OPTIONS: {self.backend.__name__} doesn't know {', '.join(unknown)}; "
                    f"it knows {', '.join(known) or 'no options'}"
                )
        try:
            store: Store = self.backend(**given, **self.options)
        except GlobalStateError:
            raise
        except TypeError as error:
            raise ConfigurationError(f"STORE_OPTIONS: {self.backend.__name__}: {error}") from error
        except Exception as error:
            # Without its text, which may hold a password; it is the cause.
            raise ConfigurationError(
                f"STORE_OPTIONS: {self.backend.__name__} can't be made of these: {type(error).__name__}"
            ) from error
        return store


class _Checked(Settings):
    """Each setting as what it must be, or an error that names it."""

    def url(self) -> str | None:
        url = self.get("URL")
        if url is not None and (not isinstance(url, str) or "://" not in url):
            # It may hold a password, and is not shown.
            raise ConfigurationError(f"{self._prefix}_URL is not a URL; it must be like redis://host:6379/0")
        return url

    def backend(self, url: str | None) -> type[Any]:
        value = self.get("BACKEND")
        if value is None and url is not None:
            scheme = url.partition("://")[0]
            value = SCHEMES.get(scheme)
            if value is None:
                raise self._is_not("URL", shown(url), f"of a scheme in {', '.join(SCHEMES)}")
        if value is None:
            value = "memory"
        if isinstance(value, str):
            if "://" in value:
                # It may hold a password, and is not shown.
                raise ConfigurationError(
                    f"{self._prefix}_BACKEND is a URL, which belongs in {self._prefix}_URL: that alone picks "
                    f"the store. {self._prefix}_BACKEND is one of {', '.join(store_names())}, a class, or "
                    '"package.module:Class"'
                )
            with self._naming("BACKEND"):
                value = find_store(value)
        if not isinstance(value, type):
            raise self.wrong("BACKEND", value, 'a registered name, a class, or "package.module:Class"')
        if not issubclass(value, Store):
            missing = ", ".join(_adapter_of(value).lacks(value))
            if missing:
                raise self.wrong(
                    "BACKEND",
                    value,
                    f"a Store, a DurableStore or a dict-like class, and this lacks {missing}",
                )
        if url is not None and "url" not in _parameters_of(value):
            raise ConfigurationError(f"{self._prefix}_URL is set, but {value.__name__} has no address")
        return value

    def factory(self, backend: type[Any]) -> Callable[..., Any] | None:
        value = self.get("FACTORY")
        if value is None:
            return None
        if issubclass(backend, Store):
            raise self.wrong("FACTORY", value, f"unset: {backend.__name__} is made by its class")
        with self._naming("FACTORY"):
            found = load(value) if isinstance(value, str) else value
        if not callable(found):
            raise self.wrong("FACTORY", value, 'a callable factory(name), or "package.module:factory"')
        return found  # type: ignore[no-any-return]

    def path(self, backend: type[Any], base: str | None) -> Path | None:
        value = self.get("PATH")
        if "path" not in _parameters_of(backend):
            return None
        if value is None:
            if base is None:
                raise ConfigurationError(
                    f"{backend.__name__} keeps its data in a directory: set {self._prefix}_PATH"
                )
            value = "globalstate"
        path = _as_path(value)
        if path is None:
            raise self.wrong("PATH", value, "the path of a directory")
        path = os.path.expanduser(path)
        if path.startswith("~"):
            raise self.wrong("PATH", value, "the path of a directory, and there is no such user")
        return Path(os.path.abspath(os.path.join(base or os.getcwd(), path)))

    def options(self) -> dict[str, Any]:
        value = self.get("OPTIONS")
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.wrong_kind("OPTIONS", value, "a dict of keyword arguments, whose keys are str")
        return dict(value)

    def id(self) -> str:
        value = self.get("ID")
        if not isinstance(value, str) or not value or set("{}") & set(value):
            raise self.wrong("ID", value, "a str that is not empty and has no braces")
        return value

    def choice(self, suffix: str, allowed: Sequence[str]) -> str:
        value = self.get(suffix)
        if not isinstance(value, str) or value not in allowed:
            raise self.wrong(suffix, value, f"one of {', '.join(allowed)}")
        return str(value)

    def encoding(self, suffix: str, backend: type[Any]) -> Any:
        value = self.get(suffix)
        if value is None:
            return None
        has_methods = callable(getattr(value, "encode", None)) and callable(getattr(value, "decode", None))
        if isinstance(value, str) and value in ENCODINGS:
            # A dict-like class doesn't say so, but always holds objects.
            if value == "noop" and not getattr(backend, "holds_objects", True):
                raise self.wrong(suffix, value, f"another one: {backend.__name__} holds bytes, not objects")
        elif isinstance(value, (str, type)) or not has_methods:
            raise self.wrong(suffix, value, f"{', '.join(ENCODINGS)}, or an object with encode and decode")
        return value

    def secret(self, suffix: str) -> bytes | None:
        value = self.get(suffix)
        return None if value is None else self._secret_bytes(suffix, value)

    def secrets(self, suffix: str) -> tuple[bytes, ...]:
        value = self.get(suffix)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            raise self.wrong_kind(suffix, value, "a list of secrets")
        return tuple(self._secret_bytes(suffix, secret) for secret in value)

    def _secret_bytes(self, suffix: str, value: Any) -> bytes:
        if not isinstance(value, (str, bytes)) or not value:
            raise self.wrong_kind(suffix, value, "a str or bytes that is not empty")
        return as_bytes(value)

    def seconds(self, suffix: str) -> float:
        value = self.get(suffix)
        if not isinstance(value, bool) and isinstance(value, (int, float)) and value >= 0:
            with suppress(OverflowError):
                return float(value)
        raise self.wrong(suffix, value, "a number of seconds, 0 or more")


def _adapter_of(kind: type[Any]) -> type[AdaptedStore]:
    """The adapter for a class of a user, which is no `Store`."""
    return ReloadedStore if issubclass(kind, DurableStore) else DictLikeStore


def _parameters_of(backend: type[Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a store's class; a class that is adapted takes STORE_OPTIONS and nothing of ours."""
    return inspect.signature(backend).parameters if issubclass(backend, Store) else {}


@contextmanager
def memory_instead() -> Iterator[None]:
    """Make every configuration that is read in the block one of memory, whatever it says; for tests."""
    _memory_instead.append(True)
    try:
        yield
    finally:
        _memory_instead.pop()


def _as_path(value: object) -> str | None:
    """A value as a path, or None if no file could have it."""
    if not isinstance(value, (str, os.PathLike)):
        return None
    try:
        path = os.fspath(value)
        if isinstance(path, str) and path and b"\0" not in os.fsencode(path):
            return path
    except Exception:
        pass  # A user's __fspath__ raised, or the file system has no bytes for this text.
    return None
