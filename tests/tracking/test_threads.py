"""Threads that change containers of one value."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.replicas.requests import MOST_NOTES
from tests.support.threads import run_threads
from tests.support.workers import elsewhere


def test_a_reference_is_what_is_read_after_its_change_whoever_has_read_that_before(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data["k"] = [1]
    held, real = data["k"], data._replica.commit

    def commit(*arguments: Any) -> Any:
        """Another thread reads what was committed before the objects here show it."""
        revision = real(*arguments)
        assert elsewhere(data.get, "k") == [1, 2]
        return revision

    monkeypatch.setattr(data._replica, "commit", commit)
    held.append(2)
    assert data["k"] is held
    assert held == [1, 2]


def test_threads_that_change_one_held_object_lose_nothing(states: list[GlobalState], theirs: Any) -> None:
    data = states[0].dict("DATA", initial={"k": {"log": [], "counts": {}, "seen": set()}})
    held = data["k"]
    log, counts, seen = held["log"], held["counts"], held["seen"]

    def work(who: int) -> None:
        for n in range(40):
            log.append((who, n))
            counts[f"{who} {n}"] = n
            if n % 3 == 0:
                del counts[f"{who} {n}"]
            seen.add((who, n))
            counts.setdefault(f"list {n}", []).append(who)

    run_threads(*[lambda who=who: work(who) for who in range(3)], lambda: work_elsewhere(theirs))
    assert len(log) == len(set(log)) == 160
    assert log == theirs["k"]["log"] == data["k"]["log"]
    assert seen == theirs["k"]["seen"] == set(log)
    assert counts == theirs["k"]["counts"]
    assert sorted(map(tuple, (sorted(counts[f"list {n}"]) for n in range(40)))) == [(0, 1, 2)] * 40
    assert data["k"]["log"] is log


def work_elsewhere(theirs: Any) -> None:
    """What another worker does meanwhile, with references that it takes anew."""
    for n in range(40):
        theirs["k"]["log"].append((9, n))
        theirs["k"]["seen"].add((9, n))


def test_two_threads_and_a_request_see_whole_values(states: list[GlobalState], theirs: Any) -> None:
    data = states[0].dict("DATA", initial={"k": {"a": [0], "b": [0]}})
    assert data["k"]["a"] == [0]
    stop = threading.Event()

    def change() -> None:
        try:
            for n in range(150):
                theirs.apply("k", lambda value, n=n: {"a": [*value["a"], n], "b": [*value["b"], n]})
        finally:
            stop.set()

    def request() -> None:
        while not stop.is_set():
            with states[0].request():
                first = data["k"]
                assert first["a"] == first["b"]

    run_threads(change, request, request)
    assert len(data["k"]["a"]) == 151


def test_what_has_changed_is_not_remembered_of_what_is_gone_for_long(data: Any, theirs: Any) -> None:
    data["k"] = {}
    tracked = data["k"]._tracked_value
    for n in range(MOST_NOTES + 100):
        data["k"][n] = {}
        data["k"][n]["x"] = 1
        if n % 2:
            del data["k"][n]
        else:
            data["k"].pop(n)
    assert data["k"]._tracked_value is tracked
    assert list(tracked._changed) == [id(tracked.value)]
    assert len(tracked._changed[id(tracked.value)]) == MOST_NOTES
    data["k"]["a"] = {"x": 1}
    data["k"]["a"]["x"] = 2
    held = data["k"]["a"]
    assert id(held) in tracked._changed
    theirs["k"].pop("a")
    tracked.value["b"] = 1
    assert "a" not in data["k"]
    assert id(held) not in tracked._changed
