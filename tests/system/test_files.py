"""Who may have made what is opened: the files themselves, and every directory on the way to them."""

from __future__ import annotations

import gc
import os
import pwd
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flask_globalstate import ConfigurationError
from flask_globalstate.system.directory import Directory, write_in_one_step
from flask_globalstate.system.files import OpenFolder, OwnFile, read_own, require_own_tree
from tests.support import PATIENCE

NOBODY = 65534
NO_GROUP = 54321

by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something to somebody else")


def in_time(act: Callable[[], Any]) -> Any:
    """What an act returns or raises, unless it hangs."""
    answers: list[Any] = []

    def note() -> None:
        try:
            answers.append((act(), None))
        except BaseException as error:
            answers.append((None, error))

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert answers, "it hangs"
    answer, error = answers[0]
    if error is not None:
        raise error
    return answer


@pytest.fixture(autouse=True)
def no_garbage_of_other_tests() -> None:
    """What they have left open is not closed while descriptors are counted."""
    gc.collect()


def open_descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


# --- files --------------------------------------------------------------------------------------


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"theirs")
    path.symlink_to(target)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


STRANGE: dict[str, Callable[[Path], None]] = {
    "link": make_link,
    "dangling": lambda path: path.symlink_to("nowhere"),
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "socket": make_socket,
}


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str, flags: int) -> None:
    path = tmp_path / "file"
    STRANGE[kind](path)
    before = open_descriptors()
    with pytest.raises(ConfigurationError, match="Repair it") as caught:
        in_time(lambda: OwnFile(path, flags))
    assert str(path) in str(caught.value)
    del caught
    assert open_descriptors() == before
    assert not (tmp_path / "nowhere").exists()


@by_root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"theirs")
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        read_own(path)
    assert OwnFile(path, owner=NOBODY).readall() == b"theirs"


@by_root
@pytest.mark.parametrize("strange", ["file", "folder", "link"])
def test_a_tree_is_ours_only_if_all_of_it_is(tmp_path: Path, strange: str) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "file").touch()
    require_own_tree(tree)
    if strange == "link":
        (tree / "link").symlink_to(tmp_path)
    else:
        os.chown(tree / "below" / ("file" if strange == "file" else ""), NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match="Repair it"):
        require_own_tree(tree)


def test_a_file_or_folder_that_nobody_refers_to_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = open_descriptors()
    OwnFile(tmp_path / "file")
    OpenFolder(tmp_path)
    assert open_descriptors() == before


def test_a_new_file_is_never_written_through_a_link_that_was_put_there(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    (tmp_path / "file.new").symlink_to(other)
    write_in_one_step(tmp_path / "file", b"ours")
    assert (other.read_bytes(), (tmp_path / "file").read_bytes()) == (b"other", b"ours")
    assert not (tmp_path / "file").is_symlink()


# --- the way there ------------------------------------------------------------------------------


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A directory in which a STORE_PATH is to be."""
    (tmp_path / "parent").mkdir(0o755)
    return tmp_path / "parent"


def assert_refused(path: Path, *words: str) -> None:
    """The error names what is in the way and the command that repairs it, and nothing is made."""
    was_there = path.exists()
    for use in (Directory(path).check, Directory(path).open):
        with pytest.raises(ConfigurationError) as caught:
            use()
        for word in (str(path), *words):
            assert word in str(caught.value)
    assert path.exists() == was_there


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("below", ["store", "a/b/store"])
def test_a_way_that_everybody_may_write_to_is_refused(parent: Path, below: str, exists: bool) -> None:
    if exists:
        Directory(parent / below).open()
    parent.chmod(0o777)
    assert_refused(parent / below, f"{parent} may be written to by every user", f"chmod o-w '{parent}'")
    parent.chmod(0o755)
    Directory(parent / below).open()


def test_a_sticky_directory_as_tmp_is_safe(parent: Path) -> None:
    parent.chmod(0o1777)
    Directory(parent / "store").open()


@by_root
def test_a_way_through_a_directory_of_another_user_is_refused(parent: Path) -> None:
    os.chown(parent, NOBODY, NOBODY)
    assert_refused(parent / "store", f"{parent} belongs to user 65534", f"chown -h 0 '{parent}'")


@by_root
def test_a_way_that_another_group_may_write_to_is_refused(parent: Path) -> None:
    parent.chmod(0o775)
    os.chown(parent, -1, NO_GROUP)
    assert_refused(
        parent / "store", f"{parent} may be written to by group {NO_GROUP}", f"chmod g-w '{parent}'"
    )
    parent.chmod(0o1775)
    Directory(parent / "store").open()


def test_a_group_of_ours_alone_may_write_where_the_umask_is_002(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent.chmod(0o775)
    us = SimpleNamespace(pw_uid=os.geteuid(), pw_gid=os.getegid(), pw_name="us")
    monkeypatch.setattr("flask_globalstate.system.files.pwd.getpwall", lambda: [us])
    monkeypatch.setattr(
        "flask_globalstate.system.files.grp.getgrgid", lambda gid: SimpleNamespace(gr_mem=["us"])
    )
    monkeypatch.setattr("flask_globalstate.system.files.pwd.getpwnam", lambda name: us)
    Directory(parent / "store").open()


@pytest.mark.parametrize("how", ["primary", "member", "unknown"])
def test_a_group_that_somebody_else_is_in_may_not_write(
    parent: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As the group `users` of some systems, which is the primary one of all of them."""
    parent.chmod(0o775)
    us = SimpleNamespace(pw_uid=os.geteuid(), pw_gid=os.getegid(), pw_name="us")
    other = SimpleNamespace(pw_uid=4711, pw_gid=os.getegid() if how == "primary" else 4711, pw_name="other")
    members = {"primary": [], "member": ["other"], "unknown": ["gone"]}[how]

    def getpwnam(name: str) -> Any:
        return {"us": us, "other": other}[name]

    entry = SimpleNamespace(gr_mem=members, gr_name="users")
    monkeypatch.setattr("flask_globalstate.system.files.pwd.getpwall", lambda: [us, other])
    monkeypatch.setattr("flask_globalstate.system.files.pwd.getpwnam", getpwnam)
    monkeypatch.setattr("flask_globalstate.system.files.grp.getgrgid", lambda gid: entry)
    assert_refused(parent / "store", f"{parent} may be written to by group {os.getegid()} (users)")


@by_root
def test_a_link_of_another_user_is_not_followed(parent: Path) -> None:
    uploads = parent.with_name("uploads")
    uploads.mkdir(0o700)
    parent.chmod(0o1777)
    link = parent / "store"
    link.symlink_to(uploads)
    Directory(link).open()
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert_refused(link, f"{link} belongs to user 65534")


@by_root
def test_a_link_that_is_put_there_before_we_make_the_directory_is_not_followed(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, store = parent.with_name("uploads"), parent / "store"
    uploads.mkdir(0o700)
    parent.chmod(0o1777)
    mkdir = Path.mkdir

    def come_first(path: Path, *arguments: Any, **options: Any) -> None:
        if path == store:
            store.symlink_to(uploads)
            os.chown(store, NOBODY, NOBODY, follow_symlinks=False)
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", come_first)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        Directory(store).open()


@pytest.mark.parametrize("kind", ["absolute", "relative", "above"])
def test_what_a_link_leads_through_is_looked_at_too(parent: Path, kind: str) -> None:
    other = parent.with_name("other")
    (other / "store").mkdir(0o700, parents=True)
    target = {"absolute": str(other), "relative": "../other", "above": f"../{parent.name}/../other"}[kind]
    (parent / "link").symlink_to(target)
    Directory(parent / "link" / "store").open()
    other.chmod(0o777)
    assert_refused(parent / "link" / "store", f"{other} may be written to")


def test_links_that_lead_to_each_other_are_an_error(parent: Path) -> None:
    (parent / "a").symlink_to("b")
    (parent / "b").symlink_to("a")
    with pytest.raises(ConfigurationError, match="links lead to each other"):
        Directory(parent / "a" / "store").check()


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_directories_that_we_make_are_safe_whatever_the_umask(parent: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        Directory(parent / "a" / "b" / "store").open()
        Directory(parent / "a" / "b" / "store").open()
    finally:
        os.umask(old)
    assert not (parent / "a").stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@pytest.mark.parametrize("text", ["a\0b", "a" * 5000, "file/below"])
def test_a_path_that_can_not_be_is_an_error_of_ours(parent: Path, text: str) -> None:
    (parent / "file").touch()
    with pytest.raises(ConfigurationError, match="STORE_PATH"):
        Directory(parent / text).open()


@by_root
def test_a_directory_that_may_not_be_entered_is_told_with_its_user_and_ours(parent: Path) -> None:
    parent.chmod(0o700)
    name = pwd.getpwuid(NOBODY).pw_name
    os.seteuid(NOBODY)
    try:
        with pytest.raises(ConfigurationError) as caught:
            Directory(parent / "store").check()
    finally:
        os.seteuid(0)
    # Which is the first depends on where the tests run.
    assert "belongs to user 0" in str(caught.value)
    assert f"we are user {NOBODY} ({name}), who has no permission to enter it" in str(caught.value)
    assert "chown" not in str(caught.value), "it is not the directory's own fault"


@by_root
def test_a_directory_of_ours_that_may_not_be_entered_needs_no_other_user() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        os.chmod(folder, 0o600)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(ConfigurationError, match=f"Repair it: chmod u.rwx '{folder}'"):
                Directory(Path(folder) / "store").check()
        finally:
            os.seteuid(0)
