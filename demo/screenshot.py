"""Make a picture of the demo as it is: python -m demo.screenshot docs/demo.png"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from demo.__main__ import HOST, start, wait_until_it_answers

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HITS = 500
BROWSER_TIMEOUT = 90


def main() -> None:
    """Run the demo on a store of its own, visit it often, and photograph it."""
    # The embedded server ends by itself when its directory is gone.
    with tempfile.TemporaryDirectory() as directory, running_demo(directory, workers=4) as address:
        ask(f"{address}/table/sample", method="POST")
        send_hits(address, HITS)
        browse(address, "--window-size=1200,1000", f"--screenshot={os.path.abspath(sys.argv[1])}")
    print(f"{sys.argv[1]} shows the demo after {HITS} requests to 4 workers")


@contextmanager
def running_demo(store_path: str | os.PathLike[str], workers: int) -> Iterator[str]:
    """The address of a demo that runs under gunicorn on a store of its own."""
    port = free_port()
    server = start(port, workers, {"FLASK_STORE_PATH": os.path.join(store_path, "store")})
    try:
        if not wait_until_it_answers(server, port):
            raise RuntimeError(f"gunicorn ended with {server.wait()}")
        yield f"http://{HOST}:{port}"
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def ask(address: str, method: str = "GET", form: Mapping[str, str] | None = None) -> bytes:
    """The body of an answer, after redirects."""
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(address, data, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        body: bytes = response.read()
        return body


def send_hits(address: str, requests: int) -> list[dict[str, Any]]:
    """What the workers answered to so many requests, of which twenty are under way at once."""
    with ThreadPoolExecutor(20) as threads:
        answers = threads.map(lambda _: ask(f"{address}/api/hit", method="POST"), range(requests))
        return [json.loads(answer) for answer in answers]


def find_browser() -> str | None:
    """The path of chromium, if it is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def browse(address: str, *options: str) -> str:
    """What chromium prints when it has visited the page without a window."""
    browser = find_browser()
    if browser is None:
        raise SystemExit(f"one of {', '.join(BROWSERS)} is needed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--hide-scrollbars", "--no-first-run", f"--user-data-dir={profile}", *options, address]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        try:
            return process.communicate(timeout=BROWSER_TIMEOUT)[0]
        finally:
            end_group(process)


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process and its children, which a browser has many of."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main()
