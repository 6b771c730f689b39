"""Dict-like classes that are private or shared: what is said of them, and what each can't do."""

from __future__ import annotations

import logging
import threading
from collections import UserDict
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_globalstate import (
    ConfigurationError,
    ConflictError,
    GlobalState,
    UnsupportedOperationError,
)
from tests.support.authors import CustomStore, SharedMapping, create_custom_store
from tests.support.customs import custom

# --- private and shared ---------------------------------------------------------------------------


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


# --- changes that depend on what is there ---------------------------------------------------------


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
