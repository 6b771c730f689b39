"""`status` and `stop`: whether a store can be used, and the end of an embedded server."""

from __future__ import annotations

import click

from .target import Target, with_target


@click.command()
@with_target
def status(target: Target) -> None:
    """Tell whether the store can be used.

    Of an embedded server, which isn't started for that: whether it runs, since when, and for how many
    clients. The exit code is 1 if no server runs, or if the store can't be reached.
    """
    server = target.server
    if server is not None:
        found = server.status()
        _show(found._asdict())
        if not found.running:
            raise SystemExit(1)
        return
    store = target.binding.store
    _show(
        {
            "store": store.label,
            "place": target.place or None,
            "id": store.state_id,
            "names": len(target.spectator.names()),
        }
    )


def _show(fields: dict[str, object]) -> None:
    for name, value in fields.items():
        click.echo(f"{name.replace('_', ' '):<12} {'-' if value is None else value}")


@click.command()
@click.option("--force", is_flag=True, help="End it though clients are there; they start it again.")
@with_target
def stop(target: Target, force: bool) -> None:
    """End the embedded server, with its data saved."""
    server = target.server
    if server is None:
        raise click.ClickException(f"{target.config.backend.__name__} has no server of its own to stop")
    if target.state is not None:
        target.state.store.close()  # The application may use it while it is imported: that is no client.
    ended = server.stop(force=force)
    click.echo("The server has ended." if ended else "No server was running.")
