"""One client: drives a service over HTTP, and notes what it asked before it asks, and what it was answered.

Run as a process, which ends when its standard input does::

    python -m tests.faults.client '{"session": "c1", "sockets": [...], "journal": ..., "seed": ...}'

It imports the standard library only, so that several start at once in no time.
"""

from __future__ import annotations

import http.client
import json
import random
import select
import socket
import sys
import time
from typing import Any

#: seconds after which a client gives up
PATIENCE = 4.0
#: nanoseconds after which clients turn to other keys, so that the history of a key stays short
TURN = 1_000_000_000
PAUSE = 0.02
#: of a bank, and what is in each in the beginning
ACCOUNTS, EACH = 6, 100


class Connection(http.client.HTTPConnection):
    """A connection to gunicorn's unix socket."""

    def __init__(self, path: str, timeout: float = PATIENCE) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError as error:
            self.close()
            raise Unreachable(str(error)) from error


class Unreachable(OSError):
    """Nobody listens: what was to be asked was not."""


class Client:
    """A session: one request after the other.

    :param session: its name in the history.
    :param sockets: of the services, of which one is chosen for each request.
    :param journal: the file that it notes everything in.
    :param seed: of what it asks.
    :param began: nanoseconds; when the history began.
    :param keeps: whether it keeps its connection, and so its worker, as long as that lasts.
    """

    def __init__(
        self, session: str, sockets: list[str], journal: str, seed: int, began: int, keeps: bool = False
    ) -> None:
        self._session = session
        self._sockets = sockets
        self._rng = random.Random(seed)
        self._began = began
        self._keeps = keeps
        self._journal = open(journal, "a", buffering=1)  # noqa: SIM115 # for its life
        self._number = 0
        self._kept: Connection | None = None
        self._seen: dict[str, Any] = {}

    def ask(self, steps: list[list[Any]]) -> dict[str, Any]:
        """What was answered to a request, or why there is no answer; both are noted."""
        self._number += 1
        self._note(start=time.monotonic_ns(), steps=steps)
        try:
            answer = self._post(json.dumps(steps))
        except Unreachable:
            answer = {"unreachable": True}
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._hang_up()
            answer = {"failed": type(error).__name__}
        self._note(end=time.monotonic_ns(), **answer)
        return answer

    def note(self, steps: list[list[Any]], answer: dict[str, Any]) -> None:
        """Note what was answered in another way than over HTTP."""
        self._number += 1
        self._note(start=answer["begun"], steps=steps)
        self._note(end=time.monotonic_ns(), **answer)

    def _note(self, **event: Any) -> None:
        self._journal.write(json.dumps({"session": self._session, "number": self._number, **event}) + "\n")

    def _post(self, body: str) -> dict[str, Any]:
        connection = self._kept or Connection(self._rng.choice(self._sockets))
        self._kept = connection
        headers = {"Content-Type": "application/json"}
        if not self._keeps:
            headers["Connection"] = "close"
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        text = response.read()
        if response.will_close or not self._keeps:
            self._hang_up()
        if response.status in (200, 503) and text.startswith(b"{"):
            answer: dict[str, Any] = json.loads(text)
            return answer
        return {"status": response.status, "text": text[:500].decode(errors="replace")}

    def _hang_up(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    # --- what is asked --------------------------------------------------------------------------

    def run(self) -> None:
        """Ask until the end of the standard input."""
        while not select.select([sys.stdin], [], [], 0)[0]:
            steps = self.steps()
            answer = self.ask(steps)
            if "steps" not in answer:
                self._hang_up()
                time.sleep(PAUSE)
                continue
            for (name, *arguments), done in zip(steps, answer["steps"], strict=False):
                if name == "read":
                    self._seen[arguments[1]] = done[2]
        self.close()

    def steps(self) -> list[list[Any]]:
        """A request, chosen at random."""
        rng = self._rng
        turn = (time.monotonic_ns() - self._began) // TURN
        mode = rng.choice(["read", "request"])
        key = f"{turn}.{rng.randrange(2)}"
        choice = rng.choices(
            [self._register, self._counter, self._list, self._bank], [4, 3, 2, 2 * (rng.random() < 0.7)]
        )[0]
        return choice(mode, key)

    def _register(self, mode: str, key: str) -> list[list[Any]]:
        name = f"{mode}:{key}"
        value = f"{self._session}.{self._number}"
        kind = self._rng.choices(["read", "write", "cas"], [5, 3, 2])[0]
        if kind == "cas" and self._seen.get(name) is not None:
            return [["cas", mode, name, self._seen[name], value]]
        return [["write", mode, name, value]] if kind == "write" else [["read", mode, name]]

    def _counter(self, mode: str, key: str) -> list[list[Any]]:
        nap = ["nap", self._rng.choice([0, 0, 1, 3])]
        look, add = ["count", mode, f"{mode}:{key}"], ["add", mode, f"{mode}:{key}"]
        return self._rng.choice([[look], [add], [look, nap, look], [look, add, nap, look]])

    def _list(self, mode: str, key: str) -> list[list[Any]]:
        one = f"{self._session}.{self._number}"
        return [["append", key, one]] if self._rng.random() < 0.6 else [["list", key]]

    def _bank(self, mode: str, key: str) -> list[list[Any]]:
        bank = self._rng.choice(["one", "two"])
        if self._rng.random() < 0.5:
            source, target = self._rng.sample(range(ACCOUNTS), 2)
            return [["transfer", bank, str(source), str(target), self._rng.randrange(1, 20)]]
        how = "snapshot" if bank == "one" and self._rng.random() < 0.5 else "total"
        return [[how, bank]]

    def close(self) -> None:
        """Close the connection and the journal."""
        self._hang_up()
        self._journal.close()


if __name__ == "__main__":
    Client(**json.loads(sys.argv[1])).run()
