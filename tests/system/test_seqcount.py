"""The seqcount: the file alone, and its slots."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import StoreUnavailableError
from flask_globalstate.system import seqcount
from flask_globalstate.system.seqcount import Seqcount
from flask_globalstate.system.seqcount_file import FILE, LOCKS, SIZE, SLOTS, WIDTHS, make
from tests.support import PATIENCE
from tests.support.counting import Begun, count, die, is_idle, nobody, open_in, row

# --- the file alone -------------------------------------------------------------------------------


def test_a_row_is_idle_only_when_every_commit_of_every_thread_is_done(tmp_path: Path) -> None:
    seqcount = open_in(tmp_path, make(tmp_path))
    one, two = Begun(seqcount, [1]), Begun(seqcount, [1, 2])
    two.end()
    assert not is_idle(seqcount, 1)
    assert is_idle(seqcount, 2)
    one.end()
    assert is_idle(seqcount, 1)


def test_a_commit_changes_the_row_of_its_names_and_of_no_other(tmp_path: Path) -> None:
    seqcount = open_in(tmp_path, make(tmp_path))
    count(seqcount, 0)
    before = [row(seqcount, bucket) for bucket in (1, 2)]
    count(seqcount, 1, 1)
    assert row(seqcount, 1) != before[0]
    assert row(seqcount, 2) == before[1]


def test_a_new_writer_changes_every_row_before_it_counts(tmp_path: Path) -> None:
    reader = open_in(tmp_path, make(tmp_path))
    first, second = (open_in(tmp_path, reader.identity) for _ in range(2))
    count(first, 1)
    seen, watched = row(reader, 2), reader.row(2)
    assert watched == seen
    count(second, 2)
    assert watched != seen
    assert len(reader.row(2)) > len(seen)


def test_a_row_that_has_become_wider_than_what_was_copied_of_it_is_not_idle(tmp_path: Path) -> None:
    """Who watches the words of an older width doesn't see the new writer's."""
    reader = open_in(tmp_path, make(tmp_path))
    writers = [open_in(tmp_path, reader.identity) for _ in range(2)]
    count(writers[0], 1)
    watched = reader.row(1)
    begun = Begun(writers[1], [1])
    copied = memoryview(watched.tobytes()).cast("Q")
    assert copied.tolist()[1:] == [1, 1]
    assert not Seqcount.is_idle(copied)
    assert not is_idle(reader, 1)
    begun.end()
    assert not Seqcount.is_idle(copied)
    assert is_idle(reader, 1)


@pytest.mark.parametrize("slots", WIDTHS[1:7])
def test_a_row_is_no_wider_than_it_must_be(tmp_path: Path, slots: int) -> None:
    identity = make(tmp_path)
    writers = [open_in(tmp_path, identity) for _ in range(slots)]
    for writer in writers:
        count(writer, 1)
    assert [writer.slot for writer in writers] == list(range(slots))
    assert len(writers[0].row(1)) == len(writers[0].row(63)) == 1 + 2 * slots
    assert writers[0].row(1).tolist()[1:] == [1] * 2 * slots


def test_the_width_of_a_row_never_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes make rows wider at the same moment, and one of them has looked before the other wrote."""
    identity = make(tmp_path)
    slow, fast = open_in(tmp_path, identity), open_in(tmp_path, identity)
    allocate = os.posix_fallocate

    def let_the_other_go_first(*place: int) -> None:
        monkeypatch.setattr(os, "posix_fallocate", allocate)
        fast._widen(200)
        allocate(*place)

    monkeypatch.setattr(os, "posix_fallocate", let_the_other_go_first)
    slow._widen(10)
    assert {len(fast.row(bucket)) for bucket in range(64)} == {1 + 2 * 256}


def test_a_file_takes_no_more_of_the_disk_than_its_writers_need(tmp_path: Path) -> None:
    identity = make(tmp_path)

    def size_on_disk() -> int:
        return (tmp_path / FILE).stat().st_blocks * 512

    assert (tmp_path / FILE).stat().st_size == SIZE > 1_000_000
    assert size_on_disk() <= 16_384
    one = open_in(tmp_path, identity)
    count(one, 1)
    used = size_on_disk()
    # A place for every count that is made, or the process would be ended where the disk is full.
    assert SIZE / 64 < used < SIZE / 2
    for bucket in range(64):
        count(one, bucket)
    assert size_on_disk() == used


def test_a_writer_for_whose_counts_the_disk_has_no_place_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqcount = open_in(tmp_path, make(tmp_path))

    def fail(*place: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fail)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            count(seqcount, 1)
    assert seqcount.row(1).tolist() == [0]
    assert seqcount.slot is None
    count(seqcount, 1)
    assert seqcount.row(1).tolist() == [1, 1, 1]


def test_counts_go_on_from_owner_to_owner(tmp_path: Path) -> None:
    identity = make(tmp_path)
    rows = []
    for _ in range(3):
        owner = open_in(tmp_path, identity)
        count(owner, 1)
        assert owner.slot == 0
        rows.append(row(owner, 1).tolist())
        owner.close()
    assert rows == [[1, 1, 1], [1, 2, 2], [1, 3, 3]]


def test_a_dead_owner_is_fenced_before_its_counts_are_repaired(tmp_path: Path) -> None:
    identity = make(tmp_path)
    reader = open_in(tmp_path, identity)
    dead = open_in(tmp_path, identity)
    begun = Begun(dead, [3])
    assert reader.unfinished(3) == [0]
    assert not reader.repair(0, nobody)  # It lives.
    die(dead)
    seen: list[bool] = []
    assert reader.repair(0, lambda slot: seen.append(is_idle(reader, 3)))
    assert seen == [False]
    assert is_idle(reader, 3)
    begun.end()


def test_whoever_takes_the_slot_of_a_dead_owner_repairs_it(tmp_path: Path) -> None:
    identity = make(tmp_path)
    dead, heir = open_in(tmp_path, identity), open_in(tmp_path, identity)
    begun = Begun(dead, [3])
    die(dead)
    fenced: list[int] = []
    heirs = Begun(heir, [4], fenced.append)
    assert fenced == [0]
    assert is_idle(heir, 3)
    heirs.end()
    del begun


def test_a_slot_whose_owner_cant_be_made_sure_of_stays_unfinished(tmp_path: Path) -> None:
    identity = make(tmp_path)
    dead, heir = open_in(tmp_path, identity), open_in(tmp_path, identity)
    begun = Begun(dead, [3])
    die(dead)

    def fail(slot: int) -> None:
        raise StoreUnavailableError("down")

    with pytest.raises(StoreUnavailableError):
        Begun(heir, [4], fail)
    assert not is_idle(heir, 3)
    with pytest.raises(StoreUnavailableError):
        heir.repair(0, fail)
    assert not is_idle(heir, 3)
    assert heir.repair(0, nobody)
    del begun


def test_no_commit_ends_for_want_of_a_file(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writers = [open_in(tmp_path, identity) for _ in range(3)]
    commits = [Begun(writer, [5]) for writer in writers]
    shutil.rmtree(tmp_path)
    for begun in commits:
        begun.end()
    assert is_idle(writers[0], 5)


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda path: (path / LOCKS).write_bytes(b"")])
def test_a_slot_that_cant_be_claimed_is_an_error_of_the_store(
    tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    path = tmp_path / "store"
    path.mkdir()
    seqcount = open_in(path, make(path))
    damage(path)
    with pytest.raises(StoreUnavailableError, match=str(path)):
        count(seqcount, 1)
    assert is_idle(seqcount, 1)


def test_no_lock_of_the_process_is_held_while_a_dead_owner_is_made_sure_of(tmp_path: Path) -> None:
    identity = make(tmp_path)
    dead, heir = open_in(tmp_path, identity), open_in(tmp_path, identity)
    kept = [Begun(dead, [3])]
    die(dead)

    def let_another_thread_write(slot: int) -> None:
        thread = threading.Thread(target=lambda: kept.append(Begun(heir, [4])), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    kept.append(Begun(heir, [5], let_another_thread_write))
    # Both threads count in the slot of the one that had claimed it first; the other was given back.
    assert heir.slot == 1
    assert dead.repair(0, nobody)
    assert not is_idle(heir, 4)
    assert not is_idle(heir, 5)
    for begun in kept[1:]:
        begun.end()
    assert is_idle(heir, 4)
    assert is_idle(heir, 5)


def test_a_slot_is_not_given_back_in_the_middle_of_a_commit(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writer, other = open_in(tmp_path, identity), open_in(tmp_path, identity)
    one = Begun(writer, [1])
    writer.close()
    assert not other.repair(0, nobody)
    # Another thread begins, and the first one ends: its own commit, and not the other's.
    two = Begun(writer, [1])
    one.end()
    assert not is_idle(writer, 1)
    two.end()
    assert is_idle(writer, 1)
    writer.close()
    assert writer.slot is None
    assert other.repair(0, nobody)


def test_what_is_in_doubt_is_repaired_by_others_once_the_slot_is_given_back(tmp_path: Path) -> None:
    identity = make(tmp_path)
    writer, other = open_in(tmp_path, identity), open_in(tmp_path, identity)
    lost, two, late = (
        Begun(writer, [1], in_doubt=["a"]),
        Begun(writer, [2]),
        Begun(writer, [3], nobody, ["b"]),
    )
    lost.end()
    del lost
    writer.close()
    assert not other.repair(0, nobody)
    two.end()
    assert not other.repair(0, nobody)
    # It is the last one, and it is not known whether it was made.
    late.end()
    fenced: list[int] = []
    assert other.repair(0, fenced.append)
    assert fenced == [0]
    assert is_idle(other, 1)
    assert is_idle(other, 3)


# --- more writers than slots, and many ------------------------------------------------------------


def test_a_writer_for_whom_there_is_no_slot_waits_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seqcount, "SLOTS", 3)
    identity = make(tmp_path)
    writers = [open_in(tmp_path, identity) for _ in range(3)]
    for writer in writers:
        count(writer, 5)
    late = Seqcount(tmp_path, identity, timeout=0.2)
    with pytest.raises(StoreUnavailableError, match="3 processes write"):
        count(late, 5)
    assert is_idle(late, 5)
    late._timeout = PATIENCE
    looked, claim = threading.Event(), late._claim

    def claim_and_tell(number: int, fence: Any) -> bool:
        is_claimed = claim(number, fence)
        if number == 2 and not is_claimed:
            looked.set()
        return is_claimed

    monkeypatch.setattr(late, "_claim", claim_and_tell)
    thread = threading.Thread(target=count, args=(late, 5))
    thread.start()
    assert looked.wait(PATIENCE)
    writers[1].close()
    thread.join(PATIENCE)
    assert late.slot == 1
    assert row(late, 5).tolist()[1:7] == [1, 1, 2, 2, 1, 1]


def test_there_are_slots_for_a_thousand_writers(tmp_path: Path) -> None:
    reader = open_in(tmp_path, make(tmp_path))
    writer = open_in(tmp_path, reader.identity)
    claim, taken = writer._claim, range(SLOTS - 1)
    writer._claim = lambda number, fence: (  # type: ignore[method-assign]
        number not in taken and claim(number, fence)
    )
    begun = Begun(writer, [5])
    assert writer.slot == 1023
    assert reader.unfinished(5) == [1023]
    assert not is_idle(reader, 5)
    begun.end()
    assert is_idle(reader, 5)
    assert open_in(tmp_path, make(tmp_path)).identity == reader.identity
