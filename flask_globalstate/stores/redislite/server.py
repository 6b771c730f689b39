"""A client's side of the embedded redis-server: take a lease, find the server, start it if need be.

One server for one directory, always. Each step's order matters: the lease first, so that the server
doesn't end under us; then the start lock, so that one process starts it; then the address is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ConfigurationError, GlobalStateError, StoreUnavailableError
from ...system import seqcount_file
from ...system.directory import LEASE, Directory, Lease, wait_until
from ...system.files import OpenFolder, read_own, require_own_file, require_own_tree
from ...system.forks import LockFile, no_fork
from . import supervisor
from .engine import Engine, answering, candidates, choose, writer_of
from .supervisor import (
    ASKING,
    DATA,
    RECORD,
    REQUEST,
    data_files,
    field,
    identity,
    lack_of_space,
    refusal_of_writes,
)

logger = logging.getLogger("flask_globalstate")

SUPERVISOR = Path(supervisor.__file__)
LONGEST_SOCKET_PATH = 100


class ServerStatus(NamedTuple):
    """What is known of an embedded server.

    :ivar running: whether it answers.
    :ivar server: its pid, or None when nobody runs.
    :ivar supervisor: the pid of its parent.
    :ivar since: when it was started.
    :ivar clients: how many connections it has.
    :ivar directory: where its data is.
    :ivar last_saved: when its data was last written to, or None if there is none.
    :ivar warning: what is wrong with its disk, or None.
    :ivar engine: product, version and binary of the server that runs, else of the one that wrote the data
        last; None if nothing is known of it.
    """

    running: bool
    server: int | None
    supervisor: int | None
    since: datetime | None
    clients: int
    directory: Path
    last_saved: datetime | None
    warning: str | None
    engine: Engine | None


class EmbeddedServer:
    """The server of one directory, seen from one process.

    :param path: the directory.
    :param server: the ``redis-server`` or ``valkey-server`` to run; None looks for one.
    :param appendfsync: ``no`` or ``always``.
    :param grace: seconds that the server waits for clients to come back.
    :param timeout: seconds to wait for the server to answer.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        server: str | None,
        appendfsync: str,
        grace: float,
        timeout: float,
    ) -> None:
        self.directory = Directory(path)
        self._server = server
        self._appendfsync = appendfsync
        self._grace = grace
        self._timeout = timeout
        self._lease = Lease(self.directory, timeout)

    def check(self) -> None:
        """Raise what `ensure` would raise because of a setting, and leave nothing behind.

        :raises ConfigurationError: as `Directory.check`; or if the configured server is not an executable.
        :raises MissingDependencyError: if there is no server to run.
        """
        self.directory.check()
        with self._errors():
            candidates(self._server, self.directory.path / DATA)

    def take_lease(self) -> None:
        """Keep the server from ending as long as this process lives."""
        with self._errors():
            self._lease.take()

    def check_place(self) -> None:
        """Raise if the directory is not the one that we have a lease of."""
        self._lease.check_place()

    def drop_lease(self) -> None:
        """Let the server end, if this was its last client."""
        self._lease.drop()

    def after_fork(self) -> None:
        """Take a lease of our own while the parent's, which we have inherited, is still open."""
        self._lease.after_fork()

    def secret(self) -> bytes:
        """The secret that is kept in the directory."""
        with self._errors():
            return self.directory.secret()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate errors of the file system into this package's."""
        try:
            yield
        except GlobalStateError:
            raise
        except OSError as error:
            self.check_place()
            raise StoreUnavailableError(
                f"the directory {self.directory.path} can't be used ({error}); check that it is there, its "
                "permissions, and the free space"
            ) from error

    def socket_path(self, folder: int | None = None) -> str:
        """Where the server listens: a path short enough for a socket, however long the directory's is.

        :param folder: a descriptor of the directory; our own, if we hold a lease, unless it is given.
        :raises ConfigurationError: where the system offers no way.
        """
        plain = str(self.directory.path / "redis.sock")
        if len(os.fsencode(plain)) <= LONGEST_SOCKET_PATH:
            return plain
        folder = self._lease.folder if folder is None else folder
        if folder is not None and os.path.isdir("/proc/self/fd"):
            return f"/proc/self/fd/{folder}/redis.sock"
        raise ConfigurationError(
            f"STORE_PATH {str(self.directory.path)!r} is too long for a socket on this system: "
            f"{len(os.fsencode(plain))} bytes, and {LONGEST_SOCKET_PATH} are possible"
        )

    def record(self) -> dict[str, Any] | None:
        """What the supervisor has recorded of the server, or None."""
        try:
            data = read_own(self.directory.path / RECORD)
        except FileNotFoundError:
            return None
        try:
            return supervisor.read_record(data.decode())
        except (ValueError, RecursionError) as error:
            raise StoreUnavailableError(f"{self.directory.path / RECORD} is damaged; remove it") from error

    def ensure(self) -> None:
        """Return when the server of this directory answers; start it if there is none.

        :raises StoreUnavailableError: if it doesn't answer in time.
        """
        with self._errors():
            self._lease.take()
            if self._answers():
                return
            with self.directory.locked("start.lock", self._timeout) as start_lock:
                self._start_if_nobody_runs(start_lock, time.monotonic() + self._timeout)

    def _start_if_nobody_runs(self, start_lock: LockFile, deadline: float) -> None:
        while not self._answers():
            if self._nobody_runs():
                self._start(start_lock, deadline)
            elif time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"the server of {self.directory.path} runs but has not answered for "
                    f"{self._timeout:g} seconds; see redis.log and supervisor.log there"
                )
            else:
                time.sleep(0.02)

    def _answers(self) -> bool:
        """Whether the server that is recorded answers, has its data, and is the one recorded."""
        record = self.record()
        if record is None:
            return False
        # Not PING: on a full disk it is refused as writes are.
        information = self._ask(b"INFO")
        return field(information, "run_id") == record.get("run_id") and field(information, "loading") == "0"

    def _ask(self, command: bytes) -> bytes:
        """What the server answers within a second, or nothing."""
        try:
            folder = OpenFolder(self.directory.path)
            return supervisor.ask(command, self.socket_path(folder.descriptor))
        except OSError:
            return b""

    def _nobody_runs(self) -> bool:
        """Whether no supervisor and no server holds the data."""
        try:
            with LockFile(self.directory.path / "server.lock") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True  # The directory was removed.
        except BlockingIOError:
            return False
        return True

    def _start(self, start_lock: LockFile, deadline: float) -> None:
        self._require_own_files()
        folder = self.directory.path / DATA
        engine, writer = choose(self._server, folder), writer_of(folder)
        settings: dict[str, Any] = {
            # Made here and nowhere else: nobody uses the directory now.
            "seqcount": seqcount_file.make(self.directory.path),
            "directory": str(self.directory.path),
            "server": engine.path,
            # If another binary takes its place, it is not started again before it was looked at too.
            "binary": identity(engine.path),
            "writer": engine.record(),
            "appendfsync": self._appendfsync,
            "grace": str(self._grace),
        }
        # Popen waits for the end of a pipe; a child forked meanwhile would keep it open all its life.
        with no_fork(), FileIO(os.dup(start_lock.fileno())) as copy:
            # Held there too until it has a lock of its own: nobody starts another one if we are killed.
            # A copy, which a child doesn't close as it does lock files.
            settings["start_lock"] = passed_on = copy.fileno()
            process = subprocess.Popen(
                [_python(), "-I", "-S", str(SUPERVISOR), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(passed_on,),
            )
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            # The supervisor forks away at once; what ends here is its first half.
            process.wait()
            remaining = max(0.0, deadline - time.monotonic())
            answered = select.select([process.stdout], [], [], remaining)[0]
            line = process.stdout.readline().decode().strip() if answered else "it gave no answer in time"
            if line != "ready":
                reason = line or process.stderr.read().decode(errors="replace")[-500:]
                raise StoreUnavailableError(
                    f"the server of {self.directory.path} could not be started: {reason}; "
                    "see redis.log and supervisor.log there"
                )
        if writer is not None and (writer.product, writer.layout) != (engine.product, engine.layout):
            logger.warning("%s: %s has taken over what %s wrote", self.directory.path, engine, writer)

    def _require_own_files(self) -> None:
        """Raise unless what the server and its supervisor open by name is ours; nobody else may write here.

        :raises ConfigurationError: naming the file.
        """
        for name in (seqcount_file.FILE, REQUEST, supervisor.LOG, supervisor.SERVER_LOG, supervisor.SPARE):
            require_own_file(self.directory.path / name)
        for name in (seqcount_file.LOCKS, DATA):
            require_own_tree(self.directory.path / name)
        require_own_file(self.directory.path / DATA / supervisor.WRITER)  # A folder is of a tree, too.

    def status(self) -> ServerStatus:
        """What is known of the server; nothing is started to find out.

        :raises ConfigurationError: if the directory is another user's, or others may write to it.
        """
        with self._errors():
            is_there = self.directory.path.is_dir()
            if is_there:
                self.directory.require_owner()
            record = self.record() if is_there else None
            return self._status(record)

    def _status(self, record: dict[str, Any] | None) -> ServerStatus:
        data = data_files(str(self.directory.path / DATA)).values()
        newest = max((file.st_mtime for file in data), default=None)
        last_saved = None if newest is None else datetime.fromtimestamp(newest, UTC)
        writer = writer_of(self.directory.path / DATA)
        warnings = [lack_of_space(str(self.directory.path), sum(file.st_size for file in data))]
        if record is None or self._nobody_runs():
            warning = _sentence(warnings)
            return ServerStatus(False, None, None, None, 0, self.directory.path, last_saved, warning, writer)
        warnings.append(refusal_of_writes(self._ask(b"INFO persistence")))
        return ServerStatus(
            self._answers(),
            record["server"],
            record["supervisor"],
            datetime.fromtimestamp(record["since"], UTC),
            _count_clients(self._ask(b"CLIENT LIST")),
            self.directory.path,
            last_saved,
            _sentence(warnings),
            answering(self._ask(b"INFO server")) or writer,
        )

    def require_running(self) -> None:
        """Return if the server answers; it is not started.

        :raises ConfigurationError: as `status`.
        :raises StoreUnavailableError: if none runs.
        """
        if not self.status().running:
            raise StoreUnavailableError(
                f"no server runs in {self.directory.path}, and this doesn't start one; the application does "
                "when it uses its shared globals"
            )

    def stop(self, *, force: bool = False) -> bool:
        """End the server with its data saved; false if there was none.

        Asked for by a lock in the directory, which the supervisor looks at. No process is signalled: a
        number that stands in a file may by now, or in another container, be that of another one.

        :param force: end it though clients are there; they start it again with their next call.
        :raises ConfigurationError: if the directory is another user's, or others may write to it.
        :raises StoreUnavailableError: while clients are there, unless forced, or if it doesn't end.
        """
        with self._errors():
            if not self.directory.path.is_dir():
                return False
            self.directory.require_owner()
            # Nobody starts another one before we have seen this one end.
            with self.directory.locked("start.lock", self._timeout):
                if self._nobody_runs():
                    return False
                if not force and self._has_clients():
                    raise StoreUnavailableError(
                        f"the server of {self.directory.path} has clients; end them first, or force it"
                    )
                with self.directory.lock(REQUEST, fcntl.LOCK_EX if force else fcntl.LOCK_SH, self._timeout):
                    self._wait_for_end()
        return True

    def _wait_for_end(self) -> None:
        if not self.gone(self._timeout):
            raise StoreUnavailableError(
                f"the server of {self.directory.path} was told to end and has not within {self._timeout:g} "
                "seconds. Either new clients have come, or its supervisor was killed, or is in another "
                "release; see supervisor.log. The server alone is ended by: redis-cli -s "
                f"'{self.directory.path / supervisor.SOCKET}' shutdown"
            )

    def _has_clients(self) -> bool:
        try:
            self.directory.lock(LEASE, fcntl.LOCK_EX, 0.5).close()
        except FileNotFoundError:
            return False  # The directory was removed.
        except StoreUnavailableError:
            return True
        return False

    def gone(self, timeout: float) -> bool:
        """Whether supervisor and server have ended within ``timeout`` seconds."""
        return wait_until(self._nobody_runs, timeout)


def _count_clients(answer: bytes) -> int:
    """How many clients ``CLIENT LIST`` tells of, without those that only ask, or have said nothing yet."""
    lines = [line for line in answer.splitlines() if line.startswith(b"id=")]
    return sum(b" name=" + ASKING not in line and b" cmd=NULL" not in line for line in lines)


def _sentence(texts: list[str]) -> str | None:
    return "; ".join(filter(None, texts)) or None


def _python() -> str:
    """A Python to run the supervisor; under uWSGI and other embedders sys.executable is not one."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [sys.executable, os.path.join(sys.exec_prefix, "bin", version), shutil.which("python3")]
    for candidate in candidates:
        if candidate and os.path.basename(candidate).startswith(("python", "pypy")):
            return candidate
    raise ConfigurationError("no Python interpreter was found to run the supervisor of the embedded server")
