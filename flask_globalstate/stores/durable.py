"""Stores in the manner of durabledict: an object for each name, which writes through and can be reloaded."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigurationError
from ..values import keys
from .custom import AdaptedStore


class DurableStore(ABC):
    """The base of a class of your own with durabledict's contract: four methods on one name.

    ::

        class FileStore(DurableStore):
            def __init__(self, name, *, folder):
                super().__init__(name)
                ...

            def persist(self, key, value): ...
            def depersist(self, key): ...
            def durables(self): ...
            def last_updated(self): ...

        app.config["STORE_BACKEND"] = FileStore        # or "package.module:FileStore"
        app.config["STORE_OPTIONS"] = {"folder": "/var/lib/app"}

    There is one object for each name in each process; a forked child makes its own. Its methods are
    called by one thread at a time, and what they raise reaches the caller as it is.

    A key is a str: a key of another type is given as `flask_globalstate.values.keys.to_string` makes it.
    **A value is bytes**: encoded as STORE_ENCODING says, and signed. In durabledict each class encodes by
    itself; here that is done outside of it, so that no class can forget the signature, and one entry that
    can't be decoded raises when it is read and not when all are loaded. A class that encodes by itself
    says ``holds_objects = True``, and is given the values as they are.

    Two methods are optional. With them ``setdefault``, ``pop`` and ``initial`` are as atomic among
    processes as they are; without, they are a read and then a write:

    - ``_setdefault(key, value)`` stores ``value`` if the key is absent, and gives what is there then.
    - ``_pop(key, default)`` removes the key and gives what was there, or ``default``.

    :param name: the global that this object holds.
    :param cache: an object with ``add``, ``incr`` and ``get``, as a memcache client has: `last_updated` is
        then kept in it, and the class needs none of its own.
    """

    #: visible to other processes; what is private counts as ``memory`` does, and can count
    shared: bool = True
    #: data outlives the process
    durable: bool = True
    #: `persist` is given the values themselves
    holds_objects: bool = False
    cache: Any = None

    def __init__(self, name: str, *, cache: Any = None) -> None:
        self.name = name
        self.cache = cache
        if cache is not None:
            self._restart()

    @abstractmethod
    def persist(self, key: str, value: Any) -> None:
        """Store a value; from then on `durables` gives it, and `last_updated` something else.

        :param key: a str, see above.
        :param value: bytes; the value itself if ``holds_objects`` is True.
        """

    @abstractmethod
    def depersist(self, key: str) -> None:
        """Remove a key; from then on `durables` doesn't give it, and `last_updated` gives something else.

        :param key: a str that is there, as far as this process knows.
        """

    @abstractmethod
    def durables(self) -> Mapping[str, Any]:
        """All that is stored under the name.

        :returns: a mapping of every key to its value, in the order of creation.
        """

    def last_updated(self) -> Any:
        """A token of the present content; before each request it is compared with the last one.

        :returns: an object that is equal to an earlier one only if nothing has changed in between, such
            as a counter or a time in nanoseconds; None if that isn't known, so that all is loaded again.
        """
        return self.cache.get(self.cache_key)

    def touch_last_updated(self) -> None:
        """Make every worker load again; called after each write if there is a ``cache``."""
        try:
            if self.cache.incr(self.cache_key) is not None:
                return
        except (ValueError, LookupError):
            pass  # It was evicted. Some clients raise then, others give None.
        if not self._restart():
            self.cache.incr(self.cache_key)  # Another worker came first.

    @property
    def cache_key(self) -> str:
        """The key in the ``cache``: short and plain, whatever the name is."""
        return "flask_globalstate.last_updated." + hashlib.sha256(keys.to_bytes(self.name)).hexdigest()[:32]

    def _restart(self) -> Any:
        # A number that no worker has seen before, or one might not notice that something has changed.
        return self.cache.add(self.cache_key, time.time_ns())


class ReloadedStore(AdaptedStore):
    """Objects of a `DurableStore` class, which hold a name each; loaded again when they have changed.

    What its objects can't promise it refuses: on a shared one ``increment`` and ``compare_and_set`` raise
    `UnsupportedOperationError`. ``update``, ``clear`` and ``initial`` are a write for each key; ``initial``
    is put in if there is nothing when this process first uses the name.

    Parameters as of `AdaptedStore`.
    """

    contract = ("persist", "depersist", "durables", "last_updated")
    replica_kind = "reloaded"

    def __init__(self, kind: type[Any], factory: Callable[..., Any] | None = None, /, **options: Any) -> None:
        super().__init__(kind, factory, **options)
        self.holds_objects = kind.holds_objects

    def is_empty(self, held: Any) -> bool:
        return not held.durables()

    def ping(self) -> None:
        """Ask each object that was made for its last update."""
        with self.lock():
            for held in list(self._objects.values()):
                held.last_updated()

    def _made(self, name: str) -> Any:
        made = super()._made(name)
        if made.cache is None and type(made).last_updated is DurableStore.last_updated:
            raise ConfigurationError(
                f"STORE_BACKEND is {self.label}, which has no last_updated() of its own; give it one, or a "
                'cache to keep it in: STORE_OPTIONS = {"cache": ...}'
            )
        return made
