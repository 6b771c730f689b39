"""Lost updates are detected, in every way in which one happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import ConflictError
from flask_globalstate.stores.memory import REMOVALS_KEPT
from tests.support.conflicts import Pair
from tests.support.workers import elsewhere


def add_to_item(pair: Pair) -> None:
    pair.data["n"] = change_between(pair, lambda: pair.data["n"], n=5) + 1


def read_then_assign(pair: Pair) -> None:
    found = pair.data["n"]
    pair.change(n=5)
    assert pair.data["n"] == found
    pair.data["n"] = found + 1


def assign_what_was_absent(pair: Pair) -> None:
    found = pair.data.get("new", 1)
    pair.change(new=5)
    pair.data["new"] = found + 1


def assign_what_was_not_in(pair: Pair) -> None:
    if "new" not in pair.data:
        pair.change(new=5)
        pair.data["new"] = 2


def update_after_reading(pair: Pair) -> None:
    found = pair.data["n"]
    pair.change(n=5)
    pair.data.update(n=found + 1, other=1)


def assign_after_items(pair: Pair) -> None:
    found = dict(pair.data.items())
    pair.change(n=5)
    pair.data["n"] = found["n"] + 1


def assign_after_a_nested_read(pair: Pair) -> None:
    pair.data["k"] = {"n": 1}
    found = pair.data["k"]["n"]
    pair.change(k={"n": 5})
    pair.data["k"] = {"n": found + 1}


def set_a_value(pair: Pair) -> None:
    found = pair.theme.value
    elsewhere(setattr, pair.their_theme, "value", "theirs")
    pair.theme.value = found + "er"


def set_a_counter(pair: Pair) -> None:
    found = pair.hits.value
    elsewhere(pair.their_hits.increment)
    pair.hits.set(found + 1)


def change_between(pair: Pair, read: Callable[[], Any], **items: Any) -> Any:
    """Read, and let the other worker write before the answer is used."""
    found = read()
    pair.change(**items)
    return found


LOST: dict[str, tuple[Callable[[Pair], None], str, Callable[[Pair], Any], Any]] = {
    "d[k] += 1": (add_to_item, "DATA", lambda p: p.theirs["n"], 2),
    "read, then assign": (read_then_assign, "DATA", lambda p: p.theirs["n"], 2),
    "get of what is absent": (assign_what_was_absent, "DATA", lambda p: p.theirs["new"], 2),
    "in": (assign_what_was_not_in, "DATA", lambda p: p.theirs["new"], 2),
    "update": (update_after_reading, "DATA", lambda p: (p.theirs["n"], "other" in p.theirs), (2, True)),
    "items": (assign_after_items, "DATA", lambda p: p.theirs["n"], 2),
    "a nested value": (assign_after_a_nested_read, "DATA", lambda p: p.theirs["k"], {"n": 2}),
    "a value": (set_a_value, "THEME", lambda p: p.their_theme.value, "darker"),
    "a counter": (set_a_counter, "HITS", lambda p: p.their_hits.value, 1),
}


THEIRS = [5, 5, 5, 5, (5, False), 5, {"n": 5}, "theirs", 1]


each_lost_update = pytest.mark.parametrize(("lose", "name", "look", "mine"), LOST.values(), ids=LOST)


@each_lost_update
def test_a_lost_update_is_logged_and_counted_and_written(
    caplog: Any, lose: Any, name: str, look: Any, mine: Any
) -> None:
    pair = Pair()
    for count in (1, 2):
        pair.theirs.update(n=1)
        pair.theirs.pop("new", None)
        pair.their_theme.value = "dark"
        pair.their_hits.set(0)
        caplog.clear()
        with pair.state.request():
            lose(pair)
        assert look(pair) == mine
        assert pair.conflicts() == {name: count}
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("flask_globalstate", logging.WARNING)
        assert name in record.getMessage()
    assert pair.states[1].stats()["conflicts"] == {}


@each_lost_update
def test_a_lost_update_is_an_error_before_anything_is_written(
    lose: Any, name: str, look: Any, mine: Any
) -> None:
    pair = Pair("raise")

    def request() -> None:
        with pair.state.request():
            lose(pair)

    with pytest.raises(ConflictError) as caught:
        request()
    assert caught.value.name == name
    assert (
        look(pair) == dict(zip(LOST, THEIRS, strict=True))[next(k for k, v in LOST.items() if v[0] is lose)]
    )
    assert pair.conflicts() == {name: 1}


@each_lost_update
def test_a_lost_update_is_ignored_if_that_is_asked_for(
    caplog: Any, lose: Any, name: str, look: Any, mine: Any
) -> None:
    pair = Pair("ignore")
    with pair.state.request():
        lose(pair)
    assert look(pair) == mine
    assert pair.conflicts() == {}
    assert not caplog.records


def test_a_warning_names_the_key_and_no_value(caplog: Any) -> None:
    pair = Pair()
    pair.data["n"] = "secret 1"
    with pair.state.request():
        found = pair.data["n"]
        pair.change(n="secret 2")
        pair.data["n"] = found + "secret 3"
    assert "DATA['n']" in caplog.text
    assert "secret" not in caplog.text


def test_several_lost_updates_of_one_update_are_as_many(pair: Pair) -> None:
    with pair.state.request():
        total = sum(pair.data.values())
        pair.change(n=5, m=5)
        pair.data.update(n=total, m=total, new=1)
    assert pair.conflicts() == {"DATA": 2}
    assert dict(pair.theirs) == {"n": 2, "m": 2, "new": 1}


@pytest.mark.parametrize("sync", ["request", "read", "manual"])
def test_they_are_found_in_every_mode(sync: str) -> None:
    pair = Pair(sync=sync)
    with pair.state.request():
        found = pair.data["n"]
        pair.change(n=5)
        pair.data["n"] = found + 1
    assert pair.conflicts() == {"DATA": 1}


def test_what_another_worker_has_removed_is_one_too(pair: Pair) -> None:
    for remove in (pair.theirs.clear, lambda: pair.theirs.pop("n")):
        pair.theirs["n"] = 1
        with pair.state.request():
            found = pair.data["n"]
            elsewhere(remove)
            pair.data["n"] = found + 1
    assert pair.conflicts() == {"DATA": 2}


def test_a_sync_in_between_does_not_hide_it(pair: Pair) -> None:
    for change in (lambda: pair.theirs.update(n=5), pair.theirs.clear):
        with pair.state.request():
            found = pair.data.setdefault("n", 1)
            assert pair.data["n"] == found
            elsewhere(change)
            elsewhere(pair.data.sync)
            pair.data["n"] = found + 1
    assert pair.conflicts() == {"DATA": 2}


def clear_the_log(pair: Pair) -> None:
    """Let it reach back too little for the next sync, which empties what is held then."""
    pair.theirs.update(n=5, **{f"key {n}": n for n in range(REMOVALS_KEPT + 1)})
    with pair.states[1].transaction():
        for n in range(REMOVALS_KEPT + 1):
            del pair.theirs[f"key {n}"]


@pytest.mark.parametrize(
    "change",
    [lambda pair: pair.theirs.update(n=5), lambda pair: pair.theirs.clear(), clear_the_log],
    ids=["update", "clear", "more than the log holds"],
)
@pytest.mark.parametrize("crowded", [False, True], ids=["alone", "another request begins"])
def test_a_sync_in_between_does_not_hide_what_was_read_by_a_hit(
    pair: Pair, change: Callable[[Pair], Any], crowded: bool
) -> None:
    elsewhere(pair.data.copy)
    with pair.state.request():
        assert pair.data["n"] == 1
        assert pair.data._replica.values == {"n": 1}
        elsewhere(change, pair)
        elsewhere(pair.data.sync)
        assert pair.data._replica.values == {}
        beside = elsewhere(pair.state.begin_request) if crowded else None
        pair.data["n"] = 2
    if beside is not None:
        elsewhere(pair.state.end_request, beside)
    assert pair.conflicts() == {"DATA": 1}


def test_an_item_inside_of_a_value_is_one_too(pair: Pair, caplog: Any) -> None:
    pair.data["k"] = {"deep": {"n": 1, "m": 1}}
    with pair.state.request():
        held = pair.data["k"]["deep"]
        found = held["n"]
        elsewhere(lambda: pair.theirs["k"]["deep"].update(n=5))
        held["m"] = 7
        assert pair.conflicts() == {}
        elsewhere(lambda: pair.theirs["k"]["deep"].update(n=6))
        held["n"] = found + 1
    assert pair.theirs["k"] == {"deep": {"n": 2, "m": 7}}
    assert pair.conflicts() == {"DATA": 1}
    assert "DATA['k']['deep']['n']" in caplog.text


@pytest.mark.parametrize("is_held", [False, True], ids=["not held", "held"])
def test_an_item_inside_of_a_value_is_an_error_before_anything_is_written(is_held: bool) -> None:
    pair = Pair("raise")
    pair.data["k"] = {"n": 1}
    if is_held:
        elsewhere(pair.data.copy)

    def request() -> None:
        with pair.state.request():
            held = pair.data["k"]
            pair.change(k={"n": 5})
            held["n"] += 1

    with pytest.raises(ConflictError, match=r"DATA\['k'\]\['n'\]"):
        request()
    assert pair.theirs["k"] == {"n": 5}
