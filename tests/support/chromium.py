"""A browser without a window, driven over two pipes by the DevTools protocol; as much as the tests need."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TIMEOUT = 60
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
FIRST_FREE_DESCRIPTOR = 10  # The browser reads 3 and writes 4; ours must not be in the way of these.
BECOME = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """A browser with a profile of its own.

    :param path: the browser's program.
    :param profile: an empty directory.
    """

    def __init__(self, path: str, profile: Path) -> None:
        to_browser, self._writing = os.pipe()
        self._reading, from_browser = os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_FREE_DESCRIPTOR) for fd in (to_browser, from_browser)]
        for descriptor in (to_browser, from_browser):
            os.close(descriptor)
        command = [path, *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", BECOME, *map(str, theirs), *command],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for descriptor in theirs:
            os.close(descriptor)
        self._numbers = itertools.count(1)
        self._unread = b""

    def open(self, address: str) -> Page:
        """A new tab that shows ``address``."""
        target = self.call("Target.createTarget", url=address)["targetId"]
        return Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The browser's answer to one command."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            pass  # An event that nobody waits for.
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End the browser and all its processes."""
        os.close(self._writing)
        os.close(self._reading)
        try:
            self._process.wait(5)  # It ends by itself when its pipe is closed.
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            assert select.select([self._reading], [], [], TIMEOUT)[0], "the browser gave no answer"
            received = os.read(self._reading, 1 << 16)
            assert received, "the browser has ended"
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._browser.call(
            "Runtime.evaluate", self._session, expression=script, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    def text(self, selector: str) -> str | None:
        """The text that a visitor reads in the first element of this kind, or None."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText")  # type: ignore[no-any-return]

    def wait_for(self, script: str) -> None:
        """Return when a JavaScript expression is true."""
        deadline = time.monotonic() + TIMEOUT
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.02)
