"""What transactions see of others, and others of them: one revision, and nothing before the commit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from flask_globalstate import ConflictError
from tests.support import PATIENCE
from tests.support.transactions import Names, Stop, attempt
from tests.support.workers import elsewhere, store_of

READS: dict[str, Callable[[Names], Any]] = {
    "a key": lambda names: names.data["a"],
    "get": lambda names: names.data.get("a"),
    "in": lambda names: "a" in names.data,
    "an absent key": lambda names: names.data.get("new"),
    "an absent key, in": lambda names: "new" in names.data,
    "length": lambda names: len(names.data),
    "iteration": lambda names: list(names.data),
    "items": lambda names: dict(names.data),
    "snapshot": lambda names: names.data.snapshot(),
    "bool": lambda names: bool(names.data),
    "a nested value": lambda names: names.data["l"][0],
    "setdefault": lambda names: names.data.setdefault("a", 5),
    "pop of what is absent": lambda names: names.data.pop("new", None),
    "compare_and_set": lambda names: names.data.compare_and_set("a", "something else", 1),
    "a counter": lambda names: names.hits.value,
    "a value": lambda names: names.theme.value,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_whatever_was_read_is_a_condition(mine: Names, theirs: Names, read: Callable[[Names], Any]) -> None:
    def others_change_everything() -> None:
        theirs.data.update(a=9, l=[], new=1)
        theirs.hits += 1
        theirs.theme.value = "theirs"

    def work() -> None:
        read(mine)
        elsewhere(others_change_everything)
        mine.other["x"] = 1

    with pytest.raises(ConflictError) as caught:
        attempt(mine.state, work)
    assert caught.value.name in ("DATA", "HITS", "THEME")
    assert "x" not in theirs.other


def test_a_conflict_names_the_name_and_the_key(mine: Names, theirs: Names) -> None:
    def work() -> None:
        assert mine.data["a"] == 1
        elsewhere(theirs.data.update, a=9)
        mine.other["x"] = 1

    with pytest.raises(ConflictError) as caught:
        attempt(mine.state, work)
    assert (caught.value.name, caught.value.key) == ("DATA", "a")


def test_what_a_stack_of_contexts_holds_is_one_commit_too(mine: Names, theirs: Names) -> None:
    with ExitStack() as stack:
        stack.enter_context(mine.state.transaction())
        mine.data["a"] = 5
        assert mine.data["a"] == 5
        assert elsewhere(theirs.data.get, "a") == 1
    assert elsewhere(theirs.data.get, "a") == mine.data["a"] == 5


def test_an_edit_is_a_conflict_with_a_write_of_its_own_transaction(mine: Names, theirs: Names) -> None:
    def work() -> None:
        with mine.data.edit("l") as rows:
            rows.append(2)
            mine.data["l"] = [9]

    def work_and_go_on() -> None:
        with pytest.raises(ConflictError):
            work()

    attempt(mine.state, work_and_go_on)
    assert theirs.data["l"] == [9]


def test_what_is_removed_and_written_again_is_at_the_end(mine: Names, theirs: Names) -> None:
    def work() -> list[Any]:
        assert list(mine.data) == ["a", "l"]
        del mine.data["a"]
        mine.data["a"] = 5
        return list(mine.data.items())

    assert attempt(mine.state, work) == list(theirs.data.items()) == [("l", [1]), ("a", 5)]


def test_what_was_read_while_a_commit_was_under_way_is_checked(
    mine: Names, theirs: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mine.all() == theirs.all()
    # Shared memory is as it was, and says that there was a commit of which the end was not seen.
    row = memoryview(bytes(8)).cast("Q")
    monkeypatch.setattr(type(mine.state.store), "watch", lambda store, name: row)
    monkeypatch.setattr(type(mine.state.store), "is_idle", lambda store, name, seen: False)

    def work() -> None:
        assert mine.data["a"] == 1
        elsewhere(attempt, theirs.state, lambda: (theirs.data.update(a=2), theirs.other.update(x=2)))
        with pytest.raises(ConflictError):
            mine.other.get("x")
        raise Stop

    with pytest.raises(Stop):
        attempt(mine.state, work)


def test_a_name_that_is_first_used_in_a_transaction_shows_what_was_written_in_it(
    mine: Names, theirs: Names
) -> None:
    theirs.state.dict("NEW")["k"] = 1

    def work() -> int:
        new = mine.state.dict("NEW")
        new["k"] = 2
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                assert pool.submit(new.get, "k").result(PATIENCE) == 1
        return int(new["k"])

    assert attempt(mine.state, work) == theirs.state.dict("NEW")["k"] == 2


@pytest.mark.parametrize("first", [len, list])
def test_the_keys_and_the_items_are_of_one_revision(
    mine: Names, theirs: Names, first: Callable[[Any], Any]
) -> None:
    def work() -> None:
        first(mine.data)
        elsewhere(theirs.data.update, new=1)
        mine.data.copy()
        mine.other["x"] = 1

    with pytest.raises(ConflictError):
        attempt(mine.state, work)


def test_the_keys_that_a_transaction_has_listed_are_not_asked_for_again(mine: Names, theirs: Names) -> None:
    store = store_of(mine.state)
    assert mine.data["a"] == 1
    del theirs.data["l"]
    attempt(mine.state, lambda: list(mine.data))
    store.asked.clear()
    assert list(mine.data) == ["a"]
    assert "keys" not in store.asked


@pytest.mark.parametrize("second", READS.values(), ids=READS)
@pytest.mark.parametrize("step", ["before", "after", "between"])
def test_reads_are_of_one_revision_whenever_others_come_between(
    mine: Names, theirs: Names, second: Callable[[Names], Any], step: str
) -> None:
    """What is written together is seen together, or the transaction ends before it shows anything."""
    assert mine.all() == theirs.all()
    store = store_of(mine.state)

    def others() -> None:
        elsewhere(attempt, theirs.state, change)

    def change() -> None:
        theirs.other["first"] = "new"
        theirs.data.update(a="new", l=["new"], new="new")
        theirs.hits.set(-1)
        theirs.theme.value = "new"

    def work() -> None:
        first = mine.other.get("first")
        assert first is None
        if step == "between":
            others()
        else:
            for method in ("fetch", "keys"):
                getattr(store, step)[method] = others
        seen.append(second(mine))

    seen: list[Any] = []
    unchanged = second(theirs)
    try:
        attempt(mine.state, work)
    except ConflictError:
        assert step != "after" or seen == []
    assert seen in ([], [unchanged])


def test_write_skew_does_not_happen(mine: Names, theirs: Names) -> None:
    theirs.data.update(ann="on call", bob="on call")

    def leave(names: Names, name: str) -> None:
        if names.data["ann"] == names.data["bob"] == "on call":
            names.data[name] = "off"

    def both() -> None:
        leave(mine, "ann")
        elsewhere(attempt, theirs.state, lambda: leave(theirs, "bob"))

    with pytest.raises(ConflictError):
        attempt(mine.state, both)
    assert (theirs.data["ann"], theirs.data["bob"]) == ("on call", "off")


def test_writes_that_depend_on_nothing_conflict_with_nobody(mine: Names, theirs: Names) -> None:
    def work() -> None:
        mine.data["b"] = 1
        mine.data.update(c=2)
        mine.theme.value = "mine"
        elsewhere(theirs.data.update, b=0, d=4)
        elsewhere(setattr, theirs.theme, "value", "theirs")

    attempt(mine.state, work)
    assert dict(theirs.data) == {"a": 1, "l": [1], "b": 1, "d": 4, "c": 2}
    assert theirs.theme.value == "mine"


def test_what_is_only_read_is_no_commit_and_no_conflict(mine: Names, theirs: Names) -> None:
    before = mine.all()
    commits = store_of(mine.state).commits
    with mine.state.transaction():
        seen = mine.all()
        elsewhere(theirs.data.update, a=2)
    assert seen == before
    assert store_of(mine.state).commits == commits


def test_a_caught_conflict_does_not_let_the_transaction_through(mine: Names, theirs: Names) -> None:
    def others() -> None:
        theirs.data["a"] = 2
        theirs.other["x"] = 2

    def work() -> None:
        assert mine.data["a"] == 1
        elsewhere(others)
        with pytest.raises(ConflictError):
            mine.other.get("x")
        mine.hits += 1

    with pytest.raises(ConflictError):
        attempt(mine.state, work)
    assert theirs.hits.value == 0
