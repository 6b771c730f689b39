"""Modules that know nothing of share_globals; two states are two workers."""

from __future__ import annotations

import contextvars
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask_globalstate import (
    GlobalState,
)

SOURCE = """
import collections, threading

DATA = {"users": {"ann": [{"id": 1}]}, "n": 0}
LOG = ["started"]
TAGS = {"a"}
HITS = 0
THEME = "dark"
LIMITS = (1, [2])
WORDS = collections.Counter()
LOCK = threading.Lock()


def hit(times=1):
    global HITS
    for _ in range(times):
        HITS += 1


def reset():
    global HITS
    HITS = 0


def set_theme(theme):
    global THEME
    THEME = theme


def replace(data, log, tags):
    global DATA, LOG, TAGS
    DATA, LOG, TAGS = data, log, tags


def mutate():
    DATA["users"].setdefault("bob", []).append({"id": 2})
    DATA["users"]["ann"][0]["id"] += 10
    DATA["n"] += 1
    LOG.append("mutated")
    TAGS.add("b")
"""


MUTATED = {"users": {"ann": [{"id": 11}], "bob": [{"id": 2}]}, "n": 1}


CONTAINERS = ("DATA", "LOG", "TAGS")


def module(name: str = "legacy", source: str = SOURCE, is_known: bool = True) -> Any:
    """A module, as importing it makes it.

    :param is_known: whether it is in the table of modules.
    """
    made = types.ModuleType(name)
    if is_known:
        sys.modules[name] = made
    exec(compile(source, f"{name}.py", "exec"), vars(made))
    return made


class Worker:
    """What a worker process has: a state, and a module of its own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"STORE_BACKEND": "shelve", "STORE_PATH": str(folder), **settings}
        self.state = GlobalState.from_config(given)
        self.legacy = module(is_known=False)

    def share(self, *names: str, **kinds: Any) -> Worker:
        self.state.share_globals(self.legacy, *names, **kinds)
        return self

    def request(self, name: str = "hit", *arguments: Any) -> None:
        """Call a function of the module in a request."""
        contextvars.Context().run(self._request, lambda: getattr(self.legacy, name)(*arguments))

    def read(self, name: str) -> Any:
        """What a request sees under a name."""
        return contextvars.Context().run(self._request, lambda: getattr(self.legacy, name))

    def _request(self, function: Callable[[], Any]) -> Any:
        with self.state.request():
            return function()


HOLDERS = """
class Basket:
    items = LOG

    def __init__(self):
        self.data = DATA


def shown(data=DATA, *, log=LOG):
    return data


def counter():
    tags = TAGS

    def count():
        return len(tags)

    return count


count = counter()
basket = Basket()
REGISTRY = {"data": DATA}
PAIR = (TAGS, None)
"""
