"""Threads of which one runs at a time, in an order that a seed decides.

What is decided is who goes on at each place where a thread gives way. So a thread that loses a race at such a
place loses it again with the same seed.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

#: seconds after which a thread that has not given way waits for another one
BLOCKED = 0.5
#: seconds after which nobody will go on any more
PATIENCE = 60.0


class Turns:
    """Whose turn it is.

    :param seed: decides it.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._here = threading.local()
        #: the number of a thread that gives way, and whether it has ended
        self._news: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()
        self._go: list[threading.Semaphore] = []
        self._ready: set[int] = set()
        #: those that were let go on, and have not given way since
        self._out: set[int] = set()
        self._errors: list[BaseException] = []
        self._now = 0

    def clock(self) -> int:
        """The order of what happens, since one thing happens at a time; a millisecond for each."""
        self._now += 1_000_000
        return self._now

    def give_way(self) -> None:
        """Let another thread go on, or the same; in threads that are not ours, nothing."""
        number = getattr(self._here, "number", None)
        if number is not None and not getattr(self._here, "inside", False):
            self._news.put((number, False))
            self._go[number].acquire()

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, that gives way before it begins and after it has ended, and never within."""

        def turned(*arguments: Any, **named: Any) -> Any:
            if getattr(self._here, "inside", False):
                return call(*arguments, **named)
            self.give_way()
            self._here.inside = True
            try:
                return call(*arguments, **named)
            finally:
                self._here.inside = False
                self.give_way()

        return turned

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run each in a thread of its own; return when all have ended."""
        self._go = [threading.Semaphore(0) for _ in tasks]
        self._out = set(range(len(tasks)))
        threads = [
            threading.Thread(target=self._task, args=(number, task), daemon=True)
            for number, task in enumerate(tasks)
        ]
        for thread in threads:
            thread.start()
        while self._out or self._ready:
            self._hear()
            if self._ready:
                number = self._rng.choice(sorted(self._ready))
                self._ready.remove(number)
                self._out.add(number)
                self._go[number].release()
        for thread in threads:
            thread.join(PATIENCE)
        if self._errors:
            raise self._errors[0]

    def _task(self, number: int, task: Callable[[], None]) -> None:
        self._here.number = number
        self.give_way()
        try:
            task()
        except BaseException as error:
            self._errors.append(error)
        self._news.put((number, True))

    def _hear(self) -> None:
        """Wait until nobody runs, but for those that wait for others."""
        while self._out:
            try:
                number, has_ended = self._news.get(timeout=BLOCKED if self._ready else PATIENCE)
            except queue.Empty:
                assert self._ready, f"threads {self._out} wait for each other"
                return
            self._out.discard(number)
            if not has_ended:
                self._ready.add(number)
