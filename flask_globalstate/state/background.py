"""The thread of this process that does what no request does.

It exists in processes that serve, from their first request on or once a server's hook has begun it, and
not in a master that has loaded the application for its children. A forked child has none until then.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import weakref
from typing import Protocol

from ..errors import StoreUnavailableError
from ..system import forks
from ..system.locks import ThreadLock

logger = logging.getLogger("flask_globalstate")


class Task(Protocol):
    """Something that is done again and again."""

    @property
    def interval(self) -> float:
        """The seconds between two times; 0 for never."""

    def look(self) -> None:
        """Do it once."""


class Background:
    """Carries tasks, which are held weakly, in one thread that ends after the last of them."""

    def __init__(self) -> None:
        self._lock = ThreadLock()
        self._tasks: weakref.WeakSet[Task] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._complaints: weakref.WeakKeyDictionary[Task, str] = weakref.WeakKeyDictionary()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the thread, which runs in the parent only, and what it carries there."""
        self._tasks, self._thread = weakref.WeakSet(), None
        self._complaints = weakref.WeakKeyDictionary()

    def carry(self, task: Task) -> None:
        """Begin to carry a task, if its interval is not 0; a second call does nothing."""
        if not task.interval or task in self._tasks:
            return
        with self._lock():
            if self._thread is None:
                # Of a context of its own: a greenlet would inherit the request that begins it.
                run = contextvars.Context().run
                thread = threading.Thread(target=run, args=(self._run,), name="globalstate", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return  # The interpreter ends, or there are too many threads: the next request tries.
                self._thread = thread
            self._tasks.add(task)

    def _run(self) -> None:
        thread, pause = threading.current_thread(), threading.Event()
        while interval := min((task.interval for task in self._tasks_of(thread)), default=0):
            pause.wait(min(interval, threading.TIMEOUT_MAX))
            for task in self._tasks_of(thread):
                self._look(task)
                del task  # It must not live until the next time.

    def _tasks_of(self, thread: threading.Thread) -> list[Task]:
        """What is to be carried; if that is nothing, or another thread carries it, this one is to end."""
        with self._lock():
            tasks = [task for task in self._tasks if task.interval] if self._thread is thread else []
            if not tasks and self._thread is thread:
                self._tasks, self._thread = weakref.WeakSet(), None
            return tasks

    def _look(self, task: Task) -> None:
        """Have a task look; complain of an error once, until it succeeds or fails otherwise."""
        try:
            task.look()
        except Exception as error:
            complaint = type(error).__name__ if isinstance(error, StoreUnavailableError) else str(error)
            if self._complaints.get(task) != complaint:
                self._complaints[task] = complaint
                logger.warning("what no request has published could not be brought to the store: %s", error)
        else:
            self._complaints.pop(task, None)


background = Background()
