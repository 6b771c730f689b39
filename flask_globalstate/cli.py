"""The command line: what an operator asks of an embedded server."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import GlobalStateError
from .stores.embedded import EmbeddedServer

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
    """Look after the embedded server of an application that uses flask_globalstate."""


@main.command()
@PATH
def status(path: Path) -> None:
    """Tell whether the server runs, since when, and for how many clients."""
    found = server_of(path).status()
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
