"""share_globals: containers of modules that know nothing of it; two states are two workers."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    ConflictError,
    GlobalState,
    SharedCounter,
    SharedDict,
    SharedList,
    SharedValue,
)
from tests.support.legacy_modules import CONTAINERS, Worker, module


def test_a_container_that_the_code_binds_again_replaces_the_shared_one(start: Callable[..., Worker]) -> None:
    first, second = (start().share(*CONTAINERS) for _ in range(2))
    proxies = [getattr(first.legacy, name) for name in CONTAINERS]
    before = first.state.store.revision("legacy.DATA").number
    assert second.read("DATA")["n"] == 0
    after = first.state.store.revision("legacy.DATA").number
    first.request("replace", {"n": 5, "new": [1]}, ["x"], set())
    assert [getattr(first.legacy, name) for name in CONTAINERS] == proxies
    assert all(
        a is b for a, b in zip(proxies, [first.legacy.DATA, first.legacy.LOG, first.legacy.TAGS], strict=True)
    )
    assert before <= after
    assert second.read("DATA") == {"n": 5, "new": [1]}
    assert (second.read("LOG"), second.read("TAGS")) == (["x"], set())


def test_binding_a_container_again_is_one_commit(start: Callable[..., Worker]) -> None:
    worker = start().share("DATA")
    assert len(worker.legacy.DATA) == 2
    before = worker.state.store.revision("legacy.DATA").number
    worker.request("replace", {"n": 5, "x": 1, "y": 2}, [], set())
    assert worker.state.store.revision("legacy.DATA").number == before + 1
    worker.request("replace", {}, [], set())
    assert worker.state.store.revision("legacy.DATA").number == before + 2
    assert worker.legacy.DATA == {}


def test_what_another_thread_puts_into_a_container_while_it_is_published_is_published_too(
    state: GlobalState, monkeypatch: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    mine: dict[str, Any] = {"n": 1, "inner": []}
    commit = state.store.commit

    def slow(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        answer = commit(*arguments, **named)
        mine["later"] = 2
        mine["inner"].append(3)
        return answer

    assert legacy.DATA["n"] == 0
    monkeypatch.setattr(state.store, "commit", slow)
    legacy.DATA = mine
    state.publish_globals()
    assert legacy.DATA == {"n": 1, "inner": [3], "later": 2}
    assert type(legacy.DATA) is SharedDict


def test_a_container_of_which_others_have_changed_the_shared_one_is_dropped_if_conflicts_raise(
    start: Callable[..., Worker],
) -> None:
    first, second = (start(STORE_ON_CONFLICT="raise").share("LOG") for _ in range(2))
    first.state.begin_request()
    first.legacy.LOG = [*first.legacy.LOG, "first"]
    second.request("mutate")
    with pytest.raises(ConflictError):
        first.state.publish_globals()
    assert type(first.legacy.LOG) is SharedList
    assert first.read("LOG") == ["started", "mutated"]


def test_what_was_made_of_the_shared_one_may_be_bound_again(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, *CONTAINERS)
    with state.request():
        legacy.replace(dict(legacy.DATA, n=9), operator.add(legacy.LOG, ["x"]), legacy.TAGS | {"z"})
    with state.request():
        legacy.replace(legacy.DATA, legacy.LOG[-1:], {tag for tag in legacy.TAGS if tag > "a"})
    assert legacy.DATA == {"users": {"ann": [{"id": 1}]}, "n": 9}
    assert legacy.LOG == ["x"]
    assert set(legacy.TAGS) == {"z"}
    assert type(legacy.LOG) is SharedList
    legacy.DATA["users"]["ann"].append(1)
    assert legacy.DATA["users"]["ann"] == [{"id": 1}, 1]


BOTH = """
OLD, NEW, LAST = {"old": 1}, {"new": 2}, None
ROWS, ARCHIVE = [1], {}


def swap():
    global OLD, NEW
    OLD, NEW = NEW, OLD


def turn():
    global OLD, LAST
    LAST, OLD = OLD, {}


def archive():
    global NEW, ROWS
    ARCHIVE["rows"], ARCHIVE["new"] = ROWS, NEW
    NEW, ROWS = {}, []


def wrap():
    global OLD
    OLD = {"before": OLD, "rows": [ROWS]}
"""


@pytest.mark.parametrize(
    "calls",
    [["swap"], ["turn"], ["archive"], ["wrap"], ["wrap", "wrap"], ["swap", "turn", "archive", "wrap"]],
)
def test_code_that_binds_one_shared_global_to_the_name_of_another_does_what_it_does_to_plain_ones(
    state: GlobalState, calls: list[str]
) -> None:
    names = ("OLD", "NEW", "LAST", "ROWS", "ARCHIVE")
    plain, shared = module("plain", BOTH), module("shared", BOTH)
    state.share_globals(shared, *names)
    for call in calls:
        getattr(plain, call)()
        with state.request():
            getattr(shared, call)()
    found = {name: vars(shared)[name] for name in names}
    assert json.loads(json.dumps(found, default=lambda proxy: proxy._unwrap())) == {
        name: vars(plain)[name] for name in names
    }


@pytest.mark.parametrize("kinds", [{}, {"OTHER": SharedValue}])
def test_two_names_of_one_container_are_refused(state: GlobalState, kinds: Any) -> None:
    legacy = module(source="DATA = OTHER = {}\nN = M = 1\n")
    names = {"DATA", "OTHER"} - set(kinds)
    with pytest.raises(ConfigurationError, match="is the same object as 'DATA', and is shared with that"):
        state.share_globals(legacy, *sorted(names), "N", "M", **kinds)
    assert legacy.DATA is legacy.OTHER
    state.share_globals(legacy, "DATA", N=SharedCounter, M=SharedCounter)
    legacy.OTHER["a"] = 1
    assert state.dict("legacy.DATA") == {"a": 1}
    assert legacy.DATA is legacy.OTHER


def test_another_shared_container_may_be_bound_to_the_name(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    mine = state.dict("MINE", initial={"a": [1]})
    with state.request():
        legacy.replace(mine, [], set())
    assert legacy.DATA == {"a": [1]}
    assert legacy.DATA is not mine


@pytest.mark.parametrize("other", [None, [1], "text"])
def test_a_container_that_becomes_something_else_is_an_error_and_the_shared_one_comes_back(
    state: GlobalState, other: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    state.begin_request()
    legacy.DATA = other
    with pytest.raises(TypeError, match=r"legacy\.DATA is shared as a SharedDict"):
        state.publish_globals()
    assert type(legacy.DATA) is SharedDict
    assert legacy.DATA["n"] == 0


def test_a_name_that_is_deleted_comes_back(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA", "THEME", HITS=SharedCounter)
    with state.request():
        del legacy.DATA, legacy.THEME, legacy.HITS
    with state.request():
        assert legacy.DATA["n"] == 0
        assert (legacy.THEME, legacy.HITS) == ("dark", 0)
