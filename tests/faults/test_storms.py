"""Many requests at once in each worker, and a judgement of what they saw. Nothing breaks here.

More of it by hand: ``make faults STORM=1``.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from .plan import storms
from .rounds import STORES, Round, play, random_storm
from .test_faults import SEED

STORMS = list(storms(SEED))


def name_of(one: Round) -> str:
    return f"{one.setup.backend}-{one.setup.worker_class}"


def test_there_are_threads_and_greenlets_on_each_store_and_beside_processes_without_requests() -> None:
    met = {(one.setup.backend, one.setup.worker_class) for one in STORMS}
    assert met >= set(product(STORES, ["gthread", "gevent"]))
    assert any(scripts for one in STORMS for _, scripts in [one.storm])
    assert {one.setup.on_conflict for one in STORMS} == {"raise"}


def test_a_seed_decides_all_of_a_storm() -> None:
    assert random_storm(7, "shelve") == random_storm(7, "shelve")
    assert random_storm(7, "shelve") != random_storm(8, "shelve")


@pytest.mark.parametrize("one", STORMS, ids=map(name_of, STORMS))
def test_every_promise_is_kept_in_a_storm(one: Round, tmp_path: Path) -> None:
    report = play(one, tmp_path)
    print(report)
    assert report.is_good, f"again: SEED={SEED} make test ARGS='-k test_storms'\n{report}"


def test_a_package_that_overwrites_what_others_have_counted_is_found_out(tmp_path: Path) -> None:
    broken = replace(STORMS[1].setup, broken="no-conflicts")
    report = play(replace(STORMS[1], setup=broken, requests=40), tmp_path)
    assert {"lost", "counted twice"} <= set(report.laws)
