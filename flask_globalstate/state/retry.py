"""Functions that run in a transaction, and again when another worker came between."""

from __future__ import annotations

import functools
import inspect
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..errors import ConflictError

#: seconds before a transaction is tried again
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.1

#: functions that do nothing when they are called
RUN_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def transacted(
    function: Callable[..., Any],
    retries: int,
    transaction: Callable[[], AbstractContextManager[None]],
    is_in_transaction: Callable[[], bool],
) -> Callable[..., Any]:
    """A function in a transaction; see `State.transactional`.

    :param transaction: begins one.
    :param is_in_transaction: whether there is one already, which only its own beginner can try again.
    """
    if retries < 0:
        raise ValueError(f"retries is {retries}; it must be 0 or more")
    if any(test(function) for test in RUN_LATER):
        raise _would_run_later(function)

    @functools.wraps(function)
    def attempts(*args: Any, **kwargs: Any) -> Any:
        is_inside = is_in_transaction()
        for attempt in range(retries + 1):
            try:
                with transaction():
                    answer = function(*args, **kwargs)
                    if inspect.iscoroutine(answer):
                        answer.close()
                        raise _would_run_later(function)
                    return answer
            except ConflictError:
                if is_inside or attempt == retries:
                    raise
            time.sleep(random.uniform(0, min(LONGEST_PAUSE, SHORTEST_PAUSE * 2**attempt)))
        raise AssertionError("unreachable")

    return attempts


def _would_run_later(function: Callable[..., Any]) -> TypeError:
    return TypeError(f"{function!r} would run after its transaction: what it gives is run by its caller")
