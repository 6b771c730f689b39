"""Every way of reading counts as having read, also that a key was absent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from flask_globalstate import ConflictError, GlobalState, SharedDict
from tests.support.workers import elsewhere, make_workers, store_of

# --- every way of reading -------------------------------------------------------------------------


def in_a_transaction(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        return data["k"]


def in_a_transaction_that_writes(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        data["other"] = 1
        return data["k"]


def in_a_transaction_of_all(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        return data.copy()["k"]


def by_edit(state: GlobalState, data: Any) -> Any:
    with data.edit("k") as value:
        return value


def by_compare_and_set(state: GlobalState, data: Any) -> Any:
    return next(n for n in (9, 10) if not data.compare_and_set("k", 19 - n, 19 - n)) + 1


READS: dict[str, Callable[[GlobalState, Any], Any]] = {
    "item": lambda state, data: data["k"],
    "get": lambda state, data: data.get("k"),
    "copy": lambda state, data: data.copy()["k"],
    "items": lambda state, data: dict(data.items())["k"],
    "values": lambda state, data: next(iter(data.values())),
    "snapshot": lambda state, data: data.snapshot()["k"],
    "setdefault": lambda state, data: data.setdefault("k", 0),
    "==": lambda state, data: next(n for n in range(20) if data == {"k": n}),
    "|": lambda state, data: (data | {})["k"],
    "**": lambda state, data: dict(**data)["k"],
    "in values": lambda state, data: next(n for n in range(20) if n in data.values()),
    "transaction": in_a_transaction,
    "transaction that writes": in_a_transaction_that_writes,
    "transaction of all": in_a_transaction_of_all,
    "edit": by_edit,
    "apply": lambda state, data: data.apply("k", lambda value: value),
    "increment": lambda state, data: data.increment("k"),
    "pop": lambda state, data: data.pop("k"),
    "popitem": lambda state, data: data.popitem()[1],
    "compare_and_set": by_compare_and_set,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("warm", [True, False], ids=["held", "not held"])
@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_every_way_of_reading_counts(read: Callable[..., Any], warm: bool, mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    theirs["k"] = 10
    if warm:
        assert elsewhere(data.get, "k") == 10
    with state.request():
        found = read(state, data)
        elsewhere(theirs.update, k=found + 100)
        with pytest.raises(ConflictError):
            data["k"] = found + 1
    assert elsewhere(theirs.get, "k") == found + 100


def by_del(data: Any) -> None:
    with pytest.raises(KeyError):
        del data["k"]


ABSENT_WAYS: dict[str, Callable[[Any], Any]] = {
    "get": lambda data: data.get("k"),
    "in": lambda data: "k" in data,
    "pop": lambda data: data.pop("k", None),
    "compare_and_set": lambda data: data.compare_and_set("k", 1, 2),
    "del": by_del,
}


@pytest.mark.parametrize("absent", ABSENT_WAYS.values(), ids=ABSENT_WAYS)
@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_what_was_found_absent_counts_too(absent: Callable[..., Any], mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    with state.request():
        absent(data)
        elsewhere(theirs.update, k=1)
        with pytest.raises(ConflictError):
            data["k"] = 5


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
@pytest.mark.parametrize(
    "look",
    [
        lambda data: data.copy().get("k", 0),
        lambda data: dict(data.items()).get("k", 0),
        lambda data: (data | {}).get("k", 0),
        lambda data: "k" in list(data),
        len,
        lambda data: [*reversed(data)],
    ],
    ids=["copy", "items", "|", "list", "len", "reversed"],
)
def test_a_key_that_was_not_among_all_of_them_counts_as_absent(look: Callable[..., Any], mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update({n: n for n in range(3)})
    with state.request():
        look(data)
        elsewhere(theirs.update, k=1)
        with pytest.raises(ConflictError):
            data["k"] = 1
        data["mine"] = 1
        data["mine"] = 2
        del data["mine"]
        data["mine"] = 3
    look(data)
    data["outside"] = 1
    elsewhere(theirs.update, outside=2)
    data["outside"] = 3
    # To look again is a new note.
    del data["outside"]
    look(data)
    elsewhere(theirs.update, outside=4)
    with pytest.raises(ConflictError):
        data["outside"] = 5


@pytest.mark.parametrize("look", [list, len, SharedDict.copy])
def test_a_key_that_was_not_among_all_of_them_in_a_transaction_counts_as_absent(
    look: Callable[[Any], Any],
) -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data["other"] = 1
    with state.request():
        with state.transaction():
            look(data)
        elsewhere(theirs.update, k=1)
        with pytest.raises(ConflictError):
            data["k"] = 2


def test_two_workers_that_take_the_next_number_do_not_both_get_it() -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    with state.request():
        number = len(data)
        elsewhere(lambda: theirs.update({len(theirs): "theirs"}))
        with pytest.raises(ConflictError):
            data[number] = "mine"
    assert elsewhere(theirs.copy) == {0: "theirs"}


@pytest.mark.parametrize("mode", ["request", "read"])
def test_that_a_key_is_there_says_nothing_of_its_value(mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA", initial={"n": 1}), other.dict("DATA")

    def add() -> None:
        with state.request():
            data["n"] += 10

    with state.request():
        found = data["n"]
        elsewhere(add)  # What this worker holds of it is dropped.
        assert "n" in data
        with pytest.raises(ConflictError):
            data["n"] = found + 1
    assert elsewhere(theirs.get, "n") == 11


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    "look",
    [lambda data: "n" in data, lambda data: "n" in list(data), lambda data: len(data) == 2],
    ids=["in", "list", "len"],
)
def test_a_key_that_was_absent_and_is_seen_to_be_there_may_be_written(
    look: Callable[..., bool], inside: bool, held: bool, mode: str
) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA", initial={"m": 1}), other.dict("DATA")
    with state.request() if inside else nullcontext():
        assert "n" not in data
        elsewhere(theirs.update, n=2)
        if mode != "read":
            data._replica.sync()
        if held:
            assert elsewhere(lambda: data["n"]) == 2
        assert look(data)
        data["n"] = 3
    assert elsewhere(theirs.get, "n") == 3


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_a_key_that_in_has_not_found_counts_as_absent(mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA", initial={"m": 1}), other.dict("DATA")
    with state.request():
        assert "n" not in data
        elsewhere(theirs.update, n=2)
        with pytest.raises(ConflictError):
            data["n"] = 1


# --- a transaction that writes what was read before it --------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("absent", [True, False])
def test_a_transaction_that_writes_what_was_read_before_it_depends_on_that(
    inside: bool, absent: bool
) -> None:
    state, other = make_workers(on_conflict="raise")
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update({} if absent else {"n": 1}, m=1)

    @state.transactional(retries=2)
    def write(found: int) -> None:
        data["m"] = data["n"] = found + 1

    with state.request() if inside else nullcontext():
        for _ in range(3):
            found = data.get("n", 0)
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            write(found)
        assert elsewhere(theirs.copy) == {"m": 1, "n": 5}
        write(data["n"])
        store_of(state).before["commit"] = lambda: elsewhere(theirs.update, n=7)
        found = data["n"]
        with pytest.raises(ConflictError):
            write(found)
    assert elsewhere(theirs.copy) == {"m": 6, "n": 7}


def test_such_a_transaction_is_only_warned_of_where_conflicts_are() -> None:
    state, other = make_workers(on_conflict="warn")
    data, theirs = state.dict("DATA", initial={"n": 1, "m": 1}), other.dict("DATA")
    with state.request():
        found = data["n"]
        elsewhere(theirs.update, n=5)
        with state.transaction():
            data["m"] = data["n"] = found + 1
            data["n"] = found + 2
    assert elsewhere(theirs.copy) == {"n": 3, "m": 2}
    assert state.stats()["conflicts"] == {"DATA": 1}


@pytest.mark.parametrize("mode", ["request", "read", "manual"])
@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_what_is_read_again_after_a_conflict_is_newer(inside: bool, absent: bool, mode: str) -> None:
    state, other = make_workers(on_conflict="raise", sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update({} if absent else {"n": 1}, m=1)
    with state.request() if inside else nullcontext():
        found = data.get("n", 0)
        assert data.get("n", 0) == data.get("n", 0) == found
        elsewhere(theirs.update, n=5)
        with pytest.raises(ConflictError):
            data["n"] = found + 1
        data["n"] = data["n"] + 1
    assert elsewhere(theirs.get, "n") == 6
