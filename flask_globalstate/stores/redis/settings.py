"""The settings of a Redis store: read by redis-py, checked, and never shown with what is secret in them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ...errors import ConfigurationError
from ...system.directory import require_seconds
from ...values.wording import kind_of
from ..addresses import HOST, is_clear, shown

#: these of redis.Redis are about its own connections
NOT_OPTIONS = {"self", "single_connection_client", "auto_close_connection_pool"}
FROM_REDIS_PY = ("maint_notifications", "oss_cluster", "event_dispatcher", "himport")


def connection_settings(
    redis: Any, url: str | None, client: Any, socket_timeout: float, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """A class of connections, and keyword arguments that it takes; nothing is opened.

    :param redis: the module redis-py.
    :raises ConfigurationError: for what redis-py can't use, or what could be read in two ways.
    """
    require_seconds("socket_timeout", socket_timeout, least=0.001)
    # Checked first, so that the error can list what is known.
    _refuse_unknown(options, redis)
    if url is not None:
        _check_url(url)
    try:
        if client is not None:
            pool = client.connection_pool
        elif url is not None:
            pool = redis.ConnectionPool.from_url(url, **options)
        else:
            pool = redis.Redis(**options).connection_pool
        kind, settings = pool.connection_class, _settings_of(pool, redis)
        # Ours to decide: what is stored is bytes, and what to try again is known only to the store.
        settings.update(socket_timeout=socket_timeout, decode_responses=False, protocol=2)
        if settings.get("socket_connect_timeout") is None:
            settings["socket_connect_timeout"] = socket_timeout
        require_seconds("socket_connect_timeout", settings["socket_connect_timeout"], least=0.001)
        _check_place(settings)
        # Opens nothing, but knows its parameters.
        kind(**settings)
    except ConfigurationError:
        raise
    except Exception as error:
        # The cause may quote what it was given, a password too.
        raise ConfigurationError(_unusable(url, client, options, error)) from None
    return kind, settings


def _settings_of(pool: Any, redis: Any) -> dict[str, Any]:
    given = pool.connection_kwargs.items()
    settings = {key: value for key, value in given if not key.startswith(FROM_REDIS_PY)}
    return settings | {"retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0)}


def _refuse_unknown(options: dict[str, Any], redis: Any) -> None:
    known = set(inspect.signature(redis.Redis.__init__).parameters) - NOT_OPTIONS
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigurationError(
            f"STORE_OPTIONS: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def _check_url(url: str) -> None:
    if not isinstance(url, str) or not is_clear(url):
        raise ConfigurationError(
            f"STORE_URL {shown(str(url))!r} is not a URL that can be read in one way only; it is like "
            "redis://:password@host:6379/0, and in a user name or password @ is written %40, / is %2F, ? is "
            "%3F and # is %23"
        )
    scheme, _, place = shown(url).partition("://")
    database = place.partition("/")[2].strip("/")
    if scheme.lower() in ("redis", "rediss") and database and not database.isdecimal():
        raise ConfigurationError(
            f"STORE_URL {shown(url)!r}: after the host stands the number of a database, as in redis://host/0"
        )


def _check_place(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for a host, port or database that is none."""
    host = settings.get("host", "localhost")
    if not isinstance(host, str) or not HOST.fullmatch(host):
        # A whole URL with its password may stand there.
        raise ConfigurationError("STORE_OPTIONS: host must be the name or the address of a host")
    for name, most in (("port", 65535), ("db", 2**31)):
        try:
            number = int(settings.get(name, 0))
        except (TypeError, ValueError, OverflowError):
            number = -1
        if not 0 <= number <= most:
            raise ConfigurationError(f"STORE_OPTIONS: {name} must be a number from 0 to {most}")


def _unusable(url: str | None, client: Any, options: Mapping[str, Any], error: Exception) -> str:
    if client is not None:
        return f"STORE_OPTIONS: client is {kind_of(client)}, which can't be used; it must be a redis.Redis"
    given = ", ".join(sorted(options))
    if url is None:
        return f"STORE_OPTIONS: redis-py can't use one of {given}: {type(error).__name__}"
    return (
        f"STORE_URL {shown(url)!r}, with STORE_OPTIONS ({given or 'none'}), is not a URL that redis-py can "
        "use, or has an option that it doesn't know or can't use; it is redis://, rediss:// or unix://, as "
        "in redis://:password@host:6379/0?socket_keepalive=yes"
    )
