"""Sessions that ask all at once what depends on other requests of the same worker.

Run as a process::

    python -m tests.faults.storm '{"sessions": 12, "sockets": [...], "journals": ..., "seed": ...}'

A request is of one mode and one turn. It sees counters in one way after the other, and counts them on.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from .client import PAUSE, Client

#: requests after which a session turns to other counters, so that the history of each stays short
TURN = 25
MODES = ("request", "read", "manual")
KEYS = 2
#: the ways to see a counter (`ways.py`), and those of them after which it can be counted on
NUMBERS = ("get", "item", "edit", "apply", "increment", "setdefault", "copy", "items", "snapshot", "union")
TRANSACTIONS = ("transaction", "writing")
#: those that are noted outside of requests, where a note ends with an own write and with a transaction
ALWAYS_NOTED = tuple(way for way in NUMBERS if way not in ("apply", "increment"))
SIGHTS = ("absent", "listed", "refused")
WHOLE = ("copy", "items", "values", "snapshot")
#: what requests are about, and what they are about where the globals of a module are shared
THEMES = ("looks", "transactions", "bumps", "within", "pairs")
MODULE = "module"


class Session(Client):
    """A session of a storm, which asks a number of times.

    :param requests: how often.
    :param themes: what about.
    :cvar noted: ways to see a counter, of which each is seen in one and then counted on.
    """

    noted: tuple[Sequence[str], ...] = (("get",), NUMBERS, NUMBERS, TRANSACTIONS)

    def __init__(self, *arguments: Any, requests: int, themes: Sequence[str] = THEMES, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._requests = requests
        kinds = {
            "looks": [(4, self._script), (4, self._count)],
            "transactions": [(2, self._transactions)],
            "bumps": [(3, self._bump)],
            "within": [(1, self._within)],
            "pairs": [(2, self._write_pairs)],
            MODULE: [(4, self._module)],
        }
        self._kinds = [kind for theme in themes for kind in kinds[theme]]

    def steps(self) -> list[list[Any]]:
        """A request, chosen at random."""
        rng = self._rng
        turn = self._number // TURN
        mode = rng.choices(MODES, [4, 2, 2])[0]
        weights, kinds = zip(*self._kinds, strict=True)
        steps = rng.choices(kinds, weights)[0](mode, f"{mode}:{turn}")
        return [["sync", mode], *steps] if mode == "manual" and rng.random() < 0.5 else steps

    def _script(self, mode: str, turn: str) -> list[list[Any]]:
        """Look in one way after the other, with plain reads between them, while others write."""
        return self._looks(mode, turn, self._rng.choice([NUMBERS, NUMBERS, SIGHTS]))

    def _transactions(self, mode: str, turn: str) -> list[list[Any]]:
        """The same in transactions."""
        return self._looks(mode, turn, TRANSACTIONS)

    def _looks(self, mode: str, turn: str, ways: Sequence[str]) -> list[list[Any]]:
        steps = []
        for _ in range(self._rng.randrange(1, 4)):
            steps += [self._look(mode, turn, "get"), ["nap", self._rng.choice([0, 1, 3, 5])]]
            if self._rng.random() < 0.3:
                steps.append(["add", mode, self._key(turn)])
            steps.append(self._look(mode, turn, self._rng.choice(ways)))
        return [*steps, self._look(mode, turn, "get")]

    def _look(self, mode: str, turn: str, way: str) -> list[Any]:
        return ["look", mode, way, *(f"{turn}.{number}" for number in range(KEYS))]

    def _count(self, mode: str, turn: str) -> list[list[Any]]:
        """Many commits, most of them of what nobody looks at."""
        beside = [["add", mode, f"{turn}.beside"] for _ in range(4)]
        return [["add", mode, self._key(turn)], *beside, ["add", mode, self._key(turn)]]

    def _bump(self, mode: str, turn: str) -> list[list[Any]]:
        """Count on what was seen. These counters are others: one that lost an update would go back."""
        key = self._rng.choices(
            [f"{turn}.by hand", f"{mode}:by hand", f"{mode}:nested/hits", f"{mode}:value"], [2, 3, 3, 2]
        )[0]
        return [
            ["bump", mode, self._rng.choice(self._rng.choice(self.noted)), key, self._rng.choice([0, 1, 3])]
            for _ in range(self._rng.randrange(1, 4))
        ]

    def _within(self, mode: str, turn: str) -> list[list[Any]]:
        """Count on what was seen, after a request inside of this one has done so."""
        return [["within", mode, f"{mode}:by hand"]]

    def _write_pairs(self, mode: str, turn: str) -> list[list[Any]]:
        """Look at what is always written together, and write it."""
        looks = [["pairs", mode, self._rng.choice(WHOLE)] for _ in range(2)]
        return [looks[0], ["pair", mode, f"{self._session}.{self._number}"], looks[1]]

    def _module(self, mode: str, turn: str) -> list[list[Any]]:
        """Use the globals of a module."""
        one, nap = f"{self._session}.{self._number}", ["nap", self._rng.choice([0, 1, 3])]
        kinds = [["hit"], ["trail", one], ["last", one], ["peek"]]
        return [self._rng.choices(kinds, [2, 2, 1, 2])[0], nap]

    def _key(self, turn: str) -> str:
        return f"{turn}.{self._rng.randrange(KEYS)}"

    def run(self) -> None:
        """Ask as often as it shall."""
        for _ in range(self._requests):
            if "steps" not in self.ask(self.steps()):
                self._hang_up()
                time.sleep(PAUSE)
        self.close()


def main(sessions: int, journals: str, seed: int, **more: Any) -> None:
    """Let sessions ask, all at once."""
    asking = []
    for number in range(sessions):
        session = Session(f"s{number}", journal=f"{journals}/s{number}", seed=seed * 1000 + number, **more)
        asking.append(threading.Thread(target=session.run))
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
