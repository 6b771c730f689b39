"""Sharing the globals of modules that can't be edited; see `State.share_globals`."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from ..errors import ConfigurationError, EncodingError, StoreUnavailableError
from ..proxies.base import Proxy
from ..proxies.collection import COLLECTIONS
from ..proxies.counter import SharedCounter
from ..proxies.mapping import SharedDict
from ..proxies.value import SharedValue
from ..replicas.options import Conflicts
from ..replicas.requests import Request, request_here
from ..system import forks
from ..system.locks import ThreadLock
from ..values import keys
from ..values.culprits import told
from ..values.encodings import PickleEncoding
from ..values.wording import article, kind_of
from .container_name import ContainerName
from .counter_name import CounterName
from .names import Company, ModuleName
from .referrers import Place, copies_of, other_referrers, places_of
from .value_name import ValueName

logger = logging.getLogger("flask_globalstate")

#: the kind of what is exactly of a type; of everything else it is `SharedValue`
INFERRED: dict[type[Any], type[Any]] = {dict: SharedDict, **COLLECTIONS}
#: the kinds, and what the global must be for each
FITS: dict[type[Any], type[Any]] = {
    **{kind: plain for plain, kind in INFERRED.items()},
    SharedCounter: int,
    SharedValue: object,
}


class Names(Protocol):
    """What is needed here of a state's names."""

    of_modules: set[str]

    @property
    def binding(self) -> Any: ...

    def bound(self) -> Any: ...

    def __contains__(self, name: object) -> bool: ...

    def proxy(self, kind: type[Any], name: str, initial: Any, sync: str | None) -> Any: ...

    def forget(self, name: str) -> None: ...


class Wish(NamedTuple):
    """A global that somebody asks to share.

    :ivar first: returns its content, a deep copy at each call.
    """

    name: str
    kind: type[Any]
    first: Callable[[], Any]


class SharedGlobals:
    """The names of modules that stand for shared globals of one state.

    :param shared: the names of the state.
    """

    def __init__(self, shared: Names) -> None:
        self._shared = shared
        #: replaced as a whole, so that a request may walk through it at any time
        self.names: tuple[ModuleName, ...] = ()
        self._lock = ThreadLock()
        self._requests = Requests()
        #: the requests that ran at the last look
        self._long: weakref.WeakSet[Request] = weakref.WeakSet()

    def refresh(self) -> None:
        """Bring the modules up to date with what other workers have published."""
        company = self._requests.begin(request_here())
        for name in self.names:
            name.refresh(company)

    def publish(self) -> None:
        """Commit what the code has bound to the names; do nothing in a transaction.

        If one can't be published, the others are all the same, unless the store can't be reached.
        """
        binding = self._shared.binding
        if not self.names or binding is None or binding.is_in_transaction():
            return
        self._publish(self._requests.company_of(request_here()))

    @property
    def interval(self) -> float:
        """The seconds between two times that `look` is to be called where no request comes; 0 for never."""
        binding = self._shared.binding
        return 0 if binding is None or not self.names else float(binding.config.background_interval)

    def look(self) -> None:
        """Publish and refresh outside of requests, unless one has begun since the last look: it will do so.

        What is counted is not refreshed while a request runs: ``number = HITS``, and in a later line
        ``HITS = number + 1``, must not meet another number.

        :raises StoreUnavailableError: if the store can't be reached.
        """
        running = self._requests.running()
        are_young = any(request not in self._long for request in running)
        self._long = weakref.WeakSet(running)
        if are_young or not self.interval:
            return
        # A thread that has read would be a reader beside every request from then on, which slows their hits.
        reader = Request()
        reader.begin()
        try:
            self._publish(Company(None, running, False))
            company = self._requests.begin(None)
            for name in self.names:
                if not (running and isinstance(name, CounterName)):
                    name.refresh(company)
        finally:
            reader.end()

    def _publish(self, company: Company) -> None:
        failure: Exception | None = None
        for name in self.names:
            name.stop_standing_for_another()
        for name in self.names:
            try:
                name.publish(company)
            except StoreUnavailableError:
                raise
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def share(self, module: str | ModuleType, names: tuple[str, ...], kinds: Mapping[str, type[Any]]) -> None:
        """Share all of these, or none if something is wrong with one."""
        if isinstance(module, str):
            module = importlib.import_module(module)
        if not isinstance(module, ModuleType):
            raise TypeError(f"a module or the name of one is needed, not {kind_of(module)}")
        with self._lock():
            wishes = self._checked(module, names, kinds)
            made = {wish.name: self._made(module, wish) for wish in wishes}
            things = {}
            for wish in wishes:
                if wish.kind not in (SharedCounter, SharedValue):
                    things[f"{module.__name__}.{wish.name}"] = vars(module)[wish.name]
                self._shared.of_modules.add(f"{module.__name__}.{wish.name}")
                self._warn_of_copies(module, wish)
                self.names = (*self.names, _in_place(module, wish, made[wish.name], self._conflicts))
        if others := other_referrers(things):
            logger.warning(
                "what these held before they were shared is held elsewhere too, and there it goes on as it "
                "was, in this worker only: %s",
                "; ".join(others),
            )

    def unshare(self) -> None:
        """Put plain objects with the current content back everywhere."""
        with self._lock():
            names, self.names = self.names, ()
            for name in names:
                name.restore()
                self._shared.forget(name.place)
                self._shared.of_modules.discard(name.place)

    def _conflicts(self) -> Conflicts:
        return self._shared.bound().stats  # type: ignore[no-any-return]

    def _made(self, module: ModuleType, wish: Wish) -> Proxy:
        made: Proxy = self._shared.proxy(wish.kind, f"{module.__name__}.{wish.name}", wish.first, None)
        return made

    def _warn_of_copies(self, module: ModuleType, wish: Wish) -> None:
        if wish.kind not in (SharedCounter, SharedValue):
            return
        copies = copies_of(wish.name, vars(module)[wish.name], vars(module))
        if copies:
            logger.warning(
                "%s.%s is refreshed in its own module only, and seems to be imported by name in: %s",
                module.__name__,
                wish.name,
                ", ".join(copies),
            )

    # --- checks ---------------------------------------------------------------------------------

    def _checked(
        self, module: ModuleType, names: tuple[str, ...], kinds: Mapping[str, type[Any]]
    ) -> list[Wish]:
        """Check everything that is asked for.

        :raises ConfigurationError: naming all that is wrong with any of it.
        """
        problems = [f"{name!r} is named twice" for name in {*names} if [*names, *kinds].count(name) > 1]
        wishes = []
        for name in dict.fromkeys([*names, *kinds]):
            try:
                wishes.append(self._wish(module, name, kinds.get(name)))
            except (ConfigurationError, TypeError) as error:
                problems.append(str(error))
        problems += _named_twice(module, wishes)
        if problems:
            raise ConfigurationError(
                f"the globals of {module.__name__} were left as they are: " + "; ".join(problems)
            )
        return wishes

    def _wish(self, module: ModuleType, name: str, kind: type[Any] | None) -> Wish:
        value = vars(module).get(name, inspect.Parameter.empty)
        if value is inspect.Parameter.empty:
            raise ConfigurationError(f"{name!r} is not there")
        if isinstance(value, Proxy) or f"{module.__name__}.{name}" in self._shared:
            raise ConfigurationError(f"{name!r} is shared already")
        if inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value):
            raise ConfigurationError(f"{name!r} is {kind_of(value)}, and only data can be shared")
        kind = INFERRED.get(type(value), SharedValue) if kind is None else kind
        if kind not in FITS:
            raise ConfigurationError(
                f"the kind of {name!r} must be one of {', '.join(one.__name__ for one in FITS)}"
            )
        if not isinstance(value, FITS[kind]) or (kind is SharedCounter and type(value) is not int):
            raise ConfigurationError(
                f"{name!r} is {kind_of(value)}, and {article(kind.__name__)} stands for "
                f"{article(FITS[kind].__name__)}"
            )
        if kind is SharedDict:
            _check_keys(name, value)
        return Wish(name, kind, functools.partial(PickleEncoding().decode, _encoded(name, value)))


class Requests:
    """Knows the running requests that names were refreshed for, and which of them ran at the same time."""

    def __init__(self) -> None:
        self._running: set[weakref.ref[Request]] = set()
        #: those that have not run alone since the names were refreshed for them
        self._in_company: weakref.WeakSet[Request] = weakref.WeakSet()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the requests of other threads, which exist in the parent only."""
        here = request_here()
        self._running = set() if here is None else {weakref.ref(here, self._running.discard)}

    def begin(self, request: Request | None) -> Company:
        """Note that the names are about to be refreshed for a request."""
        if request is not None:
            # First, so that of two that begin together none believes to be alone.
            self._running.add(weakref.ref(request, self._running.discard))
            self._in_company.discard(request)
        others = self._others(request)
        if others and request is not None:
            self._in_company.add(request)
            for other in others:
                self._in_company.add(other)
        return Company(request, others, not others)

    def company_of(self, request: Request | None) -> Company:
        """With whom a request runs, and whether it has run alone."""
        others = self._others(request)
        return Company(request, others, not others and request not in self._in_company)

    def running(self) -> list[Request]:
        """All that run."""
        return self._others(None)

    def _others(self, request: Request | None) -> list[Request]:
        others = []
        for ref in tuple(self._running):
            other = ref()
            if other is None or other.over:
                self._running.discard(ref)
            elif other is not request:
                others.append(other)
        return others


def _in_place(module: ModuleType, wish: Wish, proxy: Proxy, conflicts: Callable[[], Conflicts]) -> ModuleName:
    """Replace a global by its proxy, or begin to refresh and publish it."""
    arguments = (module, wish.name, proxy, wish.first, conflicts)
    if wish.kind is SharedCounter:
        return CounterName(*arguments)
    if wish.kind is SharedValue:
        return ValueName(*arguments)
    # A module need not be in the table of modules.
    own = Place(module.__name__, vars(module), wish.name)
    places = [own, *places_of(vars(module)[wish.name])]
    return ContainerName(*arguments, kind=FITS[wish.kind], places=places)


def _named_twice(module: ModuleType, wishes: list[Wish]) -> list[str]:
    """Complaints about several names of one object: a container can be shared under one of them only."""
    problems: list[str] = []
    first: dict[int, str] = {}
    for wish in sorted(wishes, key=lambda wish: wish.kind not in INFERRED.values()):
        value = vars(module)[wish.name]
        other = first.get(id(value))
        if other is not None:
            problems.append(f"{wish.name!r} is the same object as {other!r}, and is shared with that")
        elif wish.kind in INFERRED.values():
            first[id(value)] = wish.name
    return problems


def _check_keys(name: str, content: dict[Any, Any]) -> None:
    for key in content:
        try:
            keys.to_string(key)
        except TypeError as error:
            raise ConfigurationError(f"{name!r} has a key that can't be stored: {error}") from error


def _encoded(name: str, value: Any) -> bytes:
    try:
        return PickleEncoding().encode(value)
    except EncodingError as error:
        raise ConfigurationError(f"{name!r} can't be stored: {error}") from error
    except Exception as error:
        # Without its text, which may show a value; it is the cause.
        part = told(name, PickleEncoding(), value, shows_keys=False) or f"it is {kind_of(value)}"
        raise ConfigurationError(
            f"{name!r} can't be stored: {part}, which can't be pickled ({type(error).__name__})"
        ) from error
