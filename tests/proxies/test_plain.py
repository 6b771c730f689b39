"""Plain objects for what takes nothing else: `unwrap`, `json_default`, arrays and pickles."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from flask_globalstate import GlobalState, json_default, unwrap
from flask_globalstate.tracking.plain import StandIn, TrackedContainer


@pytest.fixture
def state(tmp_path: Path) -> Iterator[GlobalState]:
    state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")})
    yield state
    state._names.bind(None)


def types_in(value: Any) -> set[type[Any]]:
    """The types of a value and of all that is in it."""
    items = (
        value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    )
    return {type(value)}.union(*map(types_in, items))


def test_unwrapped_is_plain_at_any_depth(state: GlobalState) -> None:
    data = state.dict("DATA", {"rows": [{"a": (1, [2])}], "tags": {"x"}})
    theme, hits, log = state.value("THEME", ["dark"]), state.counter("HITS", 3), state.list("LOG", [[1]])
    expected = {"rows": [{"a": (1, [2])}], "tags": {"x"}}
    assert unwrap(data) == expected
    assert types_in(unwrap(data)) == {dict, list, tuple, set, int, str}
    mixed = {"data": data, "inside": [data["rows"], theme], "hits": hits, "log": (log,)}
    plain = unwrap(mixed)
    assert plain == {"data": expected, "inside": [expected["rows"], ["dark"]], "hits": 3, "log": ([[1]],)}
    assert not any(issubclass(kind, (StandIn, TrackedContainer)) for kind in types_in(plain))


def test_unwrapping_changes_nothing_that_is_shared(state: GlobalState) -> None:
    data = state.dict("DATA", {"rows": [1]})
    unwrap(data)["rows"].append(2)
    unwrap(data["rows"]).append(3)
    assert data == {"rows": [1]}


def test_any_other_object_is_itself() -> None:
    thing = object()
    assert unwrap(thing) is thing
    assert unwrap([thing])[0] is thing


def test_what_holds_itself_is_an_error() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(RecursionError):
        unwrap(ring)


def test_json_is_told_of_every_kind(state: GlobalState) -> None:
    things = {
        "dict": state.dict("DICT", {"a": [1]}),
        "list": state.list("LIST", [1]),
        "value": state.value("VALUE", "dark"),
        "counter": state.counter("COUNTER", 2),
    }
    plain = {"dict": {"a": [1]}, "list": [1], "value": "dark", "counter": 2}
    assert json.loads(json.dumps(things, default=json_default)) == plain
    for thing, name in (
        (state.set("SET", {1}), "set"),
        (object(), "object"),
        (state.value("O", b""), "bytes"),
    ):
        with pytest.raises(TypeError, match=f"Object of type {name} is not JSON serializable"):
            json.dumps(thing, default=json_default)


def test_a_counter_of_floats_pickles_to_a_float(state: GlobalState) -> None:
    assert pickle.loads(pickle.dumps(state.counter("LOAD", 0.5))) == 0.5


def test_numpy_takes_each_kind_for_what_it_stands_for(state: GlobalState) -> None:
    data = state.dict("DATA", {"a": 1})
    assert numpy.array(data).item() == {"a": 1}
    assert numpy.array(state.set("TAGS", {1})).item() == {1}
    assert numpy.array(state.value("SIZE", [1.5, 2.5])).tolist() == [1.5, 2.5]
    assert (numpy.arange(3) + state.counter("HITS", 2)).tolist() == [2, 3, 4]
    assert numpy.array(state.list("MIXED", ["a", 1]), dtype=object).tolist() == ["a", 1]
    assert numpy.asarray(state.counter("SUM", 2), dtype=float).dtype == float
    with pytest.raises(ValueError, match="copy"):
        numpy.array(data, copy=False)
