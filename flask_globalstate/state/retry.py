"""Functions that run in a transaction, and again when another worker came between."""

from __future__ import annotations

import functools
import inspect
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

from ..errors import ConflictError

#: the least and the most seconds that a second try is waited for
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.1

#: functions whose body doesn't run when they are called
RUN_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


P = ParamSpec("P")
R = TypeVar("R")


def transacted(
    function: Callable[P, R],
    retries: int,
    transaction: Callable[[], AbstractContextManager[None]],
    is_in_transaction: Callable[[], bool],
) -> Callable[P, R]:
    """A function in a transaction; see `State.transactional`.

    :param transaction: begins one.
    :param is_in_transaction: whether there is one already; then whoever began it has to try again.
    """
    if retries < 0:
        raise ValueError(f"retries is {retries}; it must be 0 or more")
    if any(test(function) for test in RUN_LATER):
        raise _would_run_later(function)

    @functools.wraps(function)
    def attempts(*args: P.args, **kwargs: P.kwargs) -> R:
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


def _would_run_later(function: Callable[..., object]) -> TypeError:
    return TypeError(f"{function!r} would run after its transaction: what it gives is run by its caller")
