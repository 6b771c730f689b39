"""What goes wrong inside a tracked value, and tracked values on other stores and in other modes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flask_globalstate import ConflictError, EncodingError, GlobalState, StoreUnavailableError
from tests.support.workers import ObjectStore, elsewhere, make_workers, store_of

# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda d, gone: d["l"].extend(gone),
        lambda d, gone: d["l"].__iadd__(gone),
        lambda d, gone: d["l"].__setitem__(slice(3, 3), gone),
        lambda d, gone: d["d"].update((n, n) for n in gone),
        lambda d, gone: d["d"].__ior__((n, n) for n in gone),
        lambda d, gone: d["d"].update({n: n for n in (7, 8)}.items()),
        lambda d, gone: d["d"].update([iter(pair) for pair in zip((7, 8), (7, 8), strict=True)]),
        lambda d, gone: d["s"].update(gone, map(int, "99")),
        lambda d, gone: d["s"].symmetric_difference_update(gone),
        lambda d, gone: d["l"].extend({7: 1, 8: 2}.keys()),
    ],
)
def test_an_iterator_is_not_used_up_by_a_replay(data: Any, theirs: Any, mine: Any, change: Any) -> None:
    plain: dict[str, Any] = {"l": [1, 2], "d": {"a": 1}, "s": {1}}
    data["k"] = plain
    mine.before["commit"] = lambda: theirs["k"].update(other=1)
    change(data["k"], iter([7, 8]))
    change(plain, iter([7, 8]))
    assert theirs["k"] == data["k"] == {**plain, "other": 1}


def test_an_iterator_that_is_stored_is_an_error_as_anything_that_can_not_be(data: Any, theirs: Any) -> None:
    data["k"] = [1]
    with pytest.raises(EncodingError):
        data["k"].append(n for n in range(3))
    with pytest.raises(EncodingError):
        data["k"].append(threading.Lock())
    assert theirs["k"] == data["k"] == [1]


def test_an_error_of_what_is_given_leaves_all_as_it_was(data: Any, theirs: Any) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    data["k"] = [0]
    with pytest.raises(ZeroDivisionError):
        data["k"].extend(items())
    assert theirs["k"] == data["k"] == [0]


def test_an_answer_that_was_lost_is_not_done_again(data: Any, theirs: Any, mine: Any) -> None:
    def lose() -> None:
        raise StoreUnavailableError("down")

    data["k"] = {"l": []}
    held = data["k"]["l"]
    mine.after["commit"] = lose
    with pytest.raises(StoreUnavailableError):
        held.append(1)
    assert theirs["k"] == data["k"] == {"l": [1]}
    held.append(2)
    assert theirs["k"] == data["k"] == {"l": [1, 2]}
    assert held == [1, 2]


def test_what_a_call_was_given_is_in_no_message(data: Any, theirs: Any) -> None:
    data["k"] = {"l": ["secret 1"]}
    held = data["k"]["l"]
    del theirs["k"]["l"]
    with pytest.raises(ConflictError) as caught:
        held.append("secret 2")
    assert "secret" not in str(caught.value)


# --- other stores, other modes --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_references_follow_in_every_mode(mode: str) -> None:
    states = make_workers(sync=mode)
    data, theirs = (state.dict("DATA", initial={"k": {"l": []}}) for state in states)
    for request in (False, True):
        scope = states[0].begin_request() if request else None
        held = data["k"]["l"]
        elsewhere(lambda: (theirs.sync(), theirs["k"]["l"].append("theirs")))
        held.append("mine")
        assert held == data["k"]["l"]
        assert held[-2:] == ["theirs", "mine"]
        assert data["k"]["l"] is held
        if scope is not None:
            states[0].end_request(scope)
    theirs.sync()
    assert theirs["k"] == {"l": ["theirs", "mine"] * 2}


@pytest.mark.parametrize("kind", ["another store", "memory"])
def test_a_reference_goes_on_when_the_store_is_switched(kind: str) -> None:
    state = make_workers(1)[0]
    data = state.dict("DATA", initial={"k": {"rows": [{"id": 1}], "n": 0}})
    rows, row = data["k"]["rows"], data["k"]["rows"][0]
    rows.append({"id": 2})
    if kind == "memory":
        state.use_store("memory")
    else:
        state.use_store(type(store_of(make_workers(1)[0])), secret_key="secret")
    row["name"] = "one"
    rows.append({"id": 3})
    rows[0]["seen"] = True
    assert data["k"] == {"rows": [{"id": 1, "name": "one", "seen": True}, {"id": 2}, {"id": 3}], "n": 0}
    assert rows == data["k"]["rows"]
    data["k"] = {"rows": []}
    with pytest.raises(ConflictError):
        row["name"] = "gone"
    rows.insert(0, 1) if rows == [] else rows.append(1)
    assert data["k"] == {"rows": [1]}
    state.close()


def test_a_reference_is_a_conflict_when_the_state_was_cleared(states: list[GlobalState], data: Any) -> None:
    data["k"] = {"l": []}
    held = data["k"]["l"]
    states[1].clear()
    with pytest.raises(ConflictError, match=r"DATA\['k'\]\['l'\]"):
        held.append(1)
    assert dict(data) == {}


def test_on_memory_the_objects_are_the_plain_ones() -> None:
    data = make_workers(1, ObjectStore)[0].dict("DATA")
    value: dict[str, Any] = {"l": []}
    data["k"] = value
    assert data["k"] is value
    data["k"]["l"].append(1)
    data["k"]["l"] += [2]
    assert value == {"l": [1, 2]}
    assert type(data["k"]["l"]) is list
