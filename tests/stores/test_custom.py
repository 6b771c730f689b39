"""Stores made from dict-like classes: what they promise, what they refuse, and what D-Tale's users write."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import sqlite3
import threading
import time
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import flask_globalstate
from flask_globalstate import (
    ConfigurationError,
    ConflictError,
    GlobalState,
    SharedDict,
    UnsupportedOperationError,
)
from flask_globalstate.stores.base import Store
from flask_globalstate.stores.custom import DictLikeStore
from flask_globalstate.testing import DictSuite
from tests.support import PATIENCE
from tests.support.authors import CustomStore, SharedMapping, create_custom_store


class TestDTaleStyle(DictSuite):
    lacks = frozenset({"encoding", "revisions"})

    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        store = DictLikeStore(CustomStore, create_custom_store)
        return lambda: store


@pytest.mark.slow
@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
class TestMappings(DictSuite):
    lacks = frozenset({"encoding", "revisions"})

    @pytest.fixture
    def open_store(self, kind: type[Any]) -> Callable[[], Store]:
        store = DictLikeStore(kind)
        return lambda: store


@pytest.mark.slow
class TestSharedMapping(DictSuite):
    lacks = frozenset({"atomic", "encoding", "revisions"})

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: DictLikeStore(SharedMapping, folder=tmp_path)


def custom(factory: Any = create_custom_store, backend: Any = CustomStore, **settings: Any) -> GlobalState:
    return GlobalState.from_config({"STORE_BACKEND": backend, "STORE_FACTORY": factory, **settings})


# --- factories ----------------------------------------------------------------------------------


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


# --- what passes through ------------------------------------------------------------------------


def test_objects_and_keys_pass_through_as_they_are() -> None:
    held: list[CustomStore] = []

    def factory(name: str) -> CustomStore:
        held.append(CustomStore())
        return held[-1]

    data = custom(factory).dict("DATA")
    thing = object()
    data[1, "a"] = thing
    assert data[1, "a"] is thing
    (store,) = [store for store in held if store.data]
    assert store.data == {(1, "a"): thing}
    store.data["behind our back"] = 5
    assert data["behind our back"] == 5


@pytest.mark.parametrize("missing", [None, 0, KeyError])
def test_what_get_gives_for_a_missing_key_is_not_seen(missing: Any) -> None:
    class Odd(CustomStore):
        def get(self, key: Any) -> Any:
            if key not in self.data:
                if missing is KeyError:
                    raise KeyError(key)
                return missing
            return self.data[key]

    data = custom(lambda name: Odd()).dict("DATA", initial={"none": None})
    assert data["none"] is None
    assert (data.get("a"), data.get("a", 5), data.pop("a", 6), "a" in data) == (None, 5, 6, False)
    for use in (lambda: data["a"], lambda: data.pop("a"), lambda: data.__delitem__("a")):
        with pytest.raises(KeyError):
            use()
    assert data.setdefault("a", 0) == 0
    assert dict(data) == {"none": None, "a": 0}


def test_a_default_factory_makes_nothing_when_a_key_is_read() -> None:
    data = custom(lambda name: defaultdict(list), defaultdict).dict("DATA")
    assert data.get("a", 5) == 5
    with pytest.raises(KeyError):
        data["a"]
    assert dict(data) == {}


def test_what_the_object_raises_reaches_the_caller() -> None:
    class Full(CustomStore):
        def __setitem__(self, key: Any, value: Any) -> None:
            raise OSError("disk full")

    data = custom(lambda name: Full()).dict("DATA")
    with pytest.raises(OSError, match="disk full"):
        data["a"] = 1


def test_an_object_is_never_called_by_two_threads_at_once() -> None:
    class Fragile(CustomStore):
        busy = False

        def __contains__(self, key: Any) -> bool:
            assert not self.busy
            self.busy = True
            time.sleep(0)
            self.busy = False
            return super().__contains__(key)

        def __setitem__(self, key: Any, value: Any) -> None:
            key in self  # noqa: B015
            super().__setitem__(key, value)

    data = custom(lambda name: Fragile()).dict("DATA")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(300):
                data.increment("n")
                data.get("n")
                data["m"] = 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert data["n"] == 1200


def test_a_function_may_use_other_names_while_it_changes_one() -> None:
    """Two threads that each change one name by what is in the other don't wait for each other."""
    state = custom()
    names = [state.dict("A", initial={"n": 1}), state.dict("B", initial={"n": 1})]
    met = threading.Barrier(2)

    def work(mine: Any, other: Any) -> None:
        met.wait(PATIENCE)
        for _ in range(200):
            mine._replica.replace("n", lambda value: value + other["n"] * 0 + 1)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [data["n"] for data in names] == [201, 201]


# --- initial, names, the life of a store --------------------------------------------------------


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


# --- private and shared -------------------------------------------------------------------------


def visit_under_several_workers(state: GlobalState) -> None:
    with state.request(multiprocess=True):
        pass


def test_a_class_counts_as_private_unless_it_says_shared(caplog: Any, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING, "flask_globalstate"):
        visit_under_several_workers(custom(None, SharedMapping, STORE_OPTIONS={"folder": tmp_path}))
        assert caplog.records == []
        state = custom()
        visit_under_several_workers(state)
        visit_under_several_workers(state)
    assert len(caplog.records) == 1
    assert "CustomStore is private to one process" in caplog.records[0].getMessage()


def test_strict_makes_it_an_error_unless_the_class_means_something_else_by_it() -> None:
    with pytest.raises(ConfigurationError, match="CustomStore is private"):
        visit_under_several_workers(custom(STORE_OPTIONS={"strict": True}))

    class Strict(CustomStore):
        strict = True

    with pytest.raises(ConfigurationError, match="Strict is private"):
        visit_under_several_workers(custom(lambda name: Strict(), Strict))

    given = []

    def factory(name: str, strict: bool) -> CustomStore:
        given.append(strict)
        return CustomStore()

    visit_under_several_workers(custom(factory, STORE_OPTIONS={"strict": True}))
    assert given == [True]


def test_what_no_object_can_do_is_refused_and_names_the_class() -> None:
    store = custom().store
    for use in (
        lambda: store.commit([]),
        lambda: store.fetch("N"),
        lambda: store.keys("N"),
        lambda: store.drop("N"),
        lambda: store.changes("N", None),  # type: ignore[arg-type]
        lambda: store.revision("N"),
    ):
        with pytest.raises(UnsupportedOperationError, match="CustomStore can't"):
            use()


class Racing(MutableMapping[Any, Any]):
    """A shared mapping from which another process removes what was just listed or found."""

    shared = True
    data: dict[Any, Any]

    def __init__(self) -> None:
        self.data = {"a": None, "b": 2}

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[key] = value

    def __delitem__(self, key: Any) -> None:
        del self.data[key]

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Any:
        listed = list(self.data)
        self.data.pop("a", None)
        return iter(listed)

    def __contains__(self, key: Any) -> bool:
        found = key in self.data
        self.data.pop("a", None)
        return found


class RacingStore(CustomStore):
    shared = True

    def __contains__(self, key: Any) -> bool:
        found = key in self.data
        self.data.pop("a", None)
        return found


@pytest.mark.parametrize("kind", [Racing, RacingStore])
def test_a_key_that_another_process_removes_meanwhile_is_a_missing_key(kind: type[Any]) -> None:
    def racing() -> Any:
        state = custom(None, kind)
        data = state.dict("DATA")
        store: Any = state.store
        store.object_of("DATA").data.update({"a": None, "b": 2})
        return data

    assert racing().get("a", "default") == "default"
    assert racing().pop("a", "default") == "default"
    assert racing().setdefault("a", 5) == 5
    if kind is Racing:
        assert racing().copy() == {"b": 2}
        assert list(racing().items()) == [("b", 2)]


def test_a_shared_class_uses_its_own_pop_and_setdefault() -> None:
    calls = []

    class Own(UserDict):  # type: ignore[type-arg]
        shared = True

        def pop(self, key: Any, *default: Any) -> Any:
            calls.append("pop")
            return super().pop(key, *default)

        def setdefault(self, key: Any, default: Any = None) -> Any:
            calls.append("setdefault")
            return super().setdefault(key, default)

    data = custom(None, Own).dict("DATA")
    assert data.setdefault("a", 1) == 1
    assert data.pop("a") == 1
    data["b"] = 2
    assert data.popitem() == ("b", 2)
    assert calls == ["setdefault", "pop", "pop"]


def test_what_another_process_pops_first_is_a_missing_key() -> None:
    class Contended(UserDict):  # type: ignore[type-arg]
        shared = True

        def pop(self, key: Any, *default: Any) -> Any:
            super().pop(key)  # Another process has come first.
            return super().pop(key, *default)

    data = custom(None, Contended).dict("DATA", initial={"a": 1})
    assert data.pop("a", "gone") == "gone"


def test_debug_warns_of_a_value_that_a_shared_store_would_refuse(caplog: Any) -> None:
    app = Flask(__name__)
    app.config.update(STORE_BACKEND=CustomStore, STORE_FACTORY=create_custom_store, DEBUG=True)
    GlobalState(app).dict("DATA")["lock"] = threading.Lock()
    assert "DATA" in caplog.text


# --- changes that depend on what is there -------------------------------------------------------


def test_apply_and_edit_change_a_private_copy() -> None:
    data = custom().dict("DATA", initial={"list": [1]})
    before = data["list"]
    assert data.apply("list", lambda value: [*value, 2]) == [1, 2]
    with data.edit("list") as value:
        value.append(3)
        assert data["list"] == [1, 2]
    assert data["list"] == [1, 2, 3]
    assert before == [1]

    def lose() -> None:
        with data.edit("list") as value:
            value.append(4)
            data["list"] = ["another thread's"]

    with pytest.raises(ConflictError, match="'list'"):
        lose()
    assert data["list"] == ["another thread's"]
    # As in memory, what is changed in place is changed: it is the object itself.
    data["list"].append(5)
    assert data["list"] == ["another thread's", 5]


def test_on_a_shared_class_apply_and_edit_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    data = custom(None, SharedMapping, STORE_OPTIONS={"folder": tmp_path}).dict("DATA", initial={"n": 1})
    ran: list[Any] = []
    with pytest.raises(UnsupportedOperationError, match="SharedMapping"):
        data.apply("n", ran.append)
    with pytest.raises(UnsupportedOperationError, match="SharedMapping"), data.edit("n"):
        ran.append("edit")
    assert ran == []
    assert dict(data) == {"n": 1}


def test_a_transaction_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    for state in (custom(), custom(None, SharedMapping, STORE_OPTIONS={"folder": tmp_path})):
        ran: list[Any] = []
        with pytest.raises(UnsupportedOperationError, match=state.store.label), state.transaction():
            ran.append("transaction")
        assert ran == []


def test_a_counter_and_a_value_live_in_a_custom_store() -> None:
    state = custom()
    hits, theme = state.counter("HITS", initial=5), state.value("THEME", initial="dark")
    hits += 1
    assert (hits.value, theme.value) == (6, "dark")
    theme.value = None
    assert theme.value is None
