"""Functions that run at the same time, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.support import PATIENCE


def run_threads(*functions: Callable[[], Any]) -> None:
    """Run these at the same time, and raise what one of them raised."""
    start, errors = threading.Barrier(len(functions)), []

    def run(function: Callable[[], Any]) -> None:
        try:
            start.wait(PATIENCE)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
