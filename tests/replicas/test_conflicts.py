"""Lost updates, and values changed in place: they are detected, and nothing else is taken for one."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_globalstate import ConflictError, EncodingError, GlobalState
from flask_globalstate.replicas.in_place import LARGEST_EXAMINED
from flask_globalstate.replicas.requests import Request, running_requests
from flask_globalstate.state.requests import EXAMINED_ONE_OF
from flask_globalstate.stores.memory import REMOVALS_KEPT
from tests.support import PATIENCE
from tests.support.workers import WorkerStore, elsewhere, make_workers, store_of


class Pair:
    """Two workers of one setting, each with a global of each kind."""

    def __init__(self, on_conflict: str = "warn", **settings: Any) -> None:
        self.states = make_workers(2, on_conflict=on_conflict, **settings)
        self.state = self.states[0]
        self.data, self.theirs = (state.dict("DATA") for state in self.states)
        self.theme, self.their_theme = (state.value("THEME", initial="dark") for state in self.states)
        self.hits, self.their_hits = (state.counter("HITS") for state in self.states)
        self.data.update(n=1, m=1)

    def conflicts(self) -> Any:
        """How many this worker has met, by name."""
        return dict(self.state.stats()["conflicts"])

    def change(self, **items: Any) -> None:
        """Let the other worker write."""
        elsewhere(self.theirs.update, items)


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture(autouse=True)
def no_request_is_left() -> Iterator[None]:
    """Each test ends the requests that it begins."""
    yield
    assert not running_requests()


# --- what is one ----------------------------------------------------------------------------------------


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


# --- what is none ---------------------------------------------------------------------------------------


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


# --- several requests at once -----------------------------------------------------------------------------


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


# --- changed in place ------------------------------------------------------------------------------------


class Thing:
    """A user's class."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)


class App:
    """An application on the same data as another worker."""

    def __init__(self, **config: Any) -> None:
        self.other = make_workers(1)[0]
        self.app = Flask(__name__)
        self.app.config.update(STORE_BACKEND=type(store_of(self.other)), STORE_SECRET_KEY="secret", **config)
        self.state = GlobalState(self.app)
        self.data, self.theirs = self.state.dict("DATA"), self.other.dict("DATA")
        self.app.add_url_rule("/", view_func=self._view)
        self.view: Callable[[], Any] = lambda: None

    def _view(self) -> str:
        self.view()
        return "answer"

    def get(self, view: Callable[[], Any], times: int = 1) -> int:
        """How many changes in place were found in requests."""
        self.view = view
        before = self.changes()
        for _ in range(times):
            assert self.app.test_client().get("/").text == "answer"
        return self.changes() - before

    def changes(self) -> int:
        return self.state.stats()["changed_in_place"].get("DATA", 0)


@pytest.fixture(params=[{"TESTING": True}, {"DEBUG": True}], ids=["testing", "debug"])
def examined(request: Any) -> App:
    return App(**request.param)


@pytest.mark.parametrize(
    ("value", "reach"),
    [
        (Thing(1), lambda value: value.items),
        (deque([1]), lambda value: value),
        ([0, Thing(1)], lambda value: value[1].items),
        ({"k": (0, deque([1]))}, lambda value: value["k"][1]),
    ],
    ids=["an object", "a deque", "in a list", "in a tuple in a dict"],
)
def test_a_change_in_place_is_found_and_dropped(
    examined: App, caplog: Any, value: Any, reach: Callable[[Any], Any]
) -> None:
    examined.data["k"] = value
    assert examined.get(lambda: reach(examined.data["k"]).append("lost")) == 1
    assert list(reach(examined.data["k"])) == list(reach(examined.theirs["k"])) == [1]
    (record,) = [record for record in caplog.records if record.name == "flask_globalstate"]
    assert record.levelno == logging.WARNING
    assert "DATA['k']" in record.getMessage()
    assert "DATA.edit('k')" in record.getMessage()
    assert "lost" not in caplog.text
    for read in (examined.data.copy, examined.data.items, lambda: examined.data.get("k")):
        assert examined.get(read) == 0


def test_every_way_of_reading_is_examined(examined: App) -> None:
    for read in (
        lambda: examined.data["k"],
        lambda: examined.data.get("k"),
        lambda: dict(examined.data)["k"],
        lambda: next(iter(examined.data.values())),
        lambda: examined.data.setdefault("k", 1),
        lambda: examined.data.snapshot()["k"],
    ):
        for _ in range(2):
            examined.data["k"] = Thing(1)
            assert examined.get(lambda read=read: read().items.append(1)) == 1
    theme = examined.state.value("THEME", initial=Thing)
    examined.get(lambda: theme.value.items.append(1))
    assert examined.state.stats()["changed_in_place"]["THEME"] == 1


GIVEN_BACK: dict[str, Callable[[Any], Any]] = {
    "assigned": lambda data: data.__setitem__("k", grown(data["k"])),
    "assigned, and read again": lambda data: (data.update(k=grown(data["k"])), data["k"]),
    "read, then edited": lambda data: (data["k"], edit(data), data["k"]),
    "applied": lambda data: (data["k"], data.apply("k", grown), data["k"]),
    "removed": lambda data: grown(data.pop("k")),
    "cleared": lambda data: (data["k"], data.clear()),
    "replaced": lambda data: (data["k"], data.update(k=Thing(2)), data["k"]),
    "in a transaction": lambda data: data["k"],
    "of other keys": lambda data: (data["k"], data.update(other=1), data["other"]),
}


def grown(thing: Thing) -> Thing:
    """The same, changed."""
    thing.items.append(1)
    return thing


def edit(data: Any) -> None:
    """Change it as it should be."""
    with data.edit("k") as thing:
        grown(thing)


@pytest.mark.parametrize("do", GIVEN_BACK.values(), ids=GIVEN_BACK)
def test_what_is_given_back_is_no_change_in_place(examined: App, do: Callable[[Any], Any]) -> None:
    for _ in range(2):
        examined.data["k"] = Thing(1)
        assert examined.get(lambda: do(examined.data)) == 0


def test_a_commit_inside_of_a_value_is_no_change_in_place(examined: App) -> None:
    examined.data["k"] = {"rows": [Thing(1)], "n": 0}

    def view() -> None:
        held = examined.data["k"]
        held["n"] += 1
        held["rows"].append(Thing(2))
        held["rows"][0] = Thing(3)
        assert len(examined.data["k"]["rows"]) == 2

    assert examined.get(view) == 0
    assert examined.get(lambda: examined.data["k"]) == 0
    assert examined.get(lambda: examined.data["k"]["rows"][1].items.append(1)) == 1


def test_a_change_in_place_in_a_transaction_is_found_too(examined: App) -> None:
    def in_transaction(change: Callable[[], Any]) -> Callable[[], None]:
        def view() -> None:
            with examined.state.transaction():
                change()

        return view

    examined.data["k"] = Thing(1)
    assert examined.get(in_transaction(lambda: examined.data["k"].items.append(1))) == 1
    assert examined.get(in_transaction(lambda: examined.data["k"])) == 0
    assert examined.get(in_transaction(lambda: examined.data.update(k=grown(examined.data["k"])))) == 0
    assert examined.get(in_transaction(lambda: (examined.data["k"], edit(examined.data)))) == 0
    assert examined.data["k"].items == [1, 1, 1]


def test_what_another_worker_has_changed_is_no_change_in_place(examined: App) -> None:
    def view() -> None:
        assert examined.data["k"].items == [1]
        elsewhere(examined.theirs.update, k=Thing(2))
        examined.data.sync()
        assert examined.data["k"].items == [2]

    examined.data["k"] = Thing(1)
    assert examined.get(view) == 0


@pytest.mark.parametrize("value", [[1], {"a": [1]}, (1, "a"), 1.5, "text", None, b"x", {1}])
def test_what_can_not_change_unseen_is_not_encoded(examined: App, value: Any, monkeypatch: Any) -> None:
    examined.data["k"] = value
    assert examined.get(lambda: examined.data["k"]) == 0
    encoded = []
    codec = examined.state._names.bound().codec
    monkeypatch.setattr(codec, "encode", lambda *arguments: encoded.append(arguments))
    assert examined.get(lambda: examined.data["k"]) == 0
    assert encoded == []


def test_nothing_above_64_kib_is_compared(examined: App, monkeypatch: Any) -> None:
    overhead = len(examined.state._names.bound().codec.encode("DATA", "k", Thing(b"")))
    for size, found in ((LARGEST_EXAMINED - overhead - 20, 1), (LARGEST_EXAMINED, 0)):
        examined.data["k"] = Thing(b"x" * size)
        assert examined.get(lambda: examined.data["k"].items.append(1)) == found
    assert len(examined.data["k"].items) == 2
    # What was too large once is not encoded again.
    encoded = []
    monkeypatch.setattr(examined.state._names.bound().codec, "encode", lambda *arguments: encoded.append(1))
    assert examined.get(lambda: examined.data["k"]) == 0
    assert encoded == []


def test_what_can_be_read_and_not_written_is_no_error(examined: App, monkeypatch: Any) -> None:
    def refuse(*arguments: Any) -> bytes:
        raise EncodingError("what another program has written")

    examined.data["k"] = Thing(1)
    monkeypatch.setattr(examined.state._names.bound().codec, "encode", refuse)
    assert examined.get(lambda: examined.data["k"]) == 0


def test_in_production_one_request_of_64_is_examined() -> None:
    app = App()
    app.data["k"] = Thing()

    def view() -> None:
        app.data["k"].items.append(1)

    assert app.get(view, EXAMINED_ONE_OF * 3) == 3
    assert app.get(view, EXAMINED_ONE_OF - 1) == 0
    assert app.get(view) == 1


def test_a_request_of_two_states_is_examined_for_both() -> None:
    other = make_workers(1)[0]
    app = App(TESTING=True, BIG_STORE_BACKEND=type(store_of(other)), BIG_STORE_SECRET_KEY="secret")
    big = GlobalState(app.app, config_prefix="BIG_STORE")
    large = big.dict("LARGE", initial={"k": Thing(1)})
    app.data["k"] = Thing(1)

    def view() -> None:
        large["k"].items.append(1)
        app.data["k"].items.append(1)

    assert app.get(view) == 1
    assert big.stats()["changed_in_place"] == {"LARGE": 1}
    assert "LARGE" not in app.state.stats()["changed_in_place"]


def test_scripts_are_not_examined(pair: Pair) -> None:
    pair.data["k"] = Thing(1)
    pair.data["k"].items.append(2)
    assert pair.state.stats()["changed_in_place"] == {}


def test_a_failed_begin_leaves_no_request_behind() -> None:
    class Down(WorkerStore):
        __slots__ = ("down",)

        def changes(self, *arguments: Any) -> Any:
            if getattr(self, "down", False):
                raise ConnectionError("down")
            return super().changes(*arguments)

    state = make_workers(1, Down)[0]
    data = state.dict("DATA", initial={"a": 1})
    assert data["a"] == 1
    data["b"] = 1
    store_of(state).down = True  # type: ignore[attr-defined]
    for _ in range(3):
        with pytest.raises(ConnectionError):
            state.begin_request()
    store_of(state).down = False  # type: ignore[attr-defined]
    assert not running_requests()
    with state.request():
        assert data["a"] == 1


def test_a_request_of_another_state_hides_no_lost_update() -> None:
    pair, other = Pair("raise"), make_workers(1)[0]
    pair.data["n"] = 0
    assert pair.data["n"] == pair.data["n"] == 0
    with pair.state.request():
        assert pair.data["n"] == pair.data["n"] == 0
        pair.change(n=5)
        beside = contextvars.Context()
        request = beside.run(other.begin_request)
        with pytest.raises(ConflictError):
            pair.data["n"] = 1
        beside.run(other.end_request, request)
    # What it had read is not taken for what a request has read that another state began.
    with other.request():
        assert pair.data["n"] == pair.data["n"] == 5
        pair.change(n=6)
        with pytest.raises(ConflictError):
            pair.data["n"] = 1


def test_a_request_that_just_begins_hides_no_lost_update() -> None:
    pair = Pair("raise")
    assert pair.data["n"] == pair.data["n"] == 1
    with pair.state.request():
        assert pair.data["n"] == pair.data["n"] == 1
        pair.change(n=5)
        beside = Request()
        elsewhere(beside.begin)
        try:
            with pytest.raises(ConflictError):
                pair.data["n"] = 2
        finally:
            beside.end()
