"""Stores in the manner of durabledict: when they are loaded again."""

from __future__ import annotations

from typing import Any

import pytest

from flask_globalstate import (
    GlobalState,
    SharedDict,
    StoreUnavailableError,
)
from flask_globalstate.stores.durable import ReloadedStore
from tests.support.durables import MemoryDict, Shelf, asked, worker


def test_a_read_that_finds_nothing_changed_loads_nothing(shelf: Shelf) -> None:
    ours, theirs = worker(shelf), worker(shelf)
    ours.update(a=1, b=[2])
    assert theirs["a"] == 1
    asked(shelf)
    held = theirs["b"]
    assert theirs["b"] is held
    assert asked(shelf) == ["last_updated"] * 2
    ours["a"] = 5
    asked(shelf)
    assert theirs["a"] == 5
    assert asked(shelf) == ["last_updated", "durables"]
    # What has not changed is not decoded again.
    assert theirs["b"] is held


def test_in_a_request_it_is_asked_once(shelf: Shelf) -> None:
    state = GlobalState.from_config(
        {"STORE_BACKEND": MemoryDict, "STORE_OPTIONS": {"shelf": shelf}, "STORE_ENCODING": "json"}
    )
    data, other = state.dict("DATA"), state.dict("OTHER")
    theirs = SharedDict("DATA", ReloadedStore(MemoryDict, shelf=shelf), encoding="json")
    theirs["a"] = 1
    with state.request():
        assert data["a"] == 1
        theirs["a"] = 2
        asked(shelf)
        assert (data["a"], len(data), list(data), dict(data)) == (1, 1, ["a"], {"a": 1})
        assert asked(shelf) == []
        data["b"] = 5
        assert data["b"] == 5
    with state.request():
        assert data["a"] == 2
        assert "a" in other
        assert data["a"] == 2
        assert asked(shelf).count("durables") == 2
    theirs["a"] = 3
    assert data["a"] == 3


def test_manual_is_loaded_at_first_use_and_by_sync(shelf: Shelf) -> None:
    ours, theirs = worker(shelf, sync="manual"), worker(shelf)
    theirs["a"] = 1
    assert ours["a"] == 1
    theirs.update(a=2, b=2)
    asked(shelf)
    assert (ours["a"], ours.get("b"), dict(ours)) == (1, None, {"a": 1})
    assert asked(shelf) == []
    assert ours._replica.row == ours._replica.remembered
    ours["c"] = 3
    assert ours["c"] == 3
    ours.sync(sender="a signal")
    assert dict(ours) == {"a": 2, "b": 2, "c": 3}


def test_a_write_in_manual_mode_shows_what_others_have_written_before_it(shelf: Shelf) -> None:
    ours, theirs = worker(shelf, sync="manual"), worker(shelf)
    theirs.update(a=1, b=1)
    assert dict(ours) == {"a": 1, "b": 1}
    theirs.update(a=2, b=2)
    ours["b"] = 3
    # Not {"a": 1, "b": 3}, which never was.
    assert (ours["a"], ours.copy()) == (2, {"a": 2, "b": 3})
    theirs["a"] = 4
    asked(shelf)
    assert (ours["a"], ours["b"], dict(ours)) == (2, 3, {"a": 2, "b": 3})
    assert asked(shelf) == []
    for write in (lambda: ours.pop("b"), lambda: ours.setdefault("b", 5), ours.clear):
        write()
        assert dict(ours) == dict(theirs)


def test_many_writes_in_manual_mode_load_once(shelf: Shelf) -> None:
    ours = worker(shelf, sync="manual")
    assert dict(ours) == {}
    asked(shelf)
    for number in range(10):
        ours[str(number)] = number
    assert len(ours) == 10
    assert asked(shelf).count("durables") == 1


def test_a_write_while_it_is_loaded_is_seen_by_the_next_read(shelf: Shelf) -> None:
    ours, theirs = worker(shelf), worker(shelf)
    theirs["a"] = 1

    class Late(MemoryDict):
        def durables(self) -> dict[str, Any]:
            found = super().durables()
            if "b" not in self.shelf.items:
                theirs["b"] = 2
            return found

    late = worker(shelf, Late)
    assert late["a"] == 1
    assert late["b"] == 2
    assert ours["b"] == 2


def test_what_is_updated_at_an_unknown_time_is_loaded_each_time(shelf: Shelf) -> None:
    class Unknown(MemoryDict):
        def last_updated(self) -> Any:
            return None

    ours, theirs = worker(shelf, Unknown), worker(shelf)
    for n in range(3):
        theirs["a"] = n
        assert ours["a"] == n


def test_an_update_that_goes_back_is_a_change(shelf: Shelf) -> None:
    ours, theirs = worker(shelf), worker(shelf)
    theirs["a"] = 1
    assert ours["a"] == 1
    shelf.items.clear()
    shelf.number = 0
    assert dict(ours) == {}


def test_what_a_new_object_holds_is_loaded_whatever_it_says_of_its_last_update(shelf: Shelf) -> None:
    class Fresh(MemoryDict):
        def last_updated(self) -> Any:
            return 0  # Counted by each object for itself.

        def close(self) -> None: ...

    store = ReloadedStore(Fresh, shelf=shelf)
    data = SharedDict[Any, Any]("DATA", store, initial={"a": 1})
    assert dict(data) == {"a": 1}
    shelf.items["b"] = b"2i"
    store.close()
    assert dict(data) == {"a": 1, "b": 2}


def test_a_write_that_fails_is_not_believed(shelf: Shelf) -> None:
    class Failing(MemoryDict):
        def persist(self, key: str, value: Any) -> None:
            super().persist(key, value)
            self.shelf.number -= 1
            raise OSError("cut off")

    ours, theirs = worker(shelf, Failing), worker(shelf)
    assert dict(ours) == {}
    with pytest.raises(OSError, match="cut off"):
        ours["a"] = 1
    assert ours["a"] == 1
    assert dict(theirs) == {"a": 1}


def test_reads_go_on_for_a_while_when_the_store_is_down(shelf: Shelf) -> None:
    class Down(MemoryDict):
        def last_updated(self) -> Any:
            if self.shelf.number < 0:
                raise StoreUnavailableError("down")
            return super().last_updated()

    settings = {"STORE_BACKEND": Down, "STORE_OPTIONS": {"shelf": shelf}}
    strict = GlobalState.from_config(settings).dict("DATA")
    patient = GlobalState.from_config({**settings, "STORE_STALE_IF_DOWN": 60}).dict("DATA")
    strict["a"] = patient["b"] = 1
    assert (dict(strict), dict(patient)) == ({"a": 1, "b": 1},) * 2
    shelf.number = -1
    assert patient["a"] == 1
    with pytest.raises(StoreUnavailableError):
        strict["a"]
    with pytest.raises(StoreUnavailableError):
        GlobalState.from_config(settings)
