"""The group of verbs. It imports click and nothing else, for every application imports it with its state."""

from __future__ import annotations

import io
import sys

import click

from ..errors import GlobalStateError
from ..stores import load

#: the verbs in the order of the help; each is imported when it is asked for
VERBS = {
    "status": "flask_globalstate.cli.server:status",
    "stop": "flask_globalstate.cli.server:stop",
    "names": "flask_globalstate.cli.names:names",
    "clear": "flask_globalstate.cli.emptying:clear",
    "reset": "flask_globalstate.cli.emptying:reset",
    "scan": "flask_globalstate.cli.scan:scan",
}


class Verbs(click.Group):
    """The verbs, loaded one by one; an error of this package is one line on stderr and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        path = VERBS.get(cmd_name)
        command: click.Command | None = None if path is None else load(path)
        return command

    def invoke(self, ctx: click.Context) -> object:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal that has no letter for a name is no reason to fail.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except GlobalStateError as error:
            raise click.ClickException(str(error)) from error


main = Verbs(
    "globalstate",
    help="Look at the shared globals, empty them, look after their server, and find what must be shared.",
    short_help="Look at shared globals, and look after their store.",
)
