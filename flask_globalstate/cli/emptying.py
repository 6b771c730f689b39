"""`clear` and `reset`: commits like any other, which the workers see in their next request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..proxies.base import Proxy
from .names import printable
from .target import Target, with_target


@click.command()
@click.argument("name")
@click.confirmation_option(prompt="What it holds will be lost, for every worker. Go on?")
@with_target
def clear(target: Target, name: str) -> None:
    """Empty the global NAME, for every worker; its `initial` doesn't come back."""
    store = target.binding.store
    is_known = target.state is not None and name in target.state._names
    if not is_known and name not in store.names():
        raise _no_such_name(name)
    target.binding.any_replica(name).clear()
    click.echo(f"{printable(name)} is empty.")


@click.command()
@click.argument("name")
@click.confirmation_option(prompt="What it holds will be lost, for every worker. Go on?")
@with_target
def reset(target: Target, name: str) -> None:
    """Put the global NAME back to its `initial`, for every worker.

    Only the application knows that: flask --app MODULE globalstate reset NAME.
    """
    state = target.state
    if state is None:
        raise click.UsageError(
            "only the application knows the initial of a global, so leave --path and --url away: "
            f"flask --app MODULE globalstate reset {printable(name)}"
        )
    store = target.binding.store
    made = state._names.get(name)
    if made is None:
        raise _not_registered(name) if name in store.names() else _no_such_name(name)
    first = made.proxy._first_content(made.initial)
    replace = state.transactional(_replace) if store.conditional else _replace
    replace(made.proxy, {} if first is None else first())
    click.echo(f"{printable(name)} is {'empty: it has no initial' if first is None else 'as at first'}.")


def _replace(proxy: Proxy, items: Mapping[Any, Any]) -> None:
    """Let a global hold these items and no others; one commit, if it is run in a transaction."""
    with proxy._gate:
        here = proxy._here()
        here.clear()
        if items:
            here.assign(items)


def _no_such_name(name: str) -> click.ClickException:
    return click.ClickException(
        f"the store holds no global {printable(name)}; the verb names lists those that it holds"
    )


def _not_registered(name: str) -> click.ClickException:
    return click.ClickException(
        f"the store holds {printable(name)}, but the application has no such global, and so no initial for "
        f"it. Let the application import the module that says state.dict({name!r}, initial=...), or use clear"
    )
