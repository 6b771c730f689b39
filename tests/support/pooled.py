"""A script that passes shared globals to processes of `multiprocessing`.

It is run as ``python -m tests.support.pooled HOW METHOD``. The environment says which store; with ``FACTORY``
in it the globals are made where only the first process comes by.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from typing import Any

from flask_globalstate import GlobalState, SharedCounter, SharedDict

TASKS = 20


class Globals:
    """Two shared globals."""

    def __init__(self) -> None:
        self.state = GlobalState.from_config({})
        self.squares: SharedDict[int, int] = self.state.dict("SQUARES")
        self.done = self.state.counter("DONE")


if not os.environ.get("FACTORY"):
    made = Globals()


def work(number: int, squares: SharedDict[int, int], done: SharedCounter) -> Any:
    """Write a square, count it, and return the dict, which goes back the way it came."""
    squares[number] = number * number
    done.increment()
    return squares


def from_queue(queue: Any) -> None:
    """Work on what a queue hands over, until that is None."""
    while (task := queue.get()) is not None:
        work(*task)


def with_pool(context: BaseContext, tasks: list[Any]) -> list[Any]:
    with context.Pool(2) as pool:
        return pool.starmap(work, tasks)


def with_executor(context: BaseContext, tasks: list[Any]) -> list[Any]:
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        return list(executor.map(work, *zip(*tasks, strict=True)))


def with_processes(context: Any, tasks: list[Any]) -> list[Any]:
    processes = [context.Process(target=work, args=task) for task in tasks[:2]]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def with_queue(context: Any, tasks: list[Any]) -> list[Any]:
    queue = context.Queue()
    process = context.Process(target=from_queue, args=(queue,))
    process.start()
    for task in (*tasks, None):
        queue.put(task)
    process.join()
    return [process.exitcode]


HOW = {"pool": with_pool, "executor": with_executor, "processes": with_processes, "queue": with_queue}

if __name__ == "__main__":
    how, method = sys.argv[1:]
    mine = Globals() if os.environ.get("FACTORY") else made
    work_to_do = [(number, mine.squares, mine.done) for number in range(TASKS)]
    answers = HOW[how](multiprocessing.get_context(method), work_to_do)
    same = [answer is mine.squares for answer in answers if not isinstance(answer, int)]
    print(
        len(mine.squares),
        mine.done.value,
        all(same),
        [answer for answer in answers if isinstance(answer, int)],
    )
