"""`names`: which globals a store holds."""

from __future__ import annotations

import click

from .target import Target, with_target


@click.command()
@with_target
def names(target: Target) -> None:
    """List the globals that the store holds, one a line."""
    found = sorted(target.spectator.names())
    for name in found:
        click.echo(printable(name))
    if not found:
        click.echo("No global was written yet.", err=True)


def printable(name: str) -> str:
    """A name as one line: as it is, or quoted if it holds what a terminal would obey."""
    return name if name.isprintable() and name else ascii(name)
