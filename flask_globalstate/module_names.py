"""Names of modules that stand for shared globals: what a request brings into them, and what it takes out.

A container is replaced by its proxy once. A scalar stays a plain object, since the code rebinds it: it is
refreshed from the store before a request, and published after it.

The code may rebind a name at any moment in any thread. Nothing that it binds is overwritten before it is
published: the namespace of a module is changed only by steps between which no other thread can come. With
the GIL of Python 3.10 to 3.13 threads are switched at calls and at jumps back; looking a str up in a dict,
comparing by ``is``, adding two ints and storing into a dict are none of these. The free-threaded build
promises nothing of that kind, neither to this module nor to the code that it serves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any

from . import forks
from .access import same
from .counter import SharedCounter
from .encodings import PickleEncoding
from .errors import StoreUnavailableError
from .holders import Place
from .locks import ThreadLock
from .mapping import SharedDict
from .proxy import KEY, Proxy, Unbound
from .stores.base import DELETE
from .tracked import FROZEN, Tracked, plain, settle
from .value import SharedValue

_MISSING: Any = object()


class ModuleName(ABC):
    """One name of a module that stands for a shared global.

    :param module: the module.
    :param name: the name in it.
    :param proxy: the shared global.
    :param first: gives the content that the name had, anew at each call.
    """

    def __init__(self, module: ModuleType, name: str, proxy: Any, first: Callable[[], Any]) -> None:
        self.namespace = vars(module)
        self.name = name
        self.place = f"{module.__name__}.{name}"
        self.proxy = proxy
        self._first = first
        # Held from comparing to writing, so that no two threads publish the same change.
        self._lock = ThreadLock()

    @abstractmethod
    def refresh(self) -> None:
        """Let the module see what other workers have published."""

    @abstractmethod
    def publish(self) -> None:
        """Let other workers see what the code has bound to the name."""

    @abstractmethod
    def restore(self) -> None:
        """Put a plain object with the present content back."""

    @property
    def is_bound(self) -> bool:
        """Whether the state has a store, so that there is a present content."""
        return not isinstance(self.proxy._replica, Unbound)

    def _refuse(self, found: Any) -> TypeError:
        kind = type(self.proxy).__name__
        return TypeError(
            f"{self.place} is shared as a {kind}, and the code has bound it to a {type(found).__qualname__}; "
            "that was not published. Share a name that is bound to objects of several types as a SharedValue"
        )


class ContainerName(ModuleName):
    """A dict, list or set: the name is bound to the proxy, here and wherever else it was found.

    :param kind: the plain type.
    :param places: every module and name in it that held the object.
    """

    def __init__(self, *arguments: Any, kind: type[Any], places: list[Place]) -> None:
        super().__init__(*arguments)
        self._kind = kind
        self._places = places
        for place in places:
            place.namespace[place.name] = self.proxy

    def refresh(self) -> None:
        """The proxy sees it."""

    def publish(self) -> None:
        while self.namespace.get(self.name, _MISSING) is not self.proxy:
            with self._lock():
                self._replace(self.namespace.get(self.name, _MISSING))

    def _replace(self, found: Any) -> None:
        """Let what the code has bound to the name be the shared content, and bind the proxy again."""
        content = found._plain() if isinstance(found, Proxy) else found
        if found is _MISSING or not isinstance(content, self._kind):
            self.namespace[self.name] = self.proxy
            if found is not _MISSING:
                raise self._refuse(found)
            return
        before = _encoded(content)
        try:
            self._assign(content)
        except StoreUnavailableError:
            raise
        except Exception:
            # What others have written stands, or it can never be written.
            self.namespace[self.name] = self.proxy
            raise
        # If another thread has changed or rebound it meanwhile, that is to be published too.
        if _encoded(content) == before and self.namespace[self.name] is found:
            self.namespace[self.name] = self.proxy

    def _assign(self, content: Any) -> None:
        proxy = self.proxy
        with proxy._gate:
            here = proxy._here()
            if isinstance(proxy, SharedDict):
                items = {key: plain(value) for key, value in content.items()}
                items = {**dict.fromkeys(here.order(), DELETE), **items}
            else:
                items = {KEY: plain(content)}
            if items:
                here.assign(items)

    def restore(self) -> None:
        content = settle(self.proxy._plain()) if self.is_bound else self._first()
        for place in self._places:
            if place.namespace.get(place.name) is self.proxy:
                place.namespace[place.name] = content


class CounterName(ModuleName):
    """An int that is counted up or down: what was added here is added to the shared number."""

    proxy: SharedCounter

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: the shared number that the number of the module includes; what is more was added here
        self._seen: int = self.namespace[self.name]
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Leave to the parent what it has not published."""
        self.namespace[self.name] = self._seen

    def refresh(self) -> None:
        with self._lock():
            self._added_here()
            self._take(self.proxy.value)

    def publish(self) -> None:
        with self._lock():
            added = self._added_here()
            if added:
                try:
                    number = self.proxy.increment(added)
                except BaseException as error:
                    if _may_be_written(error):
                        self._seen += added  # It must not be added twice.
                    raise
                self._seen += added
                self._take(number)

    def restore(self) -> None:
        if self.is_bound:
            self.refresh()

    def _added_here(self) -> int:
        number = self.namespace.setdefault(self.name, self._seen)
        if type(number) is not int:
            self.namespace[self.name] = self._seen
            raise self._refuse(number)
        return number - self._seen

    def _take(self, number: int) -> None:
        """Add what others have added; what was added here meanwhile stays."""
        others = number - self._seen
        if others:
            namespace, name = self.namespace, self.name
            # No thread is switched in this line, see above; not even ``HITS += 1`` is lost.
            namespace[name] = namespace[name] + others
            self._seen = number


class ValueName(ModuleName):
    """An object that the code replaces: the last one that was bound in any worker counts."""

    proxy: SharedValue[Any]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._remember(self.namespace[self.name])
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Leave to the parent what it has not published."""
        self._remember(self.namespace.get(self.name, self._put))

    def _remember(self, value: Any, encoded: bytes | None = None) -> None:
        """Take this object for the one that is published."""
        self._encoded = (encoded or _encoded(value)) if _can_change_unseen(value) else None
        self._put = value

    def refresh(self) -> None:
        with self._lock():
            value = self.proxy.value
            namespace, name = self.namespace, self.name
            found = namespace.get(name, _MISSING)
            if found is value or self._is_rebound(found):
                return
            # No thread is switched between these two, see above.
            if found is _MISSING or namespace[name] is found:
                namespace[name] = value
                self._remember(value)

    def publish(self) -> None:
        with self._lock():
            found = self.namespace.get(self.name, _MISSING)
            if not self._is_rebound(found):
                return
            # Before it is written: what another thread changes in it afterwards is to be published too.
            encoded = _encoded(found)
            try:
                self.proxy.value = plain(found)
            except StoreUnavailableError:
                raise
            except Exception:
                # What another worker has bound stands, or this can never be written; the next request
                # brings here what is shared.
                self._remember(found, encoded)
                raise
            self._remember(found, encoded)

    def restore(self) -> None:
        if self.is_bound:
            self.refresh()
        self.namespace[self.name] = settle(self.namespace[self.name])

    def _is_rebound(self, found: Any) -> bool:
        """Whether the code has bound another object to the name, or changed the one that is there."""
        if found is _MISSING:
            return False
        if self._encoded is not None:
            return _encoded(found) != self._encoded
        if found is self._put:
            return False
        # An int is not the float, and True is not the 1, that it is equal to.
        return type(plain(found)) is not type(plain(self._put)) or not same(found, self._put)


def _may_be_written(error: BaseException) -> bool:
    """Whether a write that has ended so may have been made: its answer was lost, or not waited for."""
    if isinstance(error, StoreUnavailableError):
        return error.may_be_written
    return not isinstance(error, Exception)


def _can_change_unseen(value: Any) -> bool:
    """Whether an object may be changed without a commit and without being bound again."""
    if type(value) in FROZEN:
        return False
    if isinstance(value, Tracked):
        return bool(value._root.is_changeable)
    return any(map(_can_change_unseen, value)) if type(value) is tuple else True


def _encoded(value: Any) -> bytes:
    """What is compared to find a change; one that can't be encoded is never found."""
    try:
        return PickleEncoding().encode(value)
    except Exception:
        return b""
