"""Values that are changed in place: they are detected, and nothing else is taken for one."""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_globalstate import ConflictError, EncodingError, GlobalState
from flask_globalstate.replicas.in_place import LARGEST_EXAMINED
from flask_globalstate.replicas.requests import Request, running_requests
from flask_globalstate.state.requests import EXAMINED_ONE_OF
from tests.support.conflicts import Pair
from tests.support.workers import WorkerStore, elsewhere, make_workers, store_of


class Thing:
    """A user's class."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)


class App:
    """An application on the same data as another worker."""

    def __init__(self, **config: Any) -> None:
        self.other = make_workers(1)[0]
        self.app = Flask(__name__)
        self.app.config.update(STORE_BACKEND=type(store_of(self.other)), STORE_SECRET_KEY="secret", **config)
        self.state = GlobalState(self.app)
        self.data, self.theirs = self.state.dict("DATA"), self.other.dict("DATA")
        self.app.add_url_rule("/", view_func=self._view)
        self.view: Callable[[], Any] = lambda: None

    def _view(self) -> str:
        self.view()
        return "answer"

    def get(self, view: Callable[[], Any], times: int = 1) -> int:
        """How many changes in place were found in requests."""
        self.view = view
        before = self.changes()
        for _ in range(times):
            assert self.app.test_client().get("/").text == "answer"
        return self.changes() - before

    def changes(self) -> int:
        return self.state.stats()["changed_in_place"].get("DATA", 0)


@pytest.fixture(params=[{"TESTING": True}, {"DEBUG": True}], ids=["testing", "debug"])
def examined(request: Any) -> App:
    return App(**request.param)


@pytest.mark.parametrize(
    ("value", "reach"),
    [
        (Thing(1), lambda value: value.items),
        (deque([1]), lambda value: value),
        ([0, Thing(1)], lambda value: value[1].items),
        ({"k": (0, deque([1]))}, lambda value: value["k"][1]),
    ],
    ids=["an object", "a deque", "in a list", "in a tuple in a dict"],
)
def test_a_change_in_place_is_found_and_dropped(
    examined: App, caplog: Any, value: Any, reach: Callable[[Any], Any]
) -> None:
    examined.data["k"] = value
    assert examined.get(lambda: reach(examined.data["k"]).append("lost")) == 1
    assert list(reach(examined.data["k"])) == list(reach(examined.theirs["k"])) == [1]
    (record,) = [record for record in caplog.records if record.name == "flask_globalstate"]
    assert record.levelno == logging.WARNING
    assert "DATA['k']" in record.getMessage()
    assert "DATA.edit('k')" in record.getMessage()
    assert "lost" not in caplog.text
    for read in (examined.data.copy, examined.data.items, lambda: examined.data.get("k")):
        assert examined.get(read) == 0


def test_every_way_of_reading_is_examined(examined: App) -> None:
    for read in (
        lambda: examined.data["k"],
        lambda: examined.data.get("k"),
        lambda: dict(examined.data)["k"],
        lambda: next(iter(examined.data.values())),
        lambda: examined.data.setdefault("k", 1),
        lambda: examined.data.snapshot()["k"],
    ):
        for _ in range(2):
            examined.data["k"] = Thing(1)
            assert examined.get(lambda read=read: read().items.append(1)) == 1
    theme = examined.state.value("THEME", initial=Thing)
    examined.get(lambda: theme.value.items.append(1))
    assert examined.state.stats()["changed_in_place"]["THEME"] == 1


GIVEN_BACK: dict[str, Callable[[Any], Any]] = {
    "assigned": lambda data: data.__setitem__("k", grown(data["k"])),
    "assigned, and read again": lambda data: (data.update(k=grown(data["k"])), data["k"]),
    "read, then edited": lambda data: (data["k"], edit(data), data["k"]),
    "applied": lambda data: (data["k"], data.apply("k", grown), data["k"]),
    "removed": lambda data: grown(data.pop("k")),
    "cleared": lambda data: (data["k"], data.clear()),
    "replaced": lambda data: (data["k"], data.update(k=Thing(2)), data["k"]),
    "in a transaction": lambda data: data["k"],
    "of other keys": lambda data: (data["k"], data.update(other=1), data["other"]),
}


def grown(thing: Thing) -> Thing:
    """The same, changed."""
    thing.items.append(1)
    return thing


def edit(data: Any) -> None:
    """Change it as it should be."""
    with data.edit("k") as thing:
        grown(thing)


@pytest.mark.parametrize("do", GIVEN_BACK.values(), ids=GIVEN_BACK)
def test_what_is_given_back_is_no_change_in_place(examined: App, do: Callable[[Any], Any]) -> None:
    for _ in range(2):
        examined.data["k"] = Thing(1)
        assert examined.get(lambda: do(examined.data)) == 0


def test_a_commit_inside_of_a_value_is_no_change_in_place(examined: App) -> None:
    examined.data["k"] = {"rows": [Thing(1)], "n": 0}

    def view() -> None:
        held = examined.data["k"]
        held["n"] += 1
        held["rows"].append(Thing(2))
        held["rows"][0] = Thing(3)
        assert len(examined.data["k"]["rows"]) == 2

    assert examined.get(view) == 0
    assert examined.get(lambda: examined.data["k"]) == 0
    assert examined.get(lambda: examined.data["k"]["rows"][1].items.append(1)) == 1


def test_a_change_in_place_in_a_transaction_is_found_too(examined: App) -> None:
    def in_transaction(change: Callable[[], Any]) -> Callable[[], None]:
        def view() -> None:
            with examined.state.transaction():
                change()

        return view

    examined.data["k"] = Thing(1)
    assert examined.get(in_transaction(lambda: examined.data["k"].items.append(1))) == 1
    assert examined.get(in_transaction(lambda: examined.data["k"])) == 0
    assert examined.get(in_transaction(lambda: examined.data.update(k=grown(examined.data["k"])))) == 0
    assert examined.get(in_transaction(lambda: (examined.data["k"], edit(examined.data)))) == 0
    assert examined.data["k"].items == [1, 1, 1]


def test_what_another_worker_has_changed_is_no_change_in_place(examined: App) -> None:
    def view() -> None:
        assert examined.data["k"].items == [1]
        elsewhere(examined.theirs.update, k=Thing(2))
        examined.data.sync()
        assert examined.data["k"].items == [2]

    examined.data["k"] = Thing(1)
    assert examined.get(view) == 0


@pytest.mark.parametrize("value", [[1], {"a": [1]}, (1, "a"), 1.5, "text", None, b"x", {1}])
def test_what_can_not_change_unseen_is_not_encoded(examined: App, value: Any, monkeypatch: Any) -> None:
    examined.data["k"] = value
    assert examined.get(lambda: examined.data["k"]) == 0
    encoded = []
    codec = examined.state._names.bound().codec
    monkeypatch.setattr(codec, "encode", lambda *arguments: encoded.append(arguments))
    assert examined.get(lambda: examined.data["k"]) == 0
    assert encoded == []


def test_nothing_above_64_kib_is_compared(examined: App, monkeypatch: Any) -> None:
    overhead = len(examined.state._names.bound().codec.encode("DATA", "k", Thing(b"")))
    for size, found in ((LARGEST_EXAMINED - overhead - 20, 1), (LARGEST_EXAMINED, 0)):
        examined.data["k"] = Thing(b"x" * size)
        assert examined.get(lambda: examined.data["k"].items.append(1)) == found
    assert len(examined.data["k"].items) == 2
    # What was too large once is not encoded again.
    encoded = []
    monkeypatch.setattr(examined.state._names.bound().codec, "encode", lambda *arguments: encoded.append(1))
    assert examined.get(lambda: examined.data["k"]) == 0
    assert encoded == []


def test_what_can_be_read_and_not_written_is_no_error(examined: App, monkeypatch: Any) -> None:
    def refuse(*arguments: Any) -> bytes:
        raise EncodingError("what another program has written")

    examined.data["k"] = Thing(1)
    monkeypatch.setattr(examined.state._names.bound().codec, "encode", refuse)
    assert examined.get(lambda: examined.data["k"]) == 0


def test_in_production_one_request_of_64_is_examined() -> None:
    app = App()
    app.data["k"] = Thing()

    def view() -> None:
        app.data["k"].items.append(1)

    assert app.get(view, EXAMINED_ONE_OF * 3) == 3
    assert app.get(view, EXAMINED_ONE_OF - 1) == 0
    assert app.get(view) == 1


def test_a_request_of_two_states_is_examined_for_both() -> None:
    other = make_workers(1)[0]
    app = App(TESTING=True, BIG_STORE_BACKEND=type(store_of(other)), BIG_STORE_SECRET_KEY="secret")
    big = GlobalState(app.app, config_prefix="BIG_STORE")
    large = big.dict("LARGE", initial={"k": Thing(1)})
    app.data["k"] = Thing(1)

    def view() -> None:
        large["k"].items.append(1)
        app.data["k"].items.append(1)

    assert app.get(view) == 1
    assert big.stats()["changed_in_place"] == {"LARGE": 1}
    assert "LARGE" not in app.state.stats()["changed_in_place"]


def test_scripts_are_not_examined(pair: Pair) -> None:
    pair.data["k"] = Thing(1)
    pair.data["k"].items.append(2)
    assert pair.state.stats()["changed_in_place"] == {}


def test_a_failed_begin_leaves_no_request_behind() -> None:
    class Down(WorkerStore):
        __slots__ = ("down",)

        def changes(self, *arguments: Any) -> Any:
            if getattr(self, "down", False):
                raise ConnectionError("down")
            return super().changes(*arguments)

    state = make_workers(1, Down)[0]
    data = state.dict("DATA", initial={"a": 1})
    assert data["a"] == 1
    data["b"] = 1
    store_of(state).down = True  # type: ignore[attr-defined]
    for _ in range(3):
        with pytest.raises(ConnectionError):
            state.begin_request()
    store_of(state).down = False  # type: ignore[attr-defined]
    assert not running_requests()
    with state.request():
        assert data["a"] == 1


def test_a_request_of_another_state_hides_no_lost_update() -> None:
    pair, other = Pair("raise"), make_workers(1)[0]
    pair.data["n"] = 0
    assert pair.data["n"] == pair.data["n"] == 0
    with pair.state.request():
        assert pair.data["n"] == pair.data["n"] == 0
        pair.change(n=5)
        beside = contextvars.Context()
        request = beside.run(other.begin_request)
        with pytest.raises(ConflictError):
            pair.data["n"] = 1
        beside.run(other.end_request, request)
    # What it had read is not taken for what a request has read that another state began.
    with other.request():
        assert pair.data["n"] == pair.data["n"] == 5
        pair.change(n=6)
        with pytest.raises(ConflictError):
            pair.data["n"] = 1


def test_a_request_that_just_begins_hides_no_lost_update() -> None:
    pair = Pair("raise")
    assert pair.data["n"] == pair.data["n"] == 1
    with pair.state.request():
        assert pair.data["n"] == pair.data["n"] == 1
        pair.change(n=5)
        beside = Request()
        elsewhere(beside.begin)
        try:
            with pytest.raises(ConflictError):
                pair.data["n"] = 2
        finally:
            beside.end()
