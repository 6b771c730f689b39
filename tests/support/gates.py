"""Somebody who is inside of a gate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask_globalstate.system.gate import Gate
from tests.support import PATIENCE


@contextmanager
def somebody_inside(gate: Gate) -> Iterator[None]:
    """Another thread is inside until the end of the block."""
    inside, go = threading.Event(), threading.Event()

    def stay() -> None:
        with gate:
            inside.set()
            go.wait(PATIENCE)

    thread = threading.Thread(target=stay)
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        yield
    finally:
        go.set()
        thread.join(PATIENCE)
