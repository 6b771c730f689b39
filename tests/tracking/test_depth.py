"""Values that are nested deeply are stored whole or refused."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from flask_globalstate import ConflictError, EncodingError, GlobalState
from flask_globalstate.tracking.plain import DEEPEST, TrackedContainer, can_be_tracked, detach
from tests.support.workers import make_workers


def test_depth_is_no_limit_that_one_meets(data: Any, theirs: Any) -> None:
    value: Any = []
    for _ in range(100):
        value = [value, {"k": value}]
        value[1] = {"k": []}
    data["k"] = value
    held, found = data["k"], theirs["k"]
    for _ in range(100):
        held, found = held[0], found[0]
    held.append("deep")
    found.append("deeper")
    assert theirs["k"] == data["k"]
    assert found == ["deep", "deeper"]


def nested(kind: Any, levels: int) -> Any:
    value = kind()
    for _ in range(levels - 1):
        value = {"k": value} if kind is dict else kind([value])
    return value


@pytest.mark.slow
@pytest.mark.parametrize("levels", [150, DEEPEST, DEEPEST + 1, 300, 450, 700, 950, 5_000, 100_000])
@pytest.mark.parametrize("kind", [list, dict, tuple, frozenset])
@pytest.mark.parametrize("encoding", ["pickle", "json"])
def test_a_value_of_any_depth_is_stored_whole_or_refused_and_breaks_nothing(
    encoding: str, kind: Any, levels: int
) -> None:
    first, second = make_workers(encoding=encoding)
    mine, theirs = first.dict("DATA"), second.dict("DATA")
    rows, tags = first.list("ROWS"), first.set("TAGS")
    mine["rows"] = ["first"]
    deep, held = nested(kind, levels), mine["rows"]
    attempts: list[Callable[[], Any]] = [
        lambda: mine.update(a=1, deep=deep),
        lambda: mine.setdefault("other", deep),
        lambda: mine.apply("rows", lambda value: [*value, deep]),
        lambda: held.append(deep),
        lambda: held.__iadd__([deep]),
        lambda: held.insert(0, deep),
        lambda: rows.append(deep),
        lambda: tags.add(deep) if kind in (tuple, frozenset) else None,
        lambda: mine["deep"].append("more") if kind is list and "deep" in mine else None,
        lambda: mine["deep"].update(more=1) if kind is dict and "deep" in mine else None,
        lambda: copy.copy(mine["deep"]) if "deep" in mine else None,
        lambda: setattr(first.value("V"), "value", deep),
    ]
    for attempt in attempts:
        before = second.store.revision("DATA"), len(theirs["rows"])
        try:
            attempt()
        except (EncodingError, ConflictError):
            assert (second.store.revision("DATA"), len(theirs["rows"])) == before
        assert len(theirs["rows"]) == len(mine["rows"])
        assert ("deep" in theirs) == ("a" in theirs)
    for change in (lambda: rows.append("last"), lambda: tags.add("last"), rows.clear, tags.clear, mine.clear):
        with suppress(EncodingError):  # A set is no JSON.
            change()
    assert (len(theirs), len(second.list("ROWS"))) == (0, 0)
    for state in (first, second):
        state.close()


def twice(levels: int) -> Any:
    inside = nested(list, levels - 1)
    return [inside, inside]


@pytest.mark.parametrize(
    "make",
    [
        lambda levels: nested(list, levels),
        lambda levels: nested(dict, levels),
        lambda levels: [nested(list, levels - 1), 1],
        lambda levels: [nested(tuple, levels - 2), [nested(dict, levels - 2)]],
        lambda levels: ([nested(tuple, levels - 3)],),
        lambda levels: [[nested(tuple, levels - 3), [[]]], []],
        twice,
    ],
)
def test_a_value_is_tracked_up_to_the_same_depth_whatever_it_is_made_of(
    data: Any, theirs: Any, make: Callable[[int], Any]
) -> None:
    data.update(deepest=make(DEEPEST), deeper=make(DEEPEST + 3))
    assert theirs.copy() == {"deepest": make(DEEPEST), "deeper": make(DEEPEST + 3)}
    assert "tracking.types" in repr(list(map(type, containers(theirs["deepest"]))))
    assert "tracking.types" not in repr(list(map(type, containers(theirs["deeper"]))))
    for value, is_deeper in ((make(DEEPEST), False), (make(DEEPEST + 3), True)):
        assert detach(value) == (value, is_deeper)
        assert can_be_tracked(value) is not is_deeper


def containers(value: Any) -> list[Any]:
    """The first two levels."""
    return [value, *(value.values() if isinstance(value, dict) else value)]


def test_a_value_that_grows_deeper_and_deeper_is_refused_when_it_can_not_be_stored(
    data: Any, theirs: Any
) -> None:
    data["k"] = []
    held, levels = data["k"], 1

    def grow() -> None:
        nonlocal held, levels
        while levels < 5_000:
            held.append([])
            held, levels = held[0], levels + 1

    with pytest.raises(EncodingError):
        grow()
    found, stored = theirs["k"], 1
    while found:
        found, stored = found[0], stored + 1
    assert stored == levels > DEEPEST


def test_what_is_tracked_is_changed_at_the_end_of_the_stack_too(data: Any, theirs: Any) -> None:
    data["k"] = nested(list, DEEPEST)
    held = data["k"]

    def deeper(frames: int) -> None:
        if frames:
            deeper(frames - 1)
        else:
            held.append("more")

    room = sys.getrecursionlimit() - len(inspect.stack(0))
    with pytest.raises(EncodingError, match="too many containers"):
        deeper(room - DEEPEST)
    deeper(room - 3 * DEEPEST)
    assert theirs["k"][1:] == held[1:] == ["more"]
    assert isinstance(theirs["k"], TrackedContainer)


def test_what_can_not_be_copied_on_memory_is_an_encoding_error() -> None:
    data = GlobalState.from_config({}).dict("DATA")
    data["k"] = nested(list, 5_000)
    with pytest.raises(EncodingError, match="'k'"):
        data.apply("k", lambda value: value)
    with pytest.raises(EncodingError, match="'k'"), data.edit("k"):
        pass
    with pytest.raises(EncodingError, match="initial"):
        len(GlobalState.from_config({}).dict("OTHER", initial={"k": nested(dict, 5_000)}))
