"""apply: a function of a private copy of a value, run again until nobody came between."""

from __future__ import annotations

from typing import Any

import pytest

from flask_globalstate import ABSENT, SharedDict
from flask_globalstate.stores.memory import MemoryStore
from tests.support.workers import elsewhere


def test_apply_runs_again_until_it_holds_and_gives_the_new_value(data: Any, theirs: Any, mine: Any) -> None:
    data["n"] = 1
    seen = []

    def double(value: int) -> int:
        seen.append(value)
        if len(seen) < 4:
            elsewhere(theirs.increment, "n", 10)
        return value * 2

    assert data.apply("n", double) == 62
    assert seen == [1, 11, 21, 31]
    assert theirs["n"] == 62


def test_apply_gives_a_private_copy_and_the_default_if_there_is_none(data: Any, theirs: Any) -> None:
    data["k"] = [1]

    def spoil(value: list[int]) -> str:
        value.append(2)
        assert theirs["k"] == [1]
        return "new"

    assert data.apply("k", spoil) == "new"
    default: list[int] = []
    with pytest.raises(KeyError):
        data.apply("absent", len)
    for _ in range(2):
        data.apply("absent", lambda value: [*value, 1], default=default)
    assert (theirs["absent"], default) == ([1, 1], [])
    assert data.apply("none", lambda value: value, default=None) is None
    assert "none" in theirs


def test_apply_writes_nothing_if_the_function_raises(data: Any, mine: Any) -> None:
    data["k"] = [1]
    before = mine.commits
    with pytest.raises(ZeroDivisionError):
        data.apply("k", lambda value: value.append(1 / 0))
    assert mine.commits == before
    assert data["k"] == [1]


def test_the_mark_of_what_is_absent_is_never_written(data: Any, mine: Any) -> None:
    data["k"] = 1
    before = mine.commits
    for write in (
        lambda: data.apply("k", lambda _: ABSENT),
        lambda: data.compare_and_set("k", 1, ABSENT),
        lambda: data.setdefault("new", ABSENT),
    ):
        with pytest.raises(TypeError):
            write()
    assert (data.copy(), mine.commits) == ({"k": 1}, before)


def test_they_work_for_a_proxy_without_a_state() -> None:
    data: SharedDict[str, Any] = SharedDict("DATA", MemoryStore())
    with data.edit("k", default=[]) as value:
        value.append(1)
    assert data.apply("k", lambda value: [*value, 2]) == [1, 2]
