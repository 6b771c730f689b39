"""What a request of a storm does: it sees counters in every way that there is, and counts them on by hand.

The number of a counter only grows, by 1: it is a version, and two answers tell which of them is older.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask_globalstate import ConflictError, GlobalState, GlobalStateError, SharedCounter

logger = logging.getLogger(__name__)

#: what a counter is in: an item, an item of a dict inside of it, a value
NESTED = "/hits"
PAIR = "abc"

Seen = dict[str, int]


def sleep(milliseconds: float) -> None:
    """Let other requests of this worker run."""
    time.sleep(milliseconds / 1000)


def run(
    table: Mapping[str, Callable[..., Any]], steps: Iterable[list[Any]], clock: Callable[[], int]
) -> list[list[Any]]:
    """For each step when it began and ended, its answer and its error; none after an error is made."""
    done = []
    for name, *arguments in steps:
        began, answer, failure = clock(), None, None
        try:
            answer = table[name](*arguments)
        except (GlobalStateError, OSError, ValueError, LookupError, RuntimeError, TypeError) as error:
            logger.warning("%s: %s", name, error, exc_info=not isinstance(error, ConflictError))
            failure = f"{type(error).__name__}: {error}"
        done.append([began, clock(), answer, failure])
        if failure:
            break
    return done


class Ways:
    """The ways to see counters in shared dicts, and to count them on.

    :param state: that shares them.
    :param counters: a dict of counters for each mode.
    :param nap: lets other requests of this worker run, for so many milliseconds.
    """

    def __init__(
        self, state: GlobalState, counters: Mapping[str, Any], nap: Callable[[float], None] = sleep
    ) -> None:
        self._state = state
        self._nap = nap
        self._counters = counters
        self._pairs = {mode: state.dict(f"PAIRS of {mode}", sync=mode) for mode in counters}
        self._values = {
            f"{mode}:value": state.value(f"VALUE of {mode}", initial=0, sync=mode) for mode in counters
        }
        self.steps: dict[str, Callable[..., Any]] = {
            "count": self.count,
            "add": lambda mode, key: counters[mode].increment(key),
            "nap": nap,
            "look": self.look,
            "bump": self.bump,
            "pair": self.pair,
            "pairs": self.pairs,
            "sync": self.sync,
        }

    def sync(self, mode: str) -> None:
        """Bring all of a mode up to date."""
        for shared in (self._counters[mode], self._pairs[mode], self._values[f"{mode}:value"]):
            shared.sync()

    # --- seeing ---------------------------------------------------------------------------------

    def count(self, mode: str, key: str) -> int:
        """The number of a counter, wherever it is."""
        if key in self._values:
            return int(self._values[key].value)
        found = self._counters[mode].get(key, 0)
        return int(found["hits"] if key.endswith(NESTED) and found else found)

    def look(self, mode: str, way: str, *keys: str) -> Seen:
        """The numbers of counters, seen in one of the ways; what is absent is 0."""
        return WAYS[way](self._state, self._counters[mode], keys)

    def pairs(self, mode: str, way: str) -> list[Any]:
        """The values of the keys that are always written together."""
        pairs = self._pairs[mode]
        found = {
            "copy": lambda: pairs.copy().values(),
            "items": lambda: dict(pairs.items()).values(),
            "values": pairs.values,
            "snapshot": lambda: pairs.snapshot().values(),
        }[way]()
        return list(found)

    # --- writing --------------------------------------------------------------------------------

    def pair(self, mode: str, value: str) -> None:
        """Write the keys that are always written together."""
        self._pairs[mode].update(dict.fromkeys(PAIR, value))

    def bump(self, mode: str, way: str, key: str, milliseconds: float) -> int:
        """See a counter, wait, write what was seen and 1 more; what was written.

        :raises ConflictError: if somebody else has counted meanwhile.
        """
        try:
            if key in self._values:
                return self._bump_value(self._values[key], milliseconds)
            if key.endswith(NESTED):
                return self._bump_nested(self._counters[mode], key, milliseconds)
            number = self.look(mode, way, key)[key]
            self._nap(milliseconds)
            self._counters[mode][key] = number + 1
        except ConflictError:
            if mode == "manual":
                self.sync(mode)
            raise
        return number + 1

    def _bump_nested(self, counters: Any, key: str, milliseconds: float) -> int:
        counters.setdefault(key, {"hits": 0})
        inner = counters[key]  # Once, as ``counters[key]["hits"] += 1`` does.
        number = inner["hits"]
        self._nap(milliseconds)
        inner["hits"] = number + 1
        return int(number) + 1

    def _bump_value(self, shared: Any, milliseconds: float) -> int:
        number = shared.value
        self._nap(milliseconds)
        shared.value = number + 1
        return int(number) + 1


# --- the ways --------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[GlobalState, Any, tuple[str, ...]], Seen]] = {}


def way(function: Callable[[GlobalState, Any, tuple[str, ...]], Seen]) -> Callable[..., Seen]:
    """Enter a function among them, under its own name."""
    WAYS[function.__name__.strip("_")] = function
    return function


def of_each(name: str, see: Callable[[Any, str], int]) -> None:
    """Enter what sees one key at a time."""
    WAYS[name] = lambda state, counters, keys: {key: see(counters, key) for key in keys}


def of_all(name: str, see: Callable[[Any], Mapping[str, int]]) -> None:
    """Enter what sees the whole name."""

    def look(state: GlobalState, counters: Any, keys: tuple[str, ...]) -> Seen:
        seen = see(counters)
        return {key: seen.get(key, 0) for key in keys}

    WAYS[name] = look


def item(counters: Any, key: str) -> int:
    """By its key, where KeyError means that it is absent."""
    try:
        return int(counters[key])
    except KeyError:
        return 0


def edited(counters: Any, key: str) -> int:
    """By a block that changes nothing."""
    with counters.edit(key, 0) as number:
        return int(number)


of_each("get", lambda counters, key: counters.get(key, 0))
of_each("item", item)
of_each("edit", edited)
of_each("apply", lambda counters, key: counters.apply(key, lambda number: number, 0))
of_each("increment", lambda counters, key: counters.increment(key, 0))
of_each("setdefault", lambda counters, key: counters.setdefault(key, 0))
of_all("copy", lambda counters: counters.copy())
of_all("items", lambda counters: dict(counters.items()))
of_all("snapshot", lambda counters: counters.snapshot())
of_all("union", lambda counters: counters | {})


@way
def transaction(state: GlobalState, counters: Any, keys: tuple[str, ...]) -> Seen:
    """In a transaction that writes nothing."""
    with state.transaction():
        return {key: counters.get(key, 0) for key in keys}


@way
def writing(state: GlobalState, counters: Any, keys: tuple[str, ...]) -> Seen:
    """In a transaction that writes something else."""
    with state.transaction():
        counters[f"beside {os.getpid()}"] = 0
        return {key: counters.get(key, 0) for key in keys}


@way
def absent(state: GlobalState, counters: Any, keys: tuple[str, ...]) -> Seen:
    """Those that are not there."""
    return {key: 0 for key in keys if key not in counters}


@way
def listed(state: GlobalState, counters: Any, keys: tuple[str, ...]) -> Seen:
    """Those that are not in the list of keys."""
    found = list(counters)
    return {key: 0 for key in keys if key not in found}


@way
def refused(state: GlobalState, counters: Any, keys: tuple[str, ...]) -> Seen:
    """Those that are newer than what is read, as a compare-and-set that is refused says: at least so new."""
    seen = {}
    for key in keys:
        number = item(counters, key)
        if number and not counters.compare_and_set(key, number, number):
            seen[key] = number + 1
    return seen


# --- globals of a module ------------------------------------------------------------------------------


def share_module(state: GlobalState, legacy: Any) -> dict[str, Callable[..., Any]]:
    """Share the globals of a module that knows nothing of it; the steps that use them."""
    state.share_globals(legacy, "TRAIL", "LAST")
    state.share_globals(legacy, HITS=SharedCounter)
    return {
        "hit": legacy.hit,
        "trail": legacy.trail,
        "last": legacy.last,
        "peek": legacy.peek,
        "hits": lambda: state.counter(f"{legacy.__name__}.HITS").value,
        "ids": lambda: list(state.value(f"{legacy.__name__}.TRAIL").value),
    }
