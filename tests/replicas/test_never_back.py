"""Reads of a key never go back, by whichever method and whatever happens beside them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_globalstate import DecodingError, GlobalState, SharedDict
from flask_globalstate.stores.base import Write
from tests.support import PATIENCE
from tests.support.workers import elsewhere, make_workers, store_of

Show = Callable[[GlobalState, SharedDict[Any, Any]], Any]


class Seen:
    """A request that has read ``k`` as 1 and ``gone`` as there, before another worker changed both."""

    def __init__(self, mode: str) -> None:
        self.states = make_workers(2, sync=mode)
        self.state = self.states[0]
        self.data, self.theirs = (state.dict("DATA") for state in self.states)
        self.data.update(k=1, gone=1, other=0, rows=[1])
        self.store = store_of(self.state)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        with self.state.request():
            assert (self.data["k"], self.data["gone"], list(self.data["rows"])) == (1, 1, [1])
            assert self.data.get("new") is None
            elsewhere(self.change)
            yield

    def change(self) -> None:
        self.theirs.update(k=2, new=2, rows=[1, 2])
        del self.theirs["gone"]

    def commit_in_another_thread(self) -> None:
        """Raise the high-water mark, so that the answer that is on its way may not be kept."""
        thread = threading.Thread(target=self.data.increment, args=("other",))
        thread.start()
        thread.join(PATIENCE)


def edit(state: GlobalState, data: Any) -> Any:
    with data.edit("k") as value:
        return value


def transaction(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        return data["k"]


def transaction_that_writes(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        data["more"] = 1
        return data["k"]


def transaction_of_all(state: GlobalState, data: Any) -> Any:
    with state.transaction():
        return data.copy()["k"]


SHOWS: dict[str, Show] = {
    "copy": lambda state, data: data.copy()["k"],
    "items": lambda state, data: dict(data.items())["k"],
    "values": lambda state, data: next(iter(data.values())),
    "snapshot": lambda state, data: data.snapshot()["k"],
    "apply": lambda state, data: data.apply("k", lambda value: value),
    "edit": edit,
    "compare_and_set": lambda state, data: 1 if data.compare_and_set("k", 99, 0) else 2,
    "transaction": transaction,
    "transaction that writes": transaction_that_writes,
    "transaction of all": transaction_of_all,
}


@pytest.mark.parametrize("show", SHOWS.values(), ids=SHOWS)
@pytest.mark.parametrize("beside", [True, False], ids=["beside a commit", "alone"])
@pytest.mark.parametrize("mode", ["request", "read", "manual"])
def test_a_value_that_was_shown_is_not_followed_by_an_older_one(show: Show, beside: bool, mode: str) -> None:
    seen = Seen(mode)
    with seen.request():
        if beside:
            seen.store.after["fetch"] = seen.commit_in_another_thread
        shown = show(seen.state, seen.data)
        assert seen.data["k"] >= shown
        assert seen.data.copy()["k"] >= shown


GONE: dict[str, Callable[[GlobalState, Any], Any]] = {
    "copy": lambda state, data: "gone" in data.copy(),
    "list": lambda state, data: "gone" in list(data),
    "pop": lambda state, data: data.pop("gone", None) is not None,
    "compare_and_set": lambda state, data: data.compare_and_set("gone", 1, 5),
}


@pytest.mark.parametrize("look", ["copy", "list", "pop", "compare_and_set"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside a commit", "alone"])
@pytest.mark.parametrize("mode", ["request", "read"])
def test_a_key_that_was_shown_to_be_gone_does_not_come_back(look: str, beside: bool, mode: str) -> None:
    seen = Seen(mode)
    with seen.request():
        if beside:
            for method in ("fetch", "keys"):
                seen.store.after[method] = seen.commit_in_another_thread
        assert not GONE[look](seen.state, seen.data)
        assert seen.data.get("gone") is None
        assert "gone" not in seen.data
        assert "gone" not in list(seen.data)


@pytest.mark.parametrize("look", [SharedDict.copy, list, lambda data: data.setdefault("new", 3)])
@pytest.mark.parametrize("beside", [True, False], ids=["beside a commit", "alone"])
def test_a_key_that_was_shown_to_be_there_is_not_absent_afterwards(
    look: Callable[[Any], Any], beside: bool
) -> None:
    seen = Seen("request")
    with seen.request():
        if beside:
            for method in ("fetch", "keys"):
                seen.store.after[method] = seen.commit_in_another_thread
        look(seen.data)
        assert seen.data.get("new") == 2
        assert "new" in seen.data


@pytest.mark.parametrize("look", [list, SharedDict.copy])
def test_what_a_transaction_has_shown_of_the_whole_name_is_not_followed_by_an_older_answer(
    look: Callable[[Any], Any],
) -> None:
    seen = Seen("request")
    with seen.request():
        with seen.state.transaction():
            found = look(seen.data)
        assert "new" in found
        assert "gone" not in found
        assert seen.data.get("new") == 2
        assert seen.data.get("gone") is None
        assert len(seen.data) == len(found)


def test_a_transaction_that_fails_has_shown_what_it_has_read() -> None:
    seen = Seen("request")
    with seen.request():
        with contextlib.suppress(ZeroDivisionError), seen.state.transaction():
            assert seen.data["k"] == 2
            raise ZeroDivisionError
        assert seen.data["k"] == 2


def test_what_is_older_is_dropped_and_what_is_newer_stays() -> None:
    """A slow answer that is shown says nothing against what was read of a later revision."""
    state, other = make_workers()
    data, theirs = state.dict("DATA"), other.dict("DATA")
    data.update(k=1, other=0)
    store = store_of(state)

    def newer() -> None:
        elsewhere(theirs.update, k=3)
        thread = threading.Thread(target=lambda: (data.sync(), data["k"]))
        thread.start()
        thread.join(PATIENCE)

    store.after["fetch"] = newer
    assert data.copy()["k"] == 1
    asked = len(store.asked)
    assert data["k"] == 3
    assert len(store.asked) == asked


BESIDE: dict[str, Show] = {name: SHOWS[name] for name in ("apply", "edit", "compare_and_set", "transaction")}


@pytest.mark.parametrize("show", BESIDE.values(), ids=BESIDE)
def test_a_slow_answer_does_not_hide_what_was_shown_while_it_was_on_its_way(show: Show) -> None:
    state, other = make_workers()
    data, theirs = state.dict("DATA"), other.dict("DATA")
    theirs.update(k=1, other=1)
    shown: list[int] = []

    def newer() -> None:
        elsewhere(theirs.update, k=2)
        shown.append(show(state, data))

    with state.request():
        assert data["other"] == 1
        store_of(state).after["fetch"] = newer
        assert data["k"] == 1  # It was asked for before the other worker's write.
        assert shown == [2]
        assert data["k"] == 2


def test_a_slow_answer_does_not_bring_back_what_was_shown_to_be_gone_while_it_was_on_its_way() -> None:
    state, other = make_workers()
    data, theirs = state.dict("DATA"), other.dict("DATA")
    theirs.update(k=1, other=1)
    shown: list[Any] = []

    def newer() -> None:
        elsewhere(theirs.pop, "k")
        shown.append(data.pop("k", "gone"))

    with state.request():
        assert data["other"] == 1
        store_of(state).after["fetch"] = newer
        assert data.get("k") == 1
        assert shown == ["gone"]
        assert data.get("k") is None


def test_a_key_that_was_shown_is_there_also_if_the_keys_were_listed_before() -> None:
    state, other = make_workers()
    data, theirs = state.dict("DATA"), other.dict("DATA")
    theirs["k"] = 1
    with state.request():
        assert list(data) == ["k"]
        elsewhere(theirs.update, new=2)
        with data.edit("new") as shown:
            assert shown == 2
        assert "new" in data
        assert list(data) == ["k", "new"]


def test_what_could_not_be_decoded_is_not_followed_by_an_older_value() -> None:
    state = make_workers(1)[0]
    data = state.dict("DATA")
    data.update(k=1, other=1)
    with state.request():
        assert data["k"] == 1
        store_of(state).commit([Write("DATA", "k", b"garbage")])
        with pytest.raises(DecodingError):
            data.copy()
        with pytest.raises(DecodingError):
            data["k"]
