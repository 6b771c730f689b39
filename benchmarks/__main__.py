"""``python -m benchmarks``: every suite, or those that are named; ``smoke`` is all with tiny counts."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from . import report
from .measure import SMOKE, Pace
from .stores import folder

SUITES = ("read", "write", "sync", "propagation", "web", "memory", "peers", "web_peers")
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run what the command line asks for; 1 if a bar was not reached and that was asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", default=["all"], help=f"{', '.join(SUITES)}, smoke or all")
    parser.add_argument("--rounds", type=int, default=Pace().rounds, help="how often the rows take turns")
    parser.add_argument(
        "--results", type=Path, help=f"where the files go; {RESULTS} unless it is a smoke run"
    )
    parser.add_argument("--strict", action="store_true", help="fail if a bar is not reached")
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - {*SUITES, "smoke", "all"}
    if unknown:
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; known are {', '.join(SUITES)}, smoke, all")
    if "smoke" in arguments.suites:
        with folder() as nowhere:
            return run(SUITES, SMOKE, arguments.results or nowhere)
    suites = SUITES if "all" in arguments.suites else arguments.suites
    missed = run(suites, Pace(arguments.rounds), arguments.results or RESULTS)
    return 1 if missed and arguments.strict else 0


def run(suites: tuple[str, ...] | list[str], pace: Pace, results: Path) -> int:
    """Run suites, and tell how many bars were missed; none counts where one only sees that they run."""
    about = report.machine()
    print(f"{report.sentence(about)}\n", flush=True)
    missed = 0
    for suite in suites:
        begin = time.monotonic()
        tables = importlib.import_module(f"benchmarks.{suite}").run(pace)
        for table in tables:
            print(f"{report.as_text(table)}\n", flush=True)
        report.write(results, suite, tables, about)
        missed += sum(figure.reached is False for table in tables for figure in table.figures)
        print(f"({suite} took {time.monotonic() - begin:.0f} seconds)\n", flush=True)
    print(f"{missed} bars were not reached" if pace is not SMOKE else "every suite runs")
    return 0 if pace is SMOKE else missed


if __name__ == "__main__":
    sys.exit(main())
