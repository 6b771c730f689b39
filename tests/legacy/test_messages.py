"""What is said of shared module globals: by the names of the module, with advice for its user, and rarely."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import ConflictError, SharedCounter, SharedValue
from flask_globalstate.values.wording import is_told
from tests.support.legacy_modules import Worker

Start = Callable[..., Worker]
#: what only code that can be edited can do
NOT_FOR_ITS_USER = ("increment", "apply", ".edit(", "transaction", "assign it again", "writeback")


class Game:
    """An object that is changed in place."""

    score = 0


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def lose(worker: Worker, other: Worker, name: str = "set_theme", theirs: Any = "theirs") -> None:
    """Bind something that another worker has bound since."""
    with worker.state.request():
        other.request(name, theirs)
        getattr(worker.legacy, name)(f"mine after {theirs}" if name == "set_theme" else 1)


def test_the_first_is_told_and_then_the_double() -> None:
    assert [times for times in range(1, 41) if is_told(times)] == [1, 2, 4, 8, 16, 32]


def test_a_lost_update_is_told_by_the_name_of_the_module_and_rarely(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    worker, other = (start().share("THEME") for _ in range(2))
    for turn in range(40):
        lose(worker, other, theirs=f"theirs {turn}")
    told = warnings(caplog)
    assert len(told) == 6
    assert all(line.startswith("legacy.THEME was ") for line in told)
    assert "40" not in told[0]
    assert "32 times" in told[-1]
    assert "SharedCounter" in told[0]
    assert not [line for line in told for word in NOT_FOR_ITS_USER if word in line]
    assert worker.state.stats()["conflicts"] == {"legacy.THEME": 40}


def test_a_lost_update_of_an_item_is_told_where_it_is(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    worker, other = (start().share("DATA") for _ in range(2))
    with worker.state.request():
        number = worker.legacy.DATA["n"]
        other.legacy.DATA["n"] = 5
        worker.legacy.DATA["n"] = number + 1
    (line,) = warnings(caplog)
    assert line.startswith("legacy.DATA['n'] was ")
    assert 'STORE_ON_CONFLICT = "raise"' in line
    assert not [word for word in (*NOT_FOR_ITS_USER, "SharedCounter") if word in line]


def test_the_advice_for_items_can_be_followed(start: Start) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("DATA") for _ in range(2))
    with worker.state.request():
        number = worker.legacy.DATA["n"]
        other.legacy.DATA["n"] = 5
        with pytest.raises(ConflictError, match=r"legacy\.DATA"):
            worker.legacy.DATA["n"] = number + 1


def test_the_advice_for_numbers_can_be_followed(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    worker, other = (start().share(HITS=SharedCounter) for _ in range(2))
    lose(worker, other, "hit", 1)
    assert warnings(caplog) == []
    assert worker.read("HITS") == 2


def test_a_name_that_several_requests_may_have_bound_is_told_without_a_key(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    beside = worker.state.begin_request()
    for turn in range(5):
        worker.state.end_request(beside)
        beside = worker.state.begin_request()
        one = worker.state.begin_request()
        other.request("set_theme", f"theirs {turn}")
        worker.legacy.set_theme(f"mine {turn}")
        worker.state.end_request(one)
    worker.state.end_request(beside)
    told = warnings(caplog)
    assert len(told) == 3
    assert all(line.startswith("legacy.THEME was bound while several") for line in told)
    assert not [line for line in told if "''" in line]


def test_what_cannot_be_published_is_told_rarely(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    worker = start().share("THEME", HITS=SharedCounter)
    for _ in range(20):
        worker.legacy.THEME = lambda: None
        worker.legacy.HITS = "x"
        worker.read("THEME")
    told = warnings(caplog)
    for name in ("legacy.THEME", "legacy.HITS"):
        assert 1 <= len([line for line in told if name in line]) <= 5


def test_an_object_changed_in_place_is_told_with_advice_that_helps(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start()
    worker.legacy.GAMES = {"a": Game()}
    worker.share("GAMES")
    stats = worker.state._names.bound().stats
    for _ in range(5):
        stats.met_change_in_place("legacy.GAMES", "a")
    told = warnings(caplog)
    assert len(told) == 3
    assert told[0].startswith("legacy.GAMES['a'] was changed in place")
    assert "share_globals(..., GAMES=SharedValue)" in told[0]
    assert not [word for word in NOT_FOR_ITS_USER if word in told[0]]


def test_the_advice_for_objects_can_be_followed(start: Start) -> None:
    worker, other = start(), start()
    for one in (worker, other):
        one.legacy.GAMES = {"a": Game()}
        one.share(GAMES=SharedValue)
    with worker.state.request():
        worker.legacy.GAMES["a"].score = 7
    assert other.read("GAMES")["a"].score == 7


def test_other_globals_are_told_as_before(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    worker = start().share("DATA")
    stats = worker.state._names.bound().stats
    for _ in range(3):
        stats.met_change_in_place("OTHER", "a")
    assert len([line for line in warnings(caplog) if "OTHER.edit('a')" in line]) == 3
    worker.state.unshare_globals()
    stats.met_change_in_place("legacy.DATA", "a")
    assert "legacy.DATA.edit('a')" in warnings(caplog)[-1]


def test_messages_know_the_names_on_another_store_too(start: Start, tmp_path: Any, caplog: Any) -> None:
    worker = start().share("DATA")
    worker.state.use_store("shelve", path=str(tmp_path / "other"))
    worker.state._names.bound().stats.met_change_in_place("legacy.DATA", "a")
    assert "DATA=SharedValue" in warnings(caplog)[-1]


def test_a_conflict_of_a_whole_value_names_no_key() -> None:
    assert str(ConflictError("legacy.THEME", "", 1, 2)).startswith("'legacy.THEME' was changed")
    assert str(ConflictError("LOG", "", 1, 2, "[3]['x']")).startswith("LOG[3]['x'] was changed")
    assert str(ConflictError("DATA", "a", 1, 2)).startswith("key 'a' of 'DATA' was changed")
