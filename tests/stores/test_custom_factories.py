"""Stores made from dict-like classes: how their objects are made, and how long they live."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sqlite3
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import flask_globalstate
from flask_globalstate import (
    ConfigurationError,
    GlobalState,
    SharedDict,
)
from flask_globalstate.stores.custom import DictLikeStore
from tests.support import PATIENCE
from tests.support.authors import CustomStore, SharedMapping, create_custom_store
from tests.support.customs import custom

# --- factories ------------------------------------------------------------------------------------


class Maker:
    def make(self, name: str) -> CustomStore:
        return CustomStore()

    def __call__(self, name: str) -> CustomStore:
        return CustomStore()


@pytest.mark.parametrize(
    "factory",
    [
        create_custom_store,
        lambda name: CustomStore(),
        functools.partial(create_custom_store),
        Maker().make,
        Maker(),
        type("Named", (CustomStore,), {"__init__": lambda self, name: CustomStore.__init__(self)}),
        "tests.support.authors:create_custom_store",
        None,
    ],
    ids=["function", "lambda", "partial", "bound method", "callable object", "class", "by its path", "none"],
)
def test_any_callable_is_a_factory(factory: Any) -> None:
    data = custom(factory).dict("DATA", initial={"a": 1})
    data["b"] = 2
    assert data == {"a": 1, "b": 2}


def test_a_class_is_given_by_its_path_too() -> None:
    assert custom(backend="tests.support.authors:CustomStore").dict("D", initial={"a": 1}) == {"a": 1}


def test_each_name_has_an_object_of_its_own_made_once() -> None:
    made: list[str] = []

    def factory(name: str) -> CustomStore:
        made.append(name)
        return CustomStore()

    state = GlobalState()
    first, second = state.dict("FIRST", initial={"a": 1}), state.dict("SECOND")
    app = Flask(__name__)
    app.config.update(STORE_BACKEND=CustomStore, STORE_FACTORY=factory)
    state.init_app(app)
    # Called at configuration time for a name that is in use: what was made is used.
    assert made == ["FIRST"]
    second["b"] = 2
    assert (dict(first), dict(second)) == ({"a": 1}, {"b": 2})
    assert made == ["FIRST", "SECOND"]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (lambda self, name: None, {}, (("DATA",), {})),
        (lambda self, size, name: None, {"size": 5}, (("DATA",), {"size": 5})),
        (lambda self, *, name, size=1: None, {}, (("DATA",), {})),
        (lambda self, path: None, {}, (("DATA",), {})),
        (lambda self, path, size: None, {"size": 5}, (("DATA",), {"size": 5})),
        (lambda self, path=None, size=1: None, {"size": 5}, ((), {"size": 5})),
        (lambda self, path: None, {"path": "x"}, ((), {"path": "x"})),
    ],
)
def test_a_class_without_a_factory_is_called_with_the_name_and_the_options(
    kind: Any, options: dict[str, Any], expected: Any
) -> None:
    calls = []

    class Own(UserDict):  # type: ignore[type-arg]
        __init__ = functools.wraps(kind)(
            lambda self, *a, **kw: calls.append((a, kw)) or UserDict.__init__(self)
        )

    store = DictLikeStore(Own, **options)
    store.announce("DATA")
    store.check()
    (arguments, named) = calls[0]
    assert ((*arguments, *([named.pop("name")] if "name" in named else [])), named) == expected


def test_options_are_keyword_arguments_of_the_factory() -> None:
    made: list[Any] = []

    def factory(name: str, size: int) -> CustomStore:
        made.append((name, size))
        return CustomStore()

    custom(factory, STORE_OPTIONS={"size": 5})
    assert [size for _, size in made] == [5]


def test_the_default_state_takes_a_class_and_a_factory(monkeypatch: Any) -> None:
    data = flask_globalstate.shared_dict("TEST_CUSTOM", initial={"a": 1})
    assert data["a"] == 1
    assert flask_globalstate.use_store(CustomStore, create_custom_store) is None
    try:
        assert flask_globalstate.default_state.store.label == "CustomStore"
        flask_globalstate.use_store(CustomStore, create_custom_store)
        data["b"] = None
        assert data == {"a": 1, "b": None}
        with pytest.raises(ConfigurationError, match="STORE_FACTORY"):
            flask_globalstate.use_store(CustomStore, 5)  # type: ignore[arg-type]
        assert data == {"a": 1, "b": None}
    finally:
        flask_globalstate.use_default_store()
    assert data == {"a": 1, "b": None}


def test_the_data_moves_into_a_custom_store_and_out_of_it() -> None:
    state = GlobalState.from_config({})
    data, hits = state.dict("DATA"), state.counter("HITS")
    data.update({(1, "a"): None, "b": [1]})
    hits += 3
    state.use_store(CustomStore, create_custom_store)
    assert (dict(data), hits.value) == ({(1, "a"): None, "b": [1]}, 3)
    hits += 1
    del data["b"]
    state.use_store("memory", id="other")
    assert (dict(data), hits.value) == ({(1, "a"): None}, 4)


def test_a_setting_that_there_is_not_is_refused() -> None:
    state = GlobalState.from_config({})
    with pytest.raises(ConfigurationError, match=r"sise.*backend.*options"):
        state.use_store("memory", sise=5)


# --- initial, names, the life of a store ----------------------------------------------------------


def test_initial_is_put_into_an_object_that_is_empty_when_it_is_first_used(tmp_path: Path) -> None:
    def open_data() -> Any:
        return SharedDict("DATA", DictLikeStore(SharedMapping, folder=tmp_path), initial={"a": 1, "b": 2})

    data = open_data()
    assert dict(data) == {"a": 1, "b": 2}
    del data["a"]
    assert dict(open_data()) == {"b": 2}
    data.clear()
    assert dict(data) == {}


def test_initial_that_fails_is_tried_again() -> None:
    answers: list[Any] = [{"a": 1, "b": object(), "c": [1]}, OSError("not yet")]

    def initial() -> Any:
        answer = answers.pop()
        if isinstance(answer, OSError):
            raise answer
        return answer

    data = custom().dict("DATA", initial=initial)
    with pytest.raises(OSError, match="not yet"):
        data["a"]
    assert data["a"] == 1


def test_a_state_is_cleared_and_synced_and_knows_its_names(tmp_path: Path) -> None:
    before = DictLikeStore(SharedMapping, folder=tmp_path)
    SharedDict("OLD", before)["a"] = 1
    state = custom(None, SharedMapping, STORE_OPTIONS={"folder": tmp_path})
    old, empty, new = (
        state.dict("OLD", initial={"b": 1}),
        state.dict("EMPTY"),
        state.dict("NEW", initial={"a": 1}),
    )
    new["b"] = 2
    assert state.store.names() == ["OLD", "NEW"]
    state.sync()
    state.store.ping()
    state.open()
    state.clear()
    assert [dict(data) for data in (old, empty, new)] == [{}, {}, {}]
    assert state.store.names() == []
    state.close()


def test_what_can_be_closed_is_closed_and_made_anew(tmp_path: Path) -> None:
    state = custom(None, SharedMapping, STORE_OPTIONS={"folder": tmp_path})
    data = state.dict("DATA")
    data["a"] = 1
    store: Any = state.store
    rows = store.object_of("DATA").rows
    store.close()
    store.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        rows.execute("SELECT 1")
    assert data["a"] == 1
    kept = custom()
    kept.dict("DATA")["a"] = 1
    kept.store.close()
    assert kept.dict("DATA")["a"] == 1


def _write_in_a_child(data: Any, answers: Any) -> None:
    data["child"] = os.getpid()
    answers.put((dict(data), data._replica.store.object_of("DATA").opened_by))


def test_a_forked_child_makes_its_own_objects_of_a_shared_class(tmp_path: Path) -> None:
    class Opened(SharedMapping):
        def __init__(self, name: str) -> None:
            super().__init__(name, tmp_path)
            self.opened_by = os.getpid()

    data = SharedDict("DATA", DictLikeStore(Opened))
    data["parent"] = 1
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_write_in_a_child, args=(data, answers))
    child.start()
    found, opened_by = answers.get(timeout=PATIENCE)
    child.join(PATIENCE)
    assert found == {"parent": 1, "child": child.pid}
    assert opened_by == child.pid
    assert data["child"] == child.pid
