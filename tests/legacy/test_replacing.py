"""What share_globals replaces, what it refuses, and whom it warns of who else holds it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    GlobalState,
    SharedCounter,
    SharedDict,
    SharedList,
    SharedSet,
)
from tests.support.legacy_modules import CONTAINERS, HOLDERS, MUTATED, SOURCE, Worker, module

# --- what is replaced -----------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
def test_code_that_knows_nothing_of_it_changes_what_is_shared(state: GlobalState, by_name: bool) -> None:
    legacy = module()
    state.share_globals("legacy" if by_name else legacy, *CONTAINERS)
    assert [type(getattr(legacy, name)) for name in CONTAINERS] == [SharedDict, SharedList, SharedSet]
    legacy.mutate()
    assert legacy.DATA == MUTATED
    assert legacy.LOG == ["started", "mutated"]
    assert set(legacy.TAGS) == {"a", "b"}
    assert state.dict("legacy.DATA") is legacy.DATA


def test_a_module_is_imported_if_it_is_not_yet(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "legacy_on_disk.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    GlobalState.from_config({}).share_globals("legacy_on_disk", "DATA")
    assert isinstance(sys.modules["legacy_on_disk"].DATA, SharedDict)
    with pytest.raises(ModuleNotFoundError):
        GlobalState.from_config({}).share_globals("there_is_no_such_module", "DATA")


def test_two_modules_and_several_calls_do_not_clash(state: GlobalState) -> None:
    first, second = module("first"), module("second")
    state.share_globals("first", "DATA", HITS=SharedCounter)
    state.share_globals("first", "LOG")
    state.share_globals("second", "DATA", HITS=SharedCounter)
    first.DATA["only"] = "first"
    with state.request():
        first.hit(2)
        second.hit(3)
    assert "only" not in second.DATA
    assert {"first.DATA", "first.HITS", "second.DATA", "second.HITS"} <= set(state.store.names())
    assert (first.HITS, second.HITS) == (2, 3)


def test_the_first_workers_content_is_the_initial_one_and_later_workers_take_what_is_there(
    start: Callable[..., Worker],
) -> None:
    first, second = start(), start()
    second.legacy.DATA["users"] = "what the second worker begins with"
    second.legacy.HITS = 70
    second.legacy.THEME = "another"
    for worker in (first, second):
        worker.share("DATA", "LOG", "TAGS", "THEME", HITS=SharedCounter)
    first.request("mutate")
    assert second.legacy.DATA == MUTATED
    assert (second.read("HITS"), second.read("THEME")) == (0, "dark")
    assert start().share("DATA").legacy.DATA == MUTATED


def test_the_initial_content_is_a_plain_deep_copy(state: GlobalState) -> None:
    legacy = module()
    before = legacy.DATA
    state.share_globals(legacy, "DATA")
    before["users"]["ann"].append("later")
    assert legacy.DATA["users"] == {"ann": [{"id": 1}]}


def test_modules_that_have_imported_a_container_are_given_the_proxy_too(state: GlobalState) -> None:
    legacy = module()
    views = module("views", "from legacy import DATA, LOG as HISTORY\nlegacy_data = DATA")
    state.share_globals("legacy", *CONTAINERS)
    assert views.DATA is views.legacy_data is legacy.DATA
    assert views.HISTORY is legacy.LOG


def test_an_equal_container_of_another_module_is_left_alone(state: GlobalState) -> None:
    module()
    other = module("other")
    state.share_globals("legacy", *CONTAINERS)
    assert type(other.DATA) is dict


# --- what can't be replaced -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "kinds", "problems"),
    [
        (["MISSING"], {}, ["'MISSING' is not there"]),
        (["LOCK"], {}, ["'LOCK' can't be stored"]),
        (["hit"], {}, ["'hit' is a function"]),
        (["collections"], {}, ["'collections' is a module"]),
        (["DATA"], {"DATA": SharedDict}, ["'DATA' is named twice"]),
        (["DATA", "DATA"], {}, ["'DATA' is named twice"]),
        ([], {"THEME": SharedCounter}, ["'THEME' is a str", "SharedCounter stands for an int"]),
        ([], {"FLAG": SharedCounter}, ["'FLAG' is a bool"]),
        ([], {"LOG": SharedDict}, ["'LOG' is a list"]),
        ([], {"DATA": dict}, ["the kind of 'DATA' must be one of SharedDict"]),
        (["ODD"], {}, ["'ODD' has a key that can't be stored", "object"]),
        (["MISSING", "LOCK", "DATA"], {"LOG": SharedSet}, ["'MISSING'", "'LOCK'", "'LOG'"]),
    ],
)
def test_nothing_is_replaced_if_anything_is_wrong_and_all_of_it_is_named(
    state: GlobalState, names: list[str], kinds: dict[str, Any], problems: list[str]
) -> None:
    legacy = module(source=SOURCE + "\nODD = {object(): 1}\nFLAG = True\n")
    before = dict(vars(legacy))
    with pytest.raises(ConfigurationError) as caught:
        state.share_globals(legacy, *names, **kinds)
    for problem in ["legacy", *problems]:
        assert problem in str(caught.value)
    assert dict(vars(legacy)) == before
    assert all(value is before[name] for name, value in vars(legacy).items())
    assert state.store.names() == []


def test_a_kind_may_be_given_for_what_is_of_a_subclass(state: GlobalState) -> None:
    source = """
import collections
class Rows(list): pass
WORDS, ROWS = collections.OrderedDict(a=1), Rows([[1]])
"""
    legacy = module(source=source)
    state.share_globals(legacy, WORDS=SharedDict, ROWS=SharedList)
    legacy.ROWS.append(2)
    legacy.ROWS[0].append(3)
    with state.request():
        legacy.WORDS = {"b": 2}
    assert legacy.ROWS == [[1, 3], 2]
    assert legacy.WORDS == {"b": 2}
    assert type(legacy.WORDS) is SharedDict


def test_what_is_shared_already_is_refused(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA", HITS=SharedCounter)
    for name in ("DATA", "HITS"):
        with pytest.raises(ConfigurationError, match=f"{name!r} is shared already"):
            state.share_globals(legacy, "LOG", name)
    assert type(legacy.LOG) is list
    with pytest.raises(ConfigurationError, match="shared already"):
        GlobalState().share_globals(legacy, "DATA")


def test_something_else_than_a_module_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="dict"):
        GlobalState().share_globals({}, "DATA")  # type: ignore[arg-type]


def test_an_error_shows_no_value(state: GlobalState) -> None:
    legacy = module(
        source="import threading\nA = {'hunter2': threading.Lock()}\nB = {('hunter2', object()): 1}"
    )
    with pytest.raises(ConfigurationError) as caught:
        state.share_globals(legacy, "A", "B")
    assert "hunter2" not in str(caught.value)


# --- who else holds it ----------------------------------------------------------------------------


@pytest.mark.slow
def test_whoever_holds_a_container_elsewhere_is_named_in_one_warning(state: GlobalState, caplog: Any) -> None:
    module(source=SOURCE + HOLDERS)
    state.share_globals("legacy", *CONTAINERS)
    (record,) = caplog.records
    named = set(record.getMessage().partition("only: ")[2].split("; "))
    basket = "legacy.Basket"
    assert named in (
        {
            "legacy.DATA (in legacy.REGISTRY)",
            "legacy.DATA (a default argument of legacy.shown)",
            f"legacy.DATA ({attribute})",
            f"legacy.LOG (the attribute items of {basket})",
            "legacy.LOG (a default argument of legacy.shown)",
            "legacy.TAGS (a closure of legacy.counter.<locals>.count)",
            "legacy.TAGS (in legacy.PAIR)",
        }
        for attribute in (f"an attribute of a {basket}", "in legacy.basket")
    )


def test_no_warning_where_nobody_else_holds_it(state: GlobalState, caplog: Any) -> None:
    legacy = module()
    holder = legacy.DATA

    def in_a_closure() -> Any:
        return [name for name in ("DATA",) if vars(legacy)[name] is not None]

    def while_it_runs() -> Iterator[Any]:
        local = legacy.LOG
        yield len(local)
        yield len(local)

    running = while_it_runs()
    assert next(running) == 1
    state.share_globals(legacy, *in_a_closure(), "LOG", "TAGS", "THEME", HITS=SharedCounter)
    assert next(running) == 1
    assert holder == legacy.DATA
    assert caplog.records == []


def test_garbage_is_no_holder(state: GlobalState, caplog: Any) -> None:
    legacy = module()
    knot: list[Any] = [legacy.DATA]
    knot.append(knot)
    del knot
    state.share_globals(legacy, "DATA")
    assert caplog.records == []


def test_many_holders_are_counted(state: GlobalState, caplog: Any) -> None:
    legacy = module(source=SOURCE + "\nfor number in range(30):\n    globals()[f'F{number}'] = [DATA]\n")
    state.share_globals(legacy, "DATA")
    assert caplog.records[0].getMessage().endswith("; 20 more")


def test_modules_that_have_imported_a_scalar_by_name_are_named_in_a_warning(
    state: GlobalState, caplog: Any
) -> None:
    module(source=SOURCE + "\nTHEME = 'a theme that nobody else has'")
    module("views", "from legacy import THEME")
    module("other", "from legacy import THEME as STYLE, TAGS")
    state.share_globals("legacy", "THEME", "TAGS")
    (record,) = caplog.records
    assert "legacy.THEME" in record.getMessage()
    assert record.getMessage().endswith(": views")
