"""Stores made from a class that knows neither commits nor revisions: one object of it for each name."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from typing import Any, ClassVar, NoReturn

from ..errors import ConfigurationError, GlobalStateError
from ..system import forks
from ..system.locks import ThreadLock
from ..values.wording import article, kind_of
from .base import Backend, Store

#: the name that a factory is called with at configuration time, if no global is known by then
PROBE = "globalstate"
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class AdaptedStore(Backend):
    """A backend of objects of a class that knows nothing of this package, one for each name.

    Replicas of a kind of their own (`replicas/dictlike.py`, `replicas/durable.py`) use the objects, each time
    under ``lock``: so no object need be safe for threads.

    :param kind: the class. Its attributes ``shared``, ``durable`` and ``strict`` count as a store's do.
    :param factory: called as ``factory(name, **options)``; without it ``kind`` itself is called, with the
        name if it takes one.
    :param options: for the factory or the class. ``strict`` and ``unsigned_pickles`` are the store's own,
        unless there is a parameter that is called so.
    :raises ConfigurationError: if what is called doesn't take that.
    """

    #: see `forks.Holder`
    waits = True
    #: the methods that a class must have
    contract: ClassVar[tuple[str, ...]]

    def __init__(self, kind: type[Any], factory: Callable[..., Any] | None = None, /, **options: Any) -> None:
        self._kind = kind
        self._make = kind if factory is None else factory
        self._setting = "STORE_BACKEND" if factory is None else "STORE_FACTORY"
        self.shared = getattr(kind, "shared", self.shared) is True
        self.durable = getattr(kind, "durable", self.durable) is True
        self.atomic = not self.shared
        parameters = _signature_of(self._make).parameters
        for own in ("strict", "unsigned_pickles"):
            given = options.pop(own) if own in options and own not in parameters else None
            setattr(self, own, bool(getattr(kind, own, False) if given is None else given))
        self._options = options
        self._way = self._find_way()
        self._names: dict[str, None] = {}
        self._objects: dict[str, Any] = {}
        self._inherited: list[Any] = []
        # One for all names, so that a function that changes one and reads another can't lock itself out.
        self.lock = ThreadLock(reentrant=True)
        forks.hold_while_forking(self)
        forks.renew_after_fork(self)

    @classmethod
    def lacks(cls, kind: type[Any]) -> list[str]:
        """The methods of the contract that a class lacks, or has abstract only."""
        abstract: frozenset[str] = getattr(kind, "__abstractmethods__", frozenset())
        missing = [name for name in cls.contract if not callable(getattr(kind, name, None))]
        return [*missing, *sorted(abstract - set(missing))]

    @property
    def label(self) -> str:
        return self._kind.__name__

    def hold(self) -> None:
        """Keep every thread out, so that a fork copies no object in the middle of a change."""
        if not self.shared:
            self._held = self.lock()
            self._held.acquire()

    def release(self) -> None:
        """Let them in again, in the parent and in the child."""
        if not self.shared:
            self._held.release()

    def after_fork(self) -> None:
        """In a forked child: what is shared is opened anew; what is private was copied, and goes on."""
        if self.shared:
            # Kept, since to drop them could close what the parent still uses.
            self._inherited.append(self._objects)
            self._objects = {}

    # --- the objects ----------------------------------------------------------------------------

    def announce(self, name: str) -> None:
        """Say that a name is in use."""
        self._names[name] = None

    def object_of(self, name: str) -> Any:
        """The object that holds a name, made at the first call; to be called and used under ``lock``.

        :raises ConfigurationError: if what is made is not of the class.
        """
        if name not in self._objects:
            self._objects[name] = self._made(name)
        return self._objects[name]

    @abstractmethod
    def is_empty(self, held: Any) -> bool:
        """Return whether an object holds nothing."""

    def names(self) -> list[str]:
        """The names in use in this process that hold something; others a class can't tell of."""
        with self.lock():
            return [name for name in list(self._names) if not self.is_empty(self.object_of(name))]

    def check(self) -> None:
        """Make the first object, for a name in use if there is one, and reach what it lives in.

        The object is kept for when the name is used.

        :raises ConfigurationError: if it can't be made.
        """
        with self.lock():
            try:
                self.object_of(next(iter(self._names), PROBE))
                self.ping()
            except GlobalStateError:
                raise
            except Exception as error:
                # Without its text, which may show a password; it is the cause.
                raise ConfigurationError(
                    f"{self._setting}: {_called(self._make)} makes no {self.label} that can be used "
                    f"({type(error).__name__})"
                ) from error

    def close(self) -> None:
        """Close the objects that can be closed, and make them anew at the next use; keep the others."""
        with self.lock(), ExitStack() as closing:
            for name, held in list(self._objects.items()):
                close = getattr(held, "close", None)
                if callable(close):
                    del self._objects[name]
                    closing.callback(close)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Refuse the methods of a `Store`, which such a class has no answer to."""
        if name.startswith("_") or not callable(getattr(Store, name, None)):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return lambda *arguments, **named: self.refuse(f"tell revisions, so it has no {name}()")

    def _made(self, name: str) -> Any:
        arguments, named = self._way(name)
        made = self._make(*arguments, **named, **self._options)
        if not isinstance(made, self._kind):
            raise ConfigurationError(
                f"{self._setting}: {_called(self._make)} gave {kind_of(made)} for {name!r}; "
                f"it must give {article(self.label)}"
            )
        return made

    def _find_way(self) -> Callable[[str], Arguments]:
        signature = _signature_of(self._make)
        if self._setting == "STORE_FACTORY":
            ways = [_by_position]
        else:
            ways = [_without, _by_position]
            if "name" in signature.parameters:
                ways.insert(0, _by_keyword)
        for way in ways:
            arguments, named = way("")
            try:
                signature.bind(*arguments, **named, **self._options)
            except TypeError:
                continue
            return way
        call = ", ".join(["name", *(f"{option}=..." for option in self._options)])
        # Only the names of the parameters: a default may be a password.
        takes = ", ".join(signature.parameters)
        raise ConfigurationError(
            f"{self._setting} is {_called(self._make)}({takes}); it must be one that can be called as "
            f"{_called(self._make)}({call}): with the name, and with STORE_OPTIONS as keyword arguments"
        )


class DictLikeStore(AdaptedStore):
    """Objects of a dict-like class, which hold a name each; everything passes through to them.

    The class has ``get``, ``clear``, ``__setitem__``, ``__delitem__``, ``__len__`` and ``__contains__``,
    and is a ``MutableMapping`` or has ``to_dict``. Keys and values are given to it as they are.

    - It counts as private to the process, and is warned about under several workers as ``memory`` is,
      unless the class says ``shared = True``.
    - ``update``, ``clear`` and ``initial`` are as atomic as the class makes them: other processes may see
      half of them.
    - ``increment``, ``compare_and_set``, ``pop``, ``popitem`` and ``setdefault`` are atomic for all
      threads of the process. On a shared class the first two raise `UnsupportedOperationError`; the
      others use the ``pop`` and ``setdefault`` of the class if it has them, and are as atomic as these.
    - ``initial`` is put in if the object is empty when this process first uses the name: such a class
      can't tell whether the name has existed.
    - The order of iteration is that of the class.

    Parameters as of `AdaptedStore`.
    """

    contract = ("get", "clear", "__setitem__", "__delitem__", "__len__", "__contains__")
    replica_kind = "passthrough"
    holds_objects = True

    def __init__(self, kind: type[Any], factory: Callable[..., Any] | None = None, /, **options: Any) -> None:
        super().__init__(kind, factory, **options)
        #: whether the objects are iterated, rather than asked for ``to_dict``
        self.holds_mappings = issubclass(kind, MutableMapping)

    @classmethod
    def lacks(cls, kind: type[Any]) -> list[str]:
        missing = super().lacks(kind)
        if not issubclass(kind, MutableMapping) and not callable(getattr(kind, "to_dict", None)):
            missing.append("to_dict (or MutableMapping as its base)")
        return missing

    def is_empty(self, held: Any) -> bool:
        return len(held) == 0

    def ping(self) -> None:
        """Ask each object that was made how long it is."""
        with self.lock():
            for held in list(self._objects.values()):
                len(held)


def _signature_of(make: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(make)
    except (TypeError, ValueError):
        # Written in C, and doesn't tell; it may take anything.
        return inspect.signature(lambda *arguments, **named: None)


def _called(make: Callable[..., Any]) -> str:
    """The name of a callable; not its repr, which may show what it was bound to."""
    return str(getattr(make, "__qualname__", type(make).__qualname__))


def _by_position(name: str) -> Arguments:
    return (name,), {}


def _by_keyword(name: str) -> Arguments:
    return (), {"name": name}


def _without(name: str) -> Arguments:
    return (), {}
