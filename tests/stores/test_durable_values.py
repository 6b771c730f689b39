"""What a store in the manner of durabledict is given, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    ConflictError,
    DecodingError,
    GlobalState,
    JSONEncoding,
    SharedDict,
    SignatureError,
    UnsupportedOperationError,
)
from flask_globalstate.stores.durable import ReloadedStore
from tests.support.durables import MemoryDict, Shelf, asked, worker

# --- what it is given -----------------------------------------------------------------------------


def test_what_is_persisted_is_encoded_and_signed_bytes(shelf: Shelf) -> None:
    ours = worker(shelf)
    ours.update({"a": "text", 1: None})
    assert {type(value) for value in shelf.items.values()} == {bytes}
    assert list(shelf.items) == ["a", "\0i1"]
    assert dict(worker(shelf)) == {"a": "text", 1: None}
    shelf.items["\0i1"] = shelf.items["a"]
    shelf.number += 1
    with pytest.raises(SignatureError):
        ours[1]


def test_one_entry_that_cant_be_decoded_breaks_no_other(shelf: Shelf) -> None:
    ours = worker(shelf)
    ours.update(a=1, b="text", c=3)
    shelf.items["b"] = b"damaged"
    shelf.number += 1
    theirs = worker(shelf)
    with pytest.raises(DecodingError, match="'b'"):
        theirs["b"]
    assert (theirs["a"], theirs["c"], len(theirs), list(theirs), "b" in theirs) == (
        1,
        3,
        3,
        ["a", "b", "c"],
        True,
    )
    for use in (lambda: dict(theirs), lambda: theirs.pop("b"), lambda: theirs.setdefault("b", 1)):
        with pytest.raises(DecodingError):
            use()
    del theirs["b"]
    assert dict(ours) == {"a": 1, "c": 3}
    with pytest.raises(KeyError):
        del theirs["b"]


def test_an_old_encoding_is_read_while_moving_to_another(shelf: Shelf) -> None:
    worker(shelf)["a"] = [1]
    moving = worker(shelf, encoding=JSONEncoding(), old_encoding="pickle")
    assert moving["a"] == [1]
    moving["a"] = [2]
    assert worker(shelf, encoding="json")["a"] == [2]


def test_pickles_need_a_secret_key(shelf: Shelf) -> None:
    settings = {"STORE_BACKEND": MemoryDict, "STORE_OPTIONS": {"shelf": shelf}}
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        GlobalState.from_config(settings).dict("DATA")["a"] = "text"
    assert shelf.items == {}
    for way_out in (
        {"STORE_SECRET_KEY": "s"},
        {"STORE_ENCODING": "json"},
        {"STORE_OPTIONS": {"shelf": shelf, "unsigned_pickles": True}},
    ):
        data = GlobalState.from_config({**settings, **way_out}).dict(repr(way_out))
        data["a"] = "text"
        assert data.pop("a") == "text"


def test_a_class_that_encodes_by_itself_is_given_the_values(shelf: Shelf) -> None:
    class Own(MemoryDict):
        holds_objects = True

        def _pop(self, key: str, default: Any) -> Any:
            self.shelf.number += 1
            return self.shelf.items.pop(key, default)

    ours, theirs = worker(shelf, Own), worker(shelf, Own)
    thing = object()
    ours.update(a=thing, b=None)
    assert shelf.items == {"a": thing, "b": None}
    assert theirs["a"] is thing
    assert theirs["b"] is None
    assert theirs.pop("b", 5) is None
    assert theirs.pop("b", 5) == 5
    assert GlobalState.from_config(
        {"STORE_BACKEND": Own, "STORE_OPTIONS": {"shelf": shelf}, "STORE_ENCODING": "noop"}
    ).dict("DATA") == {"a": thing}


class Upper(MemoryDict):
    """Stores something else than it is given, as a class does that has an encoding of its own."""

    holds_objects = True

    def persist(self, key: str, value: Any) -> None:
        super().persist(key, [str(item).upper() for item in value])

    def durables(self) -> dict[str, Any]:
        return {key: list(value) for key, value in super().durables().items()}

    def last_updated(self) -> Any:
        super().last_updated()
        return "today"  # As of a file on a disk that knows whole seconds.


@pytest.mark.parametrize("is_request", [False, True])
@pytest.mark.parametrize("sync", ["request", "read", "manual"])
def test_a_write_is_shown_as_a_class_that_encodes_by_itself_has_stored_it(
    shelf: Shelf, sync: str, is_request: bool
) -> None:
    settings = {"STORE_BACKEND": Upper, "STORE_OPTIONS": {"shelf": shelf}, "STORE_SYNC": sync}
    state = GlobalState.from_config(settings)
    data, mine = state.dict("DATA"), ["a"]
    writes: list[Callable[[], Any]] = [
        lambda: data.__setitem__("k", mine),
        lambda: data.update(k=mine),
        lambda: (data.pop("k"), data.setdefault("k", mine)),
    ]
    with state.request() if is_request else nullcontext():
        assert dict(data) == {}
        for write in writes:
            write()
            for found in (
                data.get("k"),
                data.copy()["k"],
                dict(data.items())["k"],
                next(iter(data.values())),
            ):
                assert found == ["A"]
                assert found is not mine
        mine.append("b")
        assert data["k"] == ["A"]
    other = state.value("OTHER")
    with state.request() if is_request else nullcontext():
        assert other.value is None
        other.value = mine
        assert other.value == ["A", "B"]


@pytest.mark.parametrize("sync", ["request", "read", "manual"])
def test_a_write_that_fails_is_looked_up_in_every_mode(shelf: Shelf, sync: str) -> None:
    class Failing(MemoryDict):
        def persist(self, key: str, value: Any) -> None:
            super().persist(key, value)
            self.shelf.number -= 1
            raise OSError("cut off")

    settings = {"STORE_BACKEND": Failing, "STORE_OPTIONS": {"shelf": shelf}, "STORE_ENCODING": "json"}
    state = GlobalState.from_config({**settings, "STORE_SYNC": sync})
    data = state.dict("DATA")
    with state.request():
        assert dict(data) == {}
        with pytest.raises(OSError, match="cut off"):
            data["a"] = 1
        assert data["a"] == 1


# --- what it refuses, and what it is given for that -----------------------------------------------


def test_a_private_one_counts(shelf: Shelf) -> None:
    class Private(MemoryDict):
        shared = False

    ours = worker(shelf, Private)
    assert (ours.increment("n"), ours.increment("n", 5), ours.compare_and_set("n", 6, 7)) == (1, 6, True)
    ours["s"] = "text"
    with pytest.raises(TypeError):
        ours.increment("s")
    assert dict(ours) == {"n": 7, "s": "text"}


def test_a_nested_change_is_a_write_where_it_can_be_atomic_and_else_refused(shelf: Shelf) -> None:
    class Private(MemoryDict):
        shared = False

    store = ReloadedStore(Private, shelf=shelf)
    first, second = (SharedDict[Any, Any]("DATA", store, secret=b"s") for _ in range(2))
    first["list"] = [1]
    held = first["list"]
    held.append(2)
    assert first["list"] is held
    second["list"].append({"a": []})
    first["list"][2]["a"].append(3)
    assert first["list"] == second["list"] == [1, 2, {"a": [3]}]
    first["list"] += [4]
    with second.edit("list") as value:
        value.append(5)
    assert first["list"] == [1, 2, {"a": [3]}, 4, 5]

    def lose() -> None:
        with second.edit("list") as value:
            value.append(6)
            first["list"] = []

    with pytest.raises(ConflictError, match="'list'"):
        lose()
    assert second.apply("list", lambda value: [*value, 7]) == [7]
    assert first.pop("list") == [7]

    shared = worker(shelf)
    shared["list"] = [1]
    for change in (
        lambda: shared["list"].append(2),
        lambda: shared.apply("list", lambda value: [*value, 2]),
        lambda: shared.edit("list").__enter__(),
    ):
        with pytest.raises(UnsupportedOperationError, match="MemoryDict"):
            change()
    assert shared["list"] == [1]
    assert worker(shelf)["list"] == [1]


def test_nothing_is_refused_after_something_was_written(shelf: Shelf) -> None:
    ours = worker(shelf)
    asked(shelf)
    with pytest.raises(UnsupportedOperationError, match="MemoryDict"):
        ours.increment("n")
    with pytest.raises(TypeError):
        ours.increment([])
    assert asked(shelf) == []


class Atomic(MemoryDict):
    """Another worker comes before each of the optional methods."""

    def _setdefault(self, key: str, value: Any) -> Any:
        self.shelf.number += 1
        self.shelf.items.setdefault(key, b"5i")
        return self.shelf.items.setdefault(key, value)

    def _pop(self, key: str, default: Any = None) -> Any:
        self.shelf.number += 1
        self.shelf.items.pop(key, None)
        return self.shelf.items.pop(key, default)


class AsDurabledict(Atomic):
    """durabledict's own raise for a missing key where the default is false."""

    def _pop(self, key: str, default: Any = None) -> Any:
        found = super()._pop(key, default)
        if not found:
            raise KeyError(key)
        return found


@pytest.mark.parametrize("kind", [Atomic, AsDurabledict])
def test_the_optional_methods_decide_when_another_worker_comes_between(shelf: Shelf, kind: type[Any]) -> None:
    ours = worker(shelf, kind)
    assert ours.setdefault("a", 1) == 5
    assert ours.pop("a", "gone") == "gone"
    with pytest.raises(KeyError):
        ours.pop("a")
    assert dict(worker(shelf, kind, initial={"b": 1})) == {"b": 5}


def test_popitem_gives_what_no_other_worker_has_taken(shelf: Shelf) -> None:
    class Contended(MemoryDict):
        def _pop(self, key: str, default: Any = None) -> Any:
            found = self.shelf.items.pop(key)
            self.shelf.number += 1
            return default if key == "c" else found  # Another worker has come first.

    ours = worker(shelf, Contended)
    ours.update(a=1, b=2, c=3)
    assert ours.popitem() == ("b", 2)
    assert dict(ours) == {"a": 1}
