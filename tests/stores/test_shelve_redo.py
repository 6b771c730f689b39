"""What a commit over several names has written down before it, and what of it is done by whom."""

from __future__ import annotations

import fcntl
import pickle
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from flask_globalstate import SharedDict, StoreUnavailableError
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.shelve import ShelveStore, lock, redo
from tests.support.shelve_files import damages
from tests.support.standard import TIMEOUT

BATCH: redo.Batch = {
    "ONE": [(b"n", b"2i"), (b"gone", DELETE)],
    "TWO": [(b"n", b"2i"), (b"text", b"text e")],
}


def with_redo(path: Path, damage: Callable[[bytes], bytes] = bytes) -> ShelveStore:
    """A store whose last writer was killed when it had written down a commit, and nothing else."""
    shutil.rmtree(path, ignore_errors=True)
    store = ShelveStore(path, synchronous="OFF", timeout=TIMEOUT)
    store.commit([Write("ONE", "n", b"1i"), Write("TWO", "n", b"1i"), Write("ONE", "gone", b"1i")])
    number = store.revision("ONE").number + 1
    (path / ".globalstate" / "redo").write_bytes(damage(redo.encode(number, BATCH)))
    return store


def entries_of(store: ShelveStore) -> list[dict[str, bytes]]:
    return [{k: e.data for k, e in store.fetch(name).entries.items()} for name in ("ONE", "TWO")]


NOTHING = [{"n": b"1i", "gone": b"1i"}, {"n": b"1i"}]


ALL = [{"n": b"2i"}, {"n": b"2i", "text": b"text e"}]


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.fetch("ONE", ["n"]),
        lambda store: store.keys("TWO"),
        lambda store: store.revision("TWO"),
        lambda store: store.commit([Write("THREE", "n", b"1i")]),
    ],
    ids=["fetch", "keys", "revision", "commit"],
)
def test_whoever_comes_next_finishes_what_was_written_down(path, act):
    store = with_redo(path)
    act(store)
    assert not (path / ".globalstate" / "redo").exists()
    assert entries_of(store) == ALL
    store.close()


def test_what_was_written_down_is_done_once(path):
    store = with_redo(path)
    redo = (path / ".globalstate" / "redo").read_bytes()
    assert entries_of(store) == ALL
    store.commit([Write("ONE", "n", b"3i")])
    (path / ".globalstate" / "redo").write_bytes(redo)  # Its removal had not reached the disk.
    assert entries_of(store) == [{"n": b"3i"}, ALL[1]]
    store.close()


def test_a_damaged_redo_is_an_error_and_nothing_of_it_is_done(path):
    for content in damages(redo.encode(2, BATCH), 40):
        store = with_redo(path, lambda whole, content=content: content)
        if not content.strip(b"\0"):
            continue
        with pytest.raises(StoreUnavailableError, match="redo"):
            store.fetch("ONE")
        with pytest.raises(StoreUnavailableError, match="redo"):
            store.commit([Write("THREE", "n", b"1i")])
        (path / ".globalstate" / "redo").unlink()
        assert entries_of(store) == NOTHING
        store.close()


@pytest.mark.parametrize("lost", [lambda whole: b"", lambda whole: bytes(len(whole))], ids=["cut", "zeros"])
def test_what_had_not_reached_the_disk_when_the_power_failed_is_lost(path, lost, caplog):
    store = with_redo(path, lost)
    assert entries_of(store) == NOTHING
    assert "lost" in caplog.text
    store.commit([Write("ONE", "n", b"3i"), Write("TWO", "n", b"3i")])
    assert store.fetch("TWO").entries["n"].data == b"3i"
    store.close()


def test_a_commit_is_finished_before_what_another_program_has_written_is_taken_over(path):
    with_redo(path).close()
    with closing(sqlite3.connect(path / "TWO")) as other, other:
        other.execute("REPLACE INTO Dict VALUES (?, ?)", (b"foreign", pickle.dumps("theirs")))
    store = ShelveStore(path, timeout=TIMEOUT)
    foreign = SharedDict("TWO", store)
    one, two = entries_of(store)
    assert one == ALL[0]
    assert {key: two[key] for key in ALL[1]} == ALL[1]
    assert foreign["foreign"] == "theirs"
    store.close()


def test_a_turn_that_a_signal_ends_while_it_is_waited_for_is_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = ShelveStore(path, timeout=1), ShelveStore(path, timeout=1)
    for one in (store, other):
        one.increment("N", "a", 1)
    real = fcntl.flock

    def flock(descriptor: int, kind: int) -> None:
        real(descriptor, kind)
        monkeypatch.undo()
        raise SystemExit  # Of a signal handler.

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(SystemExit):
        store.increment("N", "a", 1)
    assert other.increment("N", "a", 1)[1] == 3
    store.close()
    other.close()


def test_a_signal_during_a_fork_leaves_no_lock_behind(path: Path) -> None:
    connections = ShelveStore(path)._connections

    def wait_for(*_: object) -> None:
        raise SystemExit  # Of a signal handler; os.fork swallows it.

    connections._changed.wait_for = wait_for  # type: ignore[method-assign,assignment]
    connections.hold()
    connections.release()
    assert connections._changed.acquire(blocking=False)
    connections._changed.release()
