"""What is left, and what stays, while processes of an embedded server come and go."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from tests.support.processes import servers, starts, the_server

#: longer than any round takes
LONG = 600


def temporaries(path: Path) -> list[Path]:
    """Files that should have been renamed or removed."""
    return [file for file in path.rglob("*") if ".new" in file.name or file.name.startswith("temp-")]


@contextlib.contextmanager
def one_server_throughout(path: Path):
    """Look at the servers all the time; there must always be the same one."""
    pid, stop = the_server(path), threading.Event()
    others: list[list[int]] = []

    def watch() -> None:
        while not stop.wait(0.05):
            if servers(path) != [pid]:
                others.append(servers(path))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        stop.set()
        watching.join()
    assert others == []
    assert (servers(path), starts(path)) == ([pid], 1)
