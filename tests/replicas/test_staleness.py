"""What a request reads that runs for long: never older than STORE_MAX_STALENESS, and asked for no oftener."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flask_globalstate import ConflictError, GlobalState, StoreUnavailableError
from flask_globalstate.replicas import durable, freshness
from flask_globalstate.state import binding, requests
from flask_globalstate.stores.base import Changes
from flask_globalstate.values.revision import Revision
from tests.support.durables import MemoryDict, Shelf
from tests.support.workers import WorkerStore, make_workers, store_of


class Clock:
    """The time of the package, which goes on when a test says so."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class HostStore(WorkerStore):
    """On one host, where a row of memory tells of writes."""

    def changes(self, name: str, since: Revision) -> Changes:
        return self._stepwise("changes", lambda: super(HostStore, self).changes(name, since))


class NetworkStore(HostStore):
    """On a network, where the store must be asked; it can be out of reach."""

    host_local = False

    def watch(self, name: str) -> None:
        return None

    def revisions(self, names: Sequence[str]) -> list[Revision]:
        return self._stepwise("revisions", lambda: super(NetworkStore, self).revisions(names))


STORES = {"host": (HostStore, "changes"), "network": (NetworkStore, "revisions")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (freshness, durable, binding, requests):
        monkeypatch.setattr(module, "now", clock)
    return clock


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> type[WorkerStore]:
    return STORES[request.param][0]


def questions(state: GlobalState) -> list[str]:
    """What the store was asked since this was last asked, but for the values."""
    asked = [method for method in store_of(state).asked if method != "fetch"]
    store_of(state).asked.clear()
    return asked


def fail() -> None:
    raise StoreUnavailableError("out of reach")


@pytest.mark.parametrize(("kind", "question"), STORES.values(), ids=STORES)
def test_what_others_write_is_asked_for_once_in_that_time(
    clock: Clock, kind: type[WorkerStore], question: str
) -> None:
    here, there = make_workers(kind=kind, max_staleness=10)
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs["n"] = 0
    with here.request():
        assert data["n"] == 0
        for number in range(1, 4):
            theirs["n"] = number
            questions(here)
            clock.time += 9.9
            assert data["n"] == number - 1
            assert questions(here) == []
            clock.time += 0.1
            assert data["n"] == number
            assert questions(here).count(question) == 1
            assert data["n"] == number
            assert questions(here) == []


def test_a_networked_store_is_asked_for_all_names_at_once(clock: Clock) -> None:
    here, there = make_workers(kind=NetworkStore)
    names = [here.dict(f"D{number}") for number in range(5)]
    with here.request():
        for data in names:
            assert not data
        there.dict("D3")["a"] = 1
        questions(here)
        clock.time += 1
        assert [len(data) for data in names] == [0, 0, 0, 1, 0]
        assert questions(here) == ["revisions", "changes", "keys"]


def test_what_another_request_has_asked_for_counts(clock: Clock, kind: type[WorkerStore]) -> None:
    here, there = make_workers(kind=kind)
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs["n"] = 0
    with here.request():
        assert data["n"] == 0
        clock.time += 0.9
        theirs["n"] = 1
        here.end_request(here.begin_request())
        questions(here)
        clock.time += 0.9
        assert data["n"] == 1
        assert questions(here) == []


def test_zero_is_read_mode(kind: type[WorkerStore]) -> None:
    here, there = make_workers(kind=kind, max_staleness=0)
    data, theirs = here.dict("DATA"), there.dict("DATA")
    with here.request():
        for number in range(3):
            theirs["n"] = number
            assert data["n"] == number


def test_a_transaction_keeps_what_it_has_read(clock: Clock, kind: type[WorkerStore]) -> None:
    here, there = make_workers(kind=kind)
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs["n"] = 0
    with here.request(), here.transaction():
        assert data["n"] == 0
        theirs["n"] = 1
        clock.time += 5
        assert data["n"] == 0


def test_manual_mode_asks_nothing(clock: Clock, kind: type[WorkerStore]) -> None:
    here, there = make_workers(kind=kind)
    data, theirs = here.dict("DATA", sync="manual"), there.dict("DATA")
    theirs["n"] = 0
    with here.request():
        assert data["n"] == 0
        theirs["n"] = 1
        clock.time += 5
        questions(here)
        assert data["n"] == 0
        assert questions(here) == []


def test_an_outage_that_is_tolerated_is_met_once_in_that_time(clock: Clock) -> None:
    here, there = make_workers(kind=NetworkStore, stale_if_down=60)
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs["n"] = 0
    with here.request():
        assert data["n"] == 0
        theirs["n"] = 1
        questions(here)
        for _ in range(3):
            clock.time += 1
            store_of(here).before["revisions"] = fail
            assert [data["n"], data["n"]] == [0, 0]
            assert questions(here) == ["revisions"]
        clock.time += 1
        assert data["n"] == 1


def test_an_outage_is_an_error_in_a_long_request_as_at_its_start(
    clock: Clock, kind: type[WorkerStore]
) -> None:
    here, there = make_workers(kind=kind)
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs["n"] = 0
    with here.request():
        assert data["n"] == 0
        theirs["n"] = 1
        clock.time += 1
        for _ in range(2):
            store_of(here).before.update(revisions=fail, changes=fail)
            with pytest.raises(StoreUnavailableError):
                data["n"]
        store_of(here).before.clear()
        assert data["n"] == 1


# --- lost updates -----------------------------------------------------------------------------------


def test_a_loop_that_waits_for_a_key_and_writes_it_is_no_conflict(
    clock: Clock, kind: type[WorkerStore]
) -> None:
    here, there = make_workers(kind=kind, on_conflict="raise")
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs["turn"] = "theirs"
    with here.request():
        assert data["turn"] == "theirs"
        theirs["turn"] = "ours"
        clock.time += 1
        assert data["turn"] == "ours"
        data["turn"] = "theirs"
    assert theirs["turn"] == "theirs"


def test_to_read_another_key_in_time_says_nothing_of_the_first(clock: Clock, kind: type[WorkerStore]) -> None:
    here, there = make_workers(kind=kind, on_conflict="raise")
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs.update(n=0, other=0)
    with here.request():
        number = data["n"]
        theirs.update(n=5, other=5)
        clock.time += 1
        assert data["other"] == 5
        with pytest.raises(ConflictError):
            data["n"] = number + 1


def test_a_class_that_tells_when_it_was_updated_is_asked_again(clock: Clock) -> None:
    shelf = Shelf()
    settings: dict[str, Any] = {"STORE_BACKEND": MemoryDict, "STORE_OPTIONS": {"shelf": shelf}}
    here, there = (GlobalState.from_config(settings) for _ in range(2))
    data, theirs = here.dict("DATA"), there.dict("DATA")
    theirs["n"] = 0
    with here.request():
        assert data["n"] == 0
        theirs["n"] = 1
        clock.time += 0.9
        assert data["n"] == 0
        clock.time += 0.1
        assert data["n"] == 1
