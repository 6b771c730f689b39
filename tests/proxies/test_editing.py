"""edit: a private copy of a value of any type, committed if nobody came between."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import pytest

from flask_globalstate import ConflictError, EncodingError, GlobalState
from tests.support.workers import WorkerStore


class Thing:
    """Of which only Python knows whether two are equal."""

    def __init__(self, *items: int) -> None:
        self.items = list(items)


class Stop(Exception):
    """Ends a block."""


# --- edit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [[1], {"a": [1]}, {1}, deque([1]), Counter("aa"), Thing(1)],
    ids=lambda value: type(value).__name__,
)
def test_an_edit_changes_a_private_copy_and_commits_it_once(
    data: Any, theirs: Any, mine: Any, value: Any
) -> None:
    data["k"] = value
    before, count = mine.commits, size(value)
    with data.edit("k") as copy:
        assert type(copy) is type(value)
        assert copy is not value
        grow(copy)
        assert size(theirs["k"]) == size(data["k"]) == count
        assert mine.commits == before
    assert mine.commits == before + 1
    assert size(theirs["k"]) == size(data["k"]) == count + 1


def grow(value: Any) -> None:
    """Change a value of whatever type."""
    if isinstance(value, Thing):
        value.items.append(2)
    elif isinstance(value, dict):
        value["new"] = [2]
    elif isinstance(value, set):
        value.add(2)
    else:
        value.append(2)


def size(value: Any) -> int:
    """How many items it holds."""
    return len(value.items if isinstance(value, Thing) else value)


@pytest.mark.parametrize("value", [[1, [2]], {"a": {1}}, Thing(1), deque([[1]]), 5, None, "text"])
def test_what_was_not_changed_is_not_written(data: Any, theirs: Any, mine: Any, value: Any) -> None:
    data["k"] = value
    before = mine.commits
    with data.edit("k"):
        theirs["other"] = 1
    with data.edit("absent", default=[]):
        pass
    assert mine.commits == before
    assert "absent" not in data


def test_an_exception_in_the_block_writes_nothing(data: Any, theirs: Any, mine: Any) -> None:
    data["k"] = [1]
    before = mine.commits

    def fail() -> None:
        with data.edit("k") as value:
            value.append(2)
            raise Stop

    with pytest.raises(Stop):
        fail()
    assert mine.commits == before
    assert data["k"] == theirs["k"] == [1]


def test_an_edit_is_a_conflict_if_another_worker_came_first(data: Any, theirs: Any, mine: Any) -> None:
    data["k"] = [1]
    before = mine.commits

    def work() -> None:
        with data.edit("k") as value:
            value.append(2)
            theirs["k"] = ["theirs"]

    with pytest.raises(ConflictError) as caught:
        work()
    assert (caught.value.name, caught.value.key) == ("DATA", "k")
    assert mine.commits == before
    assert data["k"] == theirs["k"] == ["theirs"]


def test_an_edit_of_an_absent_key_begins_with_a_copy_of_the_default(data: Any, theirs: Any) -> None:
    default: list[int] = []
    with pytest.raises(KeyError), data.edit("k"):
        pytest.fail("it ran")
    with data.edit("k", default=default) as value:
        value.append(1)
    with data.edit("k", default=default) as value:
        value.append(2)
    assert (data["k"], default) == ([1, 2], [])

    def late() -> None:
        with data.edit("new", default=default) as value:
            value.append(1)
            theirs["new"] = "theirs"

    with pytest.raises(ConflictError):
        late()
    assert data["new"] == "theirs"


def test_edits_of_two_keys_are_two_commits_and_of_one_key_a_conflict(data: Any, theirs: Any) -> None:
    data.update(a=[], b=[])
    with data.edit("a") as a, data.edit("b") as b:
        a.append(1)
        b.append(1)
    assert dict(theirs) == {"a": [1], "b": [1]}

    def twice() -> None:
        with data.edit("a") as outer:
            with data.edit("a") as inner:
                inner.append("inner")
            outer.append("outer")

    with pytest.raises(ConflictError):
        twice()
    assert theirs["a"] == [1, "inner"]


def test_what_a_tracked_value_was_put_into_is_plain(data: Any, theirs: Any) -> None:
    data.update(a=[1], b={})
    with data.edit("b") as value:
        value["a"] = data["a"]
    data["a"].append(2)
    if not theirs._replica.store.holds_objects:
        assert theirs["b"] == data["b"] == {"a": [1]}


@pytest.mark.parametrize("states", [WorkerStore], ids=["bytes"], indirect=True)
def test_what_can_not_be_stored_writes_nothing(data: Any, theirs: Any) -> None:
    data["k"] = [1]

    def work() -> None:
        with data.edit("k") as value:
            value.append(lambda: None)

    with pytest.raises(EncodingError):
        work()
    assert data["k"] == theirs["k"] == [1]


def test_a_value_is_edited_as_an_item_is(states: list[GlobalState]) -> None:
    mine, theirs = (state.value("THEME", initial={"a": 1}) for state in states)
    with mine.edit() as value:
        value["b"] = 2
    assert theirs.value == {"a": 1, "b": 2}
    assert mine.apply(lambda value: {**value, "c": 3}) == theirs.value == {"a": 1, "b": 2, "c": 3}

    @mine.edit(retry=3)
    def remove(value: dict[str, int], key: str) -> int:
        return value.pop(key)

    assert remove("a") == 1
    assert theirs.value == {"b": 2, "c": 3}
    unset = states[0].value("UNSET")
    with unset.edit(default=[]) as value:
        value.append(1)
    assert unset.value == [1]


# --- as a decorator ------------------------------------------------------------------------------------


def test_a_decorated_function_runs_again_and_gives_its_arguments_and_its_answer(
    data: Any, theirs: Any
) -> None:
    data["k"] = Counter()
    runs = []

    @data.edit("k", retry=2)
    def add(words: Counter[str], text: str, *, times: int = 1) -> int:
        """Count words."""
        runs.append(text)
        words.update(text.split() * times)
        if len(runs) < 3:
            theirs["k"] = Counter(theirs["k"]) + Counter(theirs=1)
        return words["a"]

    assert add("a b a", times=2) == 4
    assert len(runs) == 3
    assert theirs["k"] == Counter(a=4, b=2, theirs=2)
    assert add("a") == 5
    assert (add.__name__, add.__doc__) == ("add", "Count words.")


@pytest.mark.parametrize("retry", [0, 2])
def test_a_conflict_is_raised_when_all_retries_are_used_up(data: Any, theirs: Any, retry: int) -> None:
    data["k"] = [0]
    runs = []

    @data.edit("k", retry=retry)
    def add(value: list[Any]) -> None:
        runs.append(1)
        value.append("mine")
        theirs["k"] = [len(runs)]

    with pytest.raises(ConflictError):
        add()
    assert len(runs) == retry + 1
    assert data["k"] == [len(runs)]


def test_an_error_of_a_decorated_function_is_not_run_again(data: Any) -> None:
    data["k"] = [0]
    runs = []

    @data.edit("k", retry=5)
    def fail(value: list[int]) -> None:
        runs.append(1)
        value.append(1)
        raise Stop

    with pytest.raises(Stop):
        fail()
    assert (len(runs), data["k"]) == (1, [0])


def test_a_decorated_function_uses_the_default_each_time(data: Any) -> None:
    @data.edit("k", default=[], retry=1)
    def add(value: list[int], item: int) -> None:
        value.append(item)

    add(1)
    add(2)
    del data["k"]
    add(3)
    assert data["k"] == [3]


def test_without_retry_it_is_no_decorator(data: Any) -> None:
    with pytest.raises(TypeError, match="retry"):
        data.edit("k")(lambda value: None)


def test_what_can_not_be_a_key_is_an_error_at_once(data: Any) -> None:
    with pytest.raises(TypeError):
        data.edit([])


def test_one_edit_is_not_used_twice_at_the_same_time(data: Any, theirs: Any) -> None:
    data["k"] = []
    edit = data.edit("k")
    for number in range(2):
        with edit as value:
            value.append(number)
            with pytest.raises(RuntimeError, match="twice"), edit:
                pytest.fail("it ran")
    assert theirs["k"] == [0, 1]
