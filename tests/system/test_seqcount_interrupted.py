"""Commits that are counted and interrupted at any step, and file systems on which nothing is counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from flask_globalstate import ReentryError, StoreUnavailableError
from flask_globalstate.system import holding, seqcount, seqcount_file
from flask_globalstate.system.seqcount import Commit, Seqcount, open_seqcount
from flask_globalstate.system.seqcount_file import (
    FILE,
    NETWORKED,
    SIZE,
    SLOTS,
    UNUSED,
    file_system,
    make,
)
from tests.support.counting import Begun, count, is_idle, nobody, open_in, row
from tests.support.steps import Interrupt, at_step, interrupt

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
