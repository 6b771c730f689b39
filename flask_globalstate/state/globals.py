"""The kinds of shared globals that a state gives: one method a kind."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from ..proxies.collection import SharedList, SharedSet
from ..proxies.counter import SharedCounter
from ..proxies.mapping import SharedDict
from ..proxies.value import SharedValue
from ..replicas.modes import Mode, find_mode
from .names import Names
from .passing import pass_by_name

K = TypeVar("K")
V = TypeVar("V")

for _kind in (SharedCounter, SharedDict, SharedList, SharedSet, SharedValue):
    pass_by_name(_kind)


class Globals:
    """Gives shared globals by their names; the part of a `State` whose types tell what is inside."""

    _names: Names

    @overload
    def dict(
        self,
        name: str,
        initial: Mapping[K, V] | Callable[[], Mapping[K, V]],
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedDict[K, V]: ...
    @overload
    def dict(
        self, name: str, initial: None = None, *, sync: Mode | None = None, autosync: bool | None = None
    ) -> SharedDict[Any, Any]: ...
    def dict(
        self,
        name: str,
        initial: Mapping[Any, Any] | Callable[[], Mapping[Any, Any]] | None = None,
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedDict[Any, Any]:
        """The shared dict of a name; the same object at each call, in whatever thread.

        It may be made before the state has a store; using it needs one. Nothing is read or written here:
        ``initial`` is committed at the first use, by one worker only, however many begin at once.

        :param name: what it is called in the store, a str; all workers that say the same name share it.
        :param initial: the first content: a mapping, or a callable without parameters that gives one. It
            is committed only if the name has never existed, also if the dict is empty by now.
        :param sync: when reads see what other workers have written, instead of STORE_SYNC: ``request``,
            as of the request's start; ``read``, at each read; ``manual``, at each ``sync()``.
        :param autosync: the word of durabledict for it: True is ``read``, False is ``manual``.
        :returns: a `SharedDict`, typed as ``initial`` is.
        :raises ConfigurationError: if the name was asked for as another kind or with other options, or
            an option is bad.
        :raises TypeError: if ``name`` is not a str or ``initial`` not a mapping.
        """
        return self._names.proxy(SharedDict, name, initial, find_mode(name, sync, autosync))

    def counter(
        self,
        name: str,
        initial: float | Callable[[], float] | None = None,
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedCounter:
        """The shared counter of a name; the same object at each call.

        :param name: as of `dict`.
        :param initial: the first number, or a callable that gives one; 0 if nothing is said. A float, such as
            0.0, makes a counter of floats.
        :param sync: as of `dict`.
        :param autosync: as of `dict`.
        :returns: a `SharedCounter`.
        :raises ConfigurationError: as of `dict`.
        :raises TypeError: if ``name`` is not a str or ``initial`` no int or float; a bool is none.
        """
        return self._names.proxy(SharedCounter, name, initial, find_mode(name, sync, autosync))

    @overload
    def value(
        self, name: str, initial: None = None, *, sync: Mode | None = None, autosync: bool | None = None
    ) -> SharedValue[Any]: ...
    @overload
    def value(
        self,
        name: str,
        initial: Callable[[], V],
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedValue[V]: ...
    @overload
    def value(
        self, name: str, initial: V, *, sync: Mode | None = None, autosync: bool | None = None
    ) -> SharedValue[V]: ...
    def value(
        self, name: str, initial: Any = None, *, sync: Mode | None = None, autosync: bool | None = None
    ) -> SharedValue[Any]:
        """The shared value of a name; the same object at each call.

        :param name: as of `dict`.
        :param initial: the first value, of any type that the encoding takes, or a callable that gives
            it; None if nothing is said.
        :param sync: as of `dict`.
        :param autosync: as of `dict`.
        :returns: a `SharedValue`, typed as ``initial`` is.
        :raises ConfigurationError: as of `dict`.
        :raises TypeError: if ``name`` is not a str.
        """
        return self._names.proxy(SharedValue, name, initial, find_mode(name, sync, autosync))

    @overload
    def list(
        self,
        name: str,
        initial: builtins.list[V] | Callable[[], Iterable[V]],
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedList[V]: ...
    @overload
    def list(
        self, name: str, initial: None = None, *, sync: Mode | None = None, autosync: bool | None = None
    ) -> SharedList[Any]: ...
    def list(
        self,
        name: str,
        initial: builtins.list[Any] | Callable[[], Iterable[Any]] | None = None,
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedList[Any]:
        """The shared list of a name; the same object at each call.

        :param name: as of `dict`.
        :param initial: the first content: a list, or a callable that gives an iterable; empty if nothing
            is said.
        :param sync: as of `dict`.
        :param autosync: as of `dict`.
        :returns: a `SharedList`, typed as ``initial`` is.
        :raises ConfigurationError: as of `dict`.
        :raises TypeError: if ``name`` is not a str or ``initial`` not a list.
        """
        return self._names.proxy(SharedList, name, initial, find_mode(name, sync, autosync))

    @overload
    def set(
        self,
        name: str,
        initial: builtins.set[V] | Callable[[], Iterable[V]],
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedSet[V]: ...
    @overload
    def set(
        self, name: str, initial: None = None, *, sync: Mode | None = None, autosync: bool | None = None
    ) -> SharedSet[Any]: ...
    def set(
        self,
        name: str,
        initial: builtins.set[Any] | Callable[[], Iterable[Any]] | None = None,
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
    ) -> SharedSet[Any]:
        """The shared set of a name; the same object at each call.

        :param name: as of `dict`.
        :param initial: the first content: a set, or a callable that gives an iterable; empty if nothing
            is said.
        :param sync: as of `dict`.
        :param autosync: as of `dict`.
        :returns: a `SharedSet`, typed as ``initial`` is.
        :raises ConfigurationError: as of `dict`.
        :raises TypeError: if ``name`` is not a str or ``initial`` not a set.
        """
        return self._names.proxy(SharedSet, name, initial, find_mode(name, sync, autosync))
