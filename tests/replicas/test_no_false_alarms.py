"""What is no lost update is not taken for one, and each of several requests is warned of its own."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from flask_globalstate import ConflictError, GlobalState
from tests.support import PATIENCE
from tests.support.conflicts import Pair
from tests.support.workers import elsewhere, store_of

# --- what is none ---------------------------------------------------------------------------------


def own_write(pair: Pair) -> None:
    for _ in range(3):
        pair.data["n"] += 1
    pair.theme.value += "er"
    pair.theme.value += "er"


def own_write_of_another_kind(pair: Pair) -> None:
    found = pair.data["n"]
    pair.data.increment("n")
    pair.data["n"] = found
    pair.data.apply("n", lambda n: n + 1)
    pair.data["n"] = found
    with pair.data.edit("n"):
        pass
    pair.data.compare_and_set("n", 1, 2)
    pair.data["n"] = found
    pair.data.update(n=3)
    pair.data["n"] = found


def own_removal(pair: Pair) -> None:
    for remove in (
        lambda: pair.data.pop("n"),
        lambda: pair.data.__delitem__("n"),
        pair.data.popitem,
        pair.data.clear,
        pair.state.clear,
    ):
        pair.data["n"] = 1
        assert pair.data["n"] == pair.data["n"] == 1
        remove()
        pair.data["n"] = 2
        assert pair.data.pop("n") == 2
        assert pair.data.get("n") is None
        pair.data["n"] = 3


def own_creation(pair: Pair) -> None:
    assert pair.data.get("new") is None
    pair.data["new"] = 1
    pair.data["new"] = 2
    assert pair.data.setdefault("newer", 1) == 1
    pair.data["newer"] = 2


def own_transaction(pair: Pair) -> None:
    assert (pair.data["n"], pair.data["m"]) == (1, 1)
    with pair.state.transaction():
        pair.data["n"] += 1
        del pair.data["m"]
    pair.data["n"] += 1
    pair.data["m"] = 5


def own_nested_change(pair: Pair) -> None:
    pair.data["k"] = {"l": [], "n": 1}
    for n in range(3):
        pair.data["k"]["l"].append(n)
        pair.data["k"]["n"] += 1
    pair.data["k"] = {**pair.data["k"], "new": 1}


def written_without_reading(pair: Pair) -> None:
    assert pair.data["m"] == 1
    pair.change(n=5, new=5)
    pair.data["n"] = 6
    pair.data.update(new=7)
    pair.change(n=8)
    pair.data["n"] = 9


def read_again(pair: Pair) -> None:
    # In request mode a read is of the start of the request, unless the replica is told otherwise.
    assert pair.data["n"] == 1
    pair.change(n=5)
    pair.data.sync()
    assert pair.data["n"] == 5
    pair.data["n"] += 1


def seen_by_a_nested_change(pair: Pair) -> None:
    pair.data["k"] = {"l": []}
    held = pair.data["k"]
    elsewhere(lambda: pair.theirs["k"]["l"].append("theirs"))
    held["l"].append("mine")
    pair.data["k"] = {"l": [*held["l"], "more"]}


def item_written_without_reading(pair: Pair) -> None:
    elsewhere(pair.theirs.update, k={"n": 1})
    pair.data.sync()
    held = elsewhere(pair.data.get, "k")
    elsewhere(lambda: pair.theirs["k"].update(n=5))
    held["n"] = 2


def item_read_again(pair: Pair) -> None:
    pair.data["k"] = {"n": 1}
    held = pair.data["k"]
    elsewhere(lambda: pair.theirs["k"].update(n=5))
    with pair.data.edit("k") as newest:
        assert newest == {"n": 5}
    held["n"] = newest["n"] + 1


def absent_after_all(pair: Pair) -> None:
    assert pair.data["n"] == 1
    elsewhere(pair.theirs.pop, "n")
    pair.data.sync()
    assert pair.data.get("n") is None
    pair.data["n"] = 1


def absent_among_all_after_a_hit(pair: Pair) -> None:
    elsewhere(pair.data.copy)
    assert pair.data["n"] == 1
    elsewhere(pair.theirs.clear)
    pair.data.sync()
    assert "n" not in list(pair.data)
    pair.data["n"] = 1


def another_key(pair: Pair) -> None:
    found = pair.data["n"]
    pair.change(m=5)
    pair.data["n"] = found + 1


NO_CONFLICTS = [
    own_write,
    own_write_of_another_kind,
    own_removal,
    own_creation,
    own_transaction,
    own_nested_change,
    written_without_reading,
    read_again,
    seen_by_a_nested_change,
    item_written_without_reading,
    item_read_again,
    absent_after_all,
    absent_among_all_after_a_hit,
    another_key,
]


@pytest.mark.parametrize("do", NO_CONFLICTS, ids=lambda do: do.__name__)
@pytest.mark.parametrize("crowded", [False, True], ids=["alone", "beside another request"])
def test_no_false_alarm(do: Callable[[Pair], None], crowded: bool) -> None:
    pair = Pair("raise")
    beside = elsewhere(pair.state.begin_request) if crowded else None
    with pair.state.request():
        do(pair)
    if beside is not None:
        pair.state.end_request(beside)
    assert pair.conflicts() == {}


def test_no_false_alarm_for_what_was_read_before_the_request(pair: Pair) -> None:
    found = pair.data["n"]
    with pair.state.request():
        pair.change(n=5)
        pair.data["n"] = found
    with pair.state.request():
        found = pair.data["n"]
    pair.change(n=5)
    with pair.state.request():
        pair.data["n"] = found
    assert pair.conflicts() == {}


@pytest.mark.parametrize("held", [False, True], ids=["not held", "held"])
def test_no_false_alarm_when_the_store_has_lost_its_history(pair: Pair, held: bool) -> None:
    if held:
        elsewhere(pair.data.copy)
    with pair.state.request():
        assert pair.data["n"] == 1
        store = store_of(pair.state)
        store.data._epoch = "another"
        store.data._names.clear()
        pair.data.sync()
        pair.data["n"] = 2
    assert pair.conflicts() == {}


# --- several requests at once ---------------------------------------------------------------------


class Requests:
    """Requests of one worker, each in a context of its own, in whatever order a test wants."""

    def __init__(self, state: GlobalState, count: int) -> None:
        self._state = state
        self._contexts = [contextvars.Context() for _ in range(count)]
        self._begun: dict[int, Any] = {}

    def begin(self, number: int) -> None:
        self._begun[number] = self.run(number, self._state.begin_request)

    def run(self, number: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function answers in one of them."""
        return self._contexts[number].run(function, *arguments)

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.run(number, self._state.end_request, self._begun.pop(number))


@pytest.mark.parametrize("begins", ["before the read", "after the read", "after the change"])
@pytest.mark.parametrize("ends", ["before the write", "after the write"])
def test_a_request_is_warned_whatever_others_run_beside_it(pair: Pair, begins: str, ends: str) -> None:
    requests = Requests(pair.state, 2)
    requests.begin(0)
    requests.begin(1) if begins == "before the read" else None
    assert requests.run(0, pair.data.get, "n") == 1
    requests.begin(1) if begins == "after the read" else None
    pair.change(n=5)
    requests.begin(1) if begins == "after the change" else None
    assert requests.run(1, pair.data.get, "n") == (5 if begins == "after the change" else 1)
    requests.end(1) if ends == "before the write" else None
    requests.run(0, pair.data.__setitem__, "n", 2)
    requests.end(1) if ends == "after the write" else None
    requests.end(0)
    assert pair.conflicts() == {"DATA": 1}


@pytest.mark.parametrize("when", ["before", "beside", "alone before it"])
def test_what_another_request_of_the_process_has_read_is_not_this_ones(pair: Pair, when: str) -> None:
    requests = Requests(pair.state, 2)
    requests.begin(1)
    if when == "beside":
        requests.begin(0)
    for _ in range(2):
        assert requests.run(1, pair.data.get, "n") == 1
    if when == "before":
        requests.end(1)
    if when != "beside":
        requests.begin(0)
    pair.change(n=5)
    requests.run(0, pair.data.__setitem__, "n", 2)
    assert pair.conflicts() == {}
    if when != "before":
        # The other one has read it, and doesn't know what a request beside it has written since.
        requests.run(1, pair.data.__setitem__, "n", 3)
        assert pair.conflicts() == {"DATA": 1}
        # What it has itself written is none.
        requests.run(1, pair.data.__setitem__, "n", 4)
        assert pair.conflicts() == {"DATA": 1}
        pair.change(n=6)
        requests.run(1, pair.data.__setitem__, "n", 5)
        assert pair.conflicts() == {"DATA": 2}
        requests.end(1)
    requests.end(0)


def test_each_of_two_requests_is_warned_of_what_it_has_read_itself(pair: Pair) -> None:
    requests = Requests(pair.state, 2)
    for number in range(2):
        requests.begin(number)
    for _ in range(2):
        assert requests.run(0, pair.data.get, "n") == 1
        assert requests.run(1, pair.data.get, "m") == 1
        assert requests.run(1, pair.data.get, "absent") is None
    pair.change(n=5, m=5, absent=5)
    requests.run(0, pair.data.update, {"m": 2, "absent": 2})
    assert pair.conflicts() == {}
    requests.run(0, pair.data.update, {"n": 2})
    assert pair.conflicts() == {"DATA": 1}
    pair.change(m=6, absent=6)
    requests.run(1, pair.data.update, {"m": 3, "absent": 3, "n": 3})
    assert pair.conflicts() == {"DATA": 3}
    requests.end(0, 1)


def test_a_write_of_another_request_of_this_worker_that_comes_in_between_is_a_conflict() -> None:
    pair = Pair("raise")
    requests = Requests(pair.state, 2)
    requests.begin(0)
    requests.begin(1)
    for number in range(2):
        assert requests.run(number, pair.data.get, "n") == 1
    # The other request's commit comes after this one has looked at its notes.
    store_of(pair.state).before["commit"] = lambda: requests.run(1, pair.data.__setitem__, "n", 7)
    with pytest.raises(ConflictError):
        requests.run(0, pair.data.__setitem__, "n", 2)
    assert (elsewhere(pair.theirs.get, "n"), pair.conflicts()) == (7, {"DATA": 1})
    requests.end(0, 1)


def test_threads_are_warned_exactly_of_what_they_lose() -> None:
    """Each thread's requests read keys of their own; another worker changes some of them in between."""
    pair = Pair()
    threads, rounds = 4, 60
    pair.data.update({f"{t} {n}": 0 for t in range(threads) for n in range(3)})
    expected = [0] * threads
    errors: list[BaseException] = []

    def serve(number: int) -> None:
        for turn in range(rounds):
            with pair.state.request():
                keys = [f"{number} {n}" for n in range(3)]
                found = {key: pair.data[key] for key in keys[:2]}
                # Other threads' keys are read too, which must not be taken for notes of theirs.
                assert pair.data[f"{(number + 1) % threads} {turn % 3}"] >= 0
                if turn % 3 == 0:
                    pair.change(**{keys[turn % 2]: turn})
                    expected[number] += 1
                pair.change(**{keys[2]: turn})
                for key in keys[:2]:
                    pair.data[key] = found[key] + 1
                pair.data[keys[2]] = turn

    def run(number: int) -> None:
        try:
            serve(number)
        except BaseException as error:
            errors.append(error)

    running_threads = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running_threads:
        thread.start()
    for thread in running_threads:
        thread.join(PATIENCE)
    assert not errors
    assert pair.conflicts() == {"DATA": sum(expected)}
