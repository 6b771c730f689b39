"""`scan`: which globals the workers must share."""

from __future__ import annotations

from pathlib import Path

import click

from ..scan import scan as scan_sources


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)
)
def scan(paths: tuple[Path, ...]) -> None:
    """List the module-level globals that functions change, and what to write for each.

    Reads the files and folders of source that are named, and runs nothing of them. The exit status is 1
    if functions change any global; what may be changed, or has no replacement, leaves it 0.
    """
    report = scan_sources(paths)
    for path, reason in report.unreadable:
        click.echo(f"{click.format_filename(path)}: can't be read: {reason}", err=True)
    click.echo(report.text())
    if report.sure:
        raise SystemExit(1)
