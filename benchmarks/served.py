"""Applications under gunicorn or uWSGI on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

DEADLINE, GRACE = 30, 2
ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def served(
    application: str,
    options: list[str] | None = None,
    *,
    workers: int = 1,
    uwsgi: bool = False,
    **environment: str,
) -> Iterator[str]:
    """The URL of an application while it is served.

    :param application: as gunicorn takes it.
    :param options: more for the command line.
    :param uwsgi: serve it with uWSGI.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
    place = f"127.0.0.1:{address[1]}"
    command = _uwsgi if uwsgi else _gunicorn
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command(application, place, workers), *(options or [])],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_for(process, address, log)
            yield f"http://{place}/"
        finally:
            _end(process)


def _wait_for(process: subprocess.Popen[Any], address: Any, log: TextIO) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        with socket.socket() as connection:
            if connection.connect_ex(address) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            raise RuntimeError(f"did not start: {' / '.join(log.read().splitlines()[-3:])}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[Any]) -> None:
    """End it with all that it has started; some libraries keep a worker from ending by itself."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE + 2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _gunicorn(application: str, place: str, workers: int) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", "-w", str(workers), "-b", place]
    return [*command, "--log-level", "error", "--graceful-timeout", str(GRACE), application]


def _uwsgi(application: str, place: str, workers: int) -> list[str]:
    program = shutil.which("uwsgi", path=os.path.dirname(sys.executable))
    if program is None:
        raise FileNotFoundError("uwsgi is not installed")
    command = [program, "--http-socket", place, "--master", "--processes", str(workers), "--die-on-term"]
    return [*command, "--need-app", "--disable-logging", "--wsgi", application]


def tell_environment(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application that gives the variable which its path names."""
    start_response("200 OK", [])
    return [os.environ[environ["PATH_INFO"].strip("/")].encode()]


try:
    from gunicorn.dirty import DirtyApp
except ImportError:  # An older gunicorn.
    pass
else:

    class DirtyNothing(DirtyApp):
        """gunicorn has no stash without such an application."""

        def __call__(self, action: str, *arguments: Any, **named: Any) -> None:
            """Never called."""
