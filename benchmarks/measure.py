"""How everything here is measured: rows take turns, and of each the median and its spread are told.

What varies on a machine varies slowly, so the rows of a table are measured in turns of some milliseconds,
several rounds of them, and a ratio is the median of the ratios of the rounds. Ratios of one run mean
something; nanoseconds are those of this machine at this moment.
"""

from __future__ import annotations

import gc
import statistics
import time
import timeit
from collections.abc import Callable
from typing import Any, NamedTuple

#: seconds that a sample takes at least, so that the clock doesn't count
LONG_ENOUGH = 100e-6
#: from here on each call is a sample of its own
SLOW_ENOUGH = 10e-6

#: gives samples, collected for about so many seconds, but at least one
Take = Callable[[float], list[float]]


class Pace(NamedTuple):
    """How much is measured.

    :ivar rounds: how often the rows take turns.
    :ivar turn: seconds of a row's turn.
    :ivar most: the largest number of anything: keys, names, writes.
    """

    rounds: int = 9
    turn: float = 0.03
    most: int = 1_000_000

    def of(self, number: int) -> int:
        """That number of something, or what this pace allows."""
        return min(number, self.most)


SMOKE = Pace(1, 0.0, 20)


class Bar(NamedTuple):
    """What must be reached.

    :ivar limit: at most so much, or at least.
    :ivar of: times the figure of that row; an absolute figure if there is none.
    """

    limit: float
    of: str | None = None
    at_least: bool = False


class Row(NamedTuple):
    """What is measured: a name, and what takes samples of it, or why there are none."""

    name: str
    take: Take | str
    bar: Bar | None = None


class Figure(NamedTuple):
    """What is told of a row; each number is missing where there are no samples."""

    name: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    p99: float | None = None
    ratio: float | None = None
    bar: Bar | None = None
    reached: bool | None = None
    note: str = ""


class Table(NamedTuple):
    """Figures that were measured together.

    :ivar unit: ``s``, ``MiB`` or ``/s``.
    :ivar base: the row that ratios are to.
    """

    title: str
    unit: str
    base: str | None
    figures: list[Figure]


def statement(code: str, over: list[Any] | None = None, **names: Any) -> Take:
    """Takes the seconds of one statement, inline, the cost of the loop taken off.

    :param over: what ``k`` goes through in the statement, one after the other.
    :param names: what the statement uses, as local variables.
    """
    given = {f"_{name}": value for name, value in names.items()} | {"_over": over}
    setup = "; ".join([f"{name} = _{name}" for name in names] + ["over = _over"])
    before, each_takes = ("for k in over: ", len(over)) if over else ("", 1)
    timer = timeit.Timer(before + code, setup, globals=given)
    empty = timeit.Timer(before + "pass", setup, globals=given)
    batch = 0

    def take(seconds: float) -> list[float]:
        nonlocal batch
        batch = batch or fitting_batch(timer)
        loop = statistics.median(empty.timeit(batch) for _ in range(5))
        deadline = time.perf_counter() + seconds
        samples = []
        while not samples or time.perf_counter() < deadline:
            samples.append((timer.timeit(batch) - loop) / batch / each_takes)
        return samples

    return take


def fitting_batch(timer: timeit.Timer) -> int:
    """How many runs of a statement make a sample: one, if it is slow."""
    if min(timer.timeit(1) for _ in range(3)) > SLOW_ENOUGH:
        return 1
    batch = 1
    while timer.timeit(batch) < LONG_ENOUGH:
        batch *= 2
    return batch


def each(call: Callable[[], Any], before: Callable[[], Any] | None = None) -> Take:
    """Takes the seconds of each call; what runs before it is not counted."""

    def take(seconds: float) -> list[float]:
        deadline = time.perf_counter() + seconds
        samples: list[float] = []
        gc.disable()
        try:
            while not samples or time.perf_counter() < deadline:
                if before is not None:
                    before()
                begin = time.perf_counter()
                call()
                samples.append(time.perf_counter() - begin)
        finally:
            gc.enable()
        return samples

    return take


def measure(
    pace: Pace, title: str, rows: list[Row], base: str | None = None, unit: str = "s", fails: bool = True
) -> Table:
    """Let the rows take turns.

    :param base: the row that ratios are to.
    :param fails: whether an error of a row is raised; else it is what is told of the row.
    """
    rounds: dict[str, list[list[float]]] = {row.name: [] for row in rows}
    notes = {row.name: row.take for row in rows if isinstance(row.take, str)}
    for _ in range(pace.rounds):
        for row in rows:
            if callable(row.take) and row.name not in notes:
                try:
                    rounds[row.name].append(row.take(pace.turn))
                except Exception as error:
                    if fails:
                        raise
                    notes[row.name] = f"{type(error).__name__}: {error}"
    figures = [_figure(row, rounds, base, notes.get(row.name, "")) for row in rows]
    return Table(title, unit, base, figures)


def _figure(row: Row, rounds: dict[str, list[list[float]]], base: str | None, note: str) -> Figure:
    samples = sorted(sample for samples in rounds[row.name] for sample in samples)
    if note or not samples:
        return Figure(row.name, note=note)
    return Figure(
        row.name,
        statistics.median(samples),
        samples[len(samples) // 4],
        samples[len(samples) * 3 // 4],
        samples[len(samples) * 99 // 100] if len(samples) >= 100 else None,
        _ratio(rounds, row.name, base),
        row.bar,
        row.bar and _is_reached(row, row.bar, rounds, statistics.median(samples)),
    )


def _ratio(rounds: dict[str, list[list[float]]], name: str, base: str | None) -> float | None:
    pairs = zip(rounds[name], rounds[base], strict=False) if base is not None else ()
    ratios = [statistics.median(own) / (statistics.median(other) or 1e-12) for own, other in pairs]
    return statistics.median(ratios) if ratios else None


def _is_reached(row: Row, bar: Bar, rounds: dict[str, list[list[float]]], median: float) -> bool | None:
    found = median if bar.of is None else _ratio(rounds, row.name, bar.of)
    if found is None:
        return None
    return found >= bar.limit if bar.at_least else found <= bar.limit
