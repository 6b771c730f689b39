"""Run the demo under gunicorn, and say where it is: python -m demo --port 8000 --workers 4"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> int:
    """Start gunicorn, tell the address when it answers, and end with it."""
    options = read_arguments()
    try:
        check_port(options.port)
    except OSError as error:
        return explain(error, options.port)
    server = start(options.port, options.workers)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: server.terminate())
    if wait_until_it_answers(server, options.port):
        print(f"The demo runs at http://{HOST}:{options.port} — stop it with Ctrl-C", flush=True)
    return server.wait()


def read_arguments() -> argparse.Namespace:
    """The port and the number of workers."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=4)
    return parser.parse_args()


def check_port(port: int) -> None:
    """Raise OSError if the port can't be had; gunicorn would try five times and then show a traceback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))


def explain(error: OSError, port: int) -> int:
    """Say why the port can't be had, and what to do."""
    if error.errno == errno.EADDRINUSE:
        reason = f"port {port} is in use, perhaps by another demo"
    else:
        reason = f"port {port} can't be used ({error.strerror})"
    print(f"{reason}. Choose another one: make demo PORT={port + 1}", file=sys.stderr)
    return 1


def start(port: int, workers: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """gunicorn, as anybody would start it.

    :param environment: is added to ours; FLASK_STORE_PATH, say.
    """
    command = ["-c", "gunicorn_conf.py", "-w", str(workers), "--log-level", "warning", "demo.app:app"]
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *command],
        cwd=REPOSITORY,
        # Out of reach of Ctrl-C, which would cut off what a worker is answering: we ask it to end.
        start_new_session=True,
        env={**os.environ, "BIND": f"{HOST}:{port}", **(environment or {})},
    )


def wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server can be reached; False if it has ended."""
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(main())
