"""Options of a shelve store, its memory, its threads, and other file systems."""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import ConfigurationError, GlobalState
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.shelve import ShelveStore
from flask_globalstate.system import seqcount_file
from tests.support.shelve_files import open_files
from tests.support.standard import TIMEOUT, read_settings, run

# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *({"synchronous": value} for value in ("SOMETIMES", "full", "", None, 2, [])),
        *({"cache_size": value} for value in (0, -1, 1.5, "100", True)),
        *({"timeout": value} for value in (0, -1, "20", None, True, float("nan"), float("inf"))),
        {"unknown": 1},
    ],
    ids=repr,
)
def test_a_bad_option_is_a_configuration_error_that_names_it(path, options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError, match=name) as caught:
        GlobalState.from_config(read_settings(path, STORE_OPTIONS=options))
    assert name == "unknown" or repr(value) in str(caught.value)
    assert not path.exists()


SYNCS = """
import os, sys
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.shelve.file import OpenFile
from flask_globalstate.stores.shelve import ShelveStore
store = ShelveStore(sys.argv[1], synchronous=sys.argv[2])
one, several = [Write("A", "n", b"1i")], [Write(name, "n", b"1i") for name in "AB"]
for writes in (one, several, one, several):
    store.commit(writes)
os.getppid()
store.commit(one)
os.getppid()
store.commit(several)
os.getppid()
"""


@pytest.mark.parametrize(("synchronous", "least"), [("OFF", (0, 0)), ("NORMAL", (0, 0)), ("FULL", (1, 4))])
def test_a_commit_is_on_the_disk_before_it_returns_if_that_is_asked_for(tmp_path, synchronous, least):
    strace = shutil.which("strace")
    assert strace, "this test needs strace"
    trace = tmp_path / "trace"
    command = [
        strace,
        "-f",
        "-o",
        str(trace),
        sys.executable,
        "-c",
        SYNCS,
        str(tmp_path / "store"),
        synchronous,
    ]
    run(command)
    _, one, several, _ = re.split(r"getppid\(\).*\n", trace.read_text())
    for calls, number in zip((one, several), least, strict=True):
        syncs = len(re.findall(r"\bf(?:data)?sync\(", calls))
        assert syncs >= number if number else not syncs


# --- memory ---------------------------------------------------------------------------------------

VALUES, SIZE = 4096, 512 * 1024
READ_ALL = """
import sys
from flask_globalstate import GlobalState

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

state = GlobalState.from_config({
    "STORE_BACKEND": "shelve", "STORE_PATH": sys.argv[1], "STORE_OPTIONS": {"cache_size": 100}})
data = state.dict("DATA")
keys = list(data)
first = data[keys[0]][:10]
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # The highest so far is what it is now.
start = status("VmRSS:")
read = sum(len(data[key]) for key in keys)
print(read, (status("VmHWM:") - start) // 1024)
state.close()
"""


@pytest.mark.slow
def test_a_worker_that_reads_two_gigabytes_in_turn_keeps_little_of_them(path):
    state = GlobalState.from_config(read_settings(path, STORE_OPTIONS={"synchronous": "OFF"}))
    store: Any = state.store
    # Written once, and not to a log first.
    store._connections.options = store._connections.options._replace(journal="OFF")
    data = state.dict("DATA")
    value = bytes(range(256)) * (SIZE // 256)
    try:
        for first in range(0, VALUES, 64):
            data.update((str(number), value) for number in range(first, first + 64))
        state.close()
        read, more = map(int, run([sys.executable, "-c", READ_ALL, str(path)]).split())
    finally:
        shutil.rmtree(path)
    assert read == VALUES * SIZE == 2 * 1024**3
    assert more < 100


# --- threads, and other file systems --------------------------------------------------------------


def test_a_store_that_is_closed_by_one_thread_loses_nothing_of_another(path, state):
    hits, data = state.counter("HITS"), state.dict("DATA")
    stop = threading.Event()
    done: list[int] = []
    errors: list[BaseException] = []

    def count() -> None:
        try:
            while not stop.is_set():
                done.append(hits.increment())
                data[str(done[-1])] = done[-1]
                assert data[str(done[-1])] == done[-1]
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=count)
    writer.start()
    for _ in range(100):
        floor = len(done)
        state.store.close()
        assert hits.value >= floor
    stop.set()
    writer.join(TIMEOUT)
    assert errors == []
    assert hits.value == len(done) == done[-1]
    state.store.close()
    assert [file for file in open_files() if file.startswith(str(path)) and "seqcount" not in file] == []


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process believe that its directories are on a file system of another kind."""

    def believe(kind: str) -> None:
        device = tmp_path.stat().st_dev
        line = f"1 0 {os.major(device)}:{os.minor(device)} / / rw - {kind} none rw\n"
        (tmp_path / "mountinfo").write_text(line)
        monkeypatch.setattr(seqcount_file, "MOUNTS", tmp_path / "mountinfo")

    return believe


@pytest.mark.parametrize("made_on", ["nfs4", "ext4"])
def test_processes_that_may_share_no_memory_see_each_other(path, open_state, mount, made_on, caplog):
    mount(made_on)
    state = open_state()
    state.dict("DATA")["n"] = state.dict("OTHER")["n"] = -1
    state.close()
    mount("nfs4")  # The directory was moved there.
    states = [open_state(), open_state()]
    for number in range(3):
        for writer, reader in (states, states[::-1]):
            with writer.transaction():
                writer.dict("DATA")["n"] = writer.dict("OTHER")["n"] = number
            assert reader.dict("DATA")["n"] == reader.dict("OTHER")["n"] == number
            with reader.request():
                assert reader.dict("DATA")["n"] == number
            assert reader.store.watch("DATA") is None
    assert not list(path.glob("*-shm"))
    assert "network file system" in caplog.text


def test_a_store_that_is_never_closed_warns_of_nothing_when_it_is_forgotten(tmp_path: Path) -> None:
    store: Any = ShelveStore(tmp_path / "store")
    store.commit([Write("N", "a", b"1")])
    with warnings.catch_warnings(record=True) as warned:  # By Python 3.13 and later.
        warnings.simplefilter("always")
        del store
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
