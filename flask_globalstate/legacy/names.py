"""Names of modules that stand for shared globals: what a request brings into them, and what it takes out.

A container is replaced by its proxy once. A scalar stays a plain object, since the code rebinds it: it is
refreshed from the store before a request, and published after it.

The code may rebind a name at any moment in any thread. Nothing that it binds is overwritten before it is
published: the namespace of a module is changed only by steps between which no other thread can come. With
the GIL of Python 3.10 to 3.13 threads are switched at calls and at jumps back; looking a str up in a dict,
comparing by ``is``, adding two ints and storing into a dict are none of these. The free-threaded build
promises nothing of that kind, neither to this module nor to the code that it serves.

Which thread has bound a name can't be known, and so a request publishes what another has bound. What can't
be published fails a request only if it has run alone since the name was refreshed for it. Else no request
is to blame: a conflict is as under ``warn``, logged and counted, and what was bound is written, since the
request that has bound it may have been answered; what can never be written is logged and put back.
"""

from __future__ import annotations

import io
import logging
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakSet

from ..errors import ConflictError, StoreUnavailableError
from ..proxies.base import KEY, Proxy, Unbound
from ..proxies.counter import SharedCounter
from ..proxies.mapping import SharedDict
from ..proxies.value import SharedValue
from ..replicas.base import Access, same
from ..replicas.noting import Conflicts, Noting
from ..replicas.requests import Request
from ..stores.base import ABSENT, DELETE, Mark
from ..system import forks
from ..system.locks import ThreadLock
from ..tracking.types import FROZEN, Tracked, is_in_place, plain, settle
from ..values.revision import Revision
from .referrers import Place

logger = logging.getLogger("flask_globalstate")

_MISSING: Any = object()


class Company(NamedTuple):
    """Who may have bound a name, besides whoever refreshes or publishes it.

    :ivar request: the request in which that is done, or None outside of requests.
    :ivar others: the requests that run beside it.
    :ivar was_alone: whether none has run beside it since the names were refreshed for it.
    """

    request: Request | None
    others: Sequence[Request]
    was_alone: bool

    @property
    def requests(self) -> Sequence[Request]:
        """All that run."""
        return self.others if self.request is None else [self.request, *self.others]


class ModuleName(ABC):
    """One name of a module that stands for a shared global.

    :param module: the module.
    :param name: the name in it.
    :param proxy: the shared global.
    :param first: gives the content that the name had, anew at each call.
    :param conflicts: gives what to do about lost updates.
    """

    def __init__(
        self,
        module: ModuleType,
        name: str,
        proxy: Any,
        first: Callable[[], Any],
        conflicts: Callable[[], Conflicts],
    ) -> None:
        self.namespace = vars(module)
        self.name = name
        self.place = f"{module.__name__}.{name}"
        self.proxy = proxy
        self._first = first
        self._conflicts = conflicts
        #: what was bound before a request began, and could not be published or was not yet
        self._left_over: Any = _MISSING
        # Held from comparing to writing, so that no two threads publish the same change.
        self._lock = ThreadLock()

    @abstractmethod
    def refresh(self, company: Company) -> None:
        """Let the module see what other workers have published."""

    def publish(self, company: Company) -> None:
        """Let other workers see what the code has bound to the name.

        :raises Exception: if that can't be, and whoever publishes it has bound it, as far as can be told.
        """
        found = self.namespace.get(self.name, _MISSING)
        is_own = company.was_alone and found is not self._left_over
        try:
            self._publish(company, is_own)
        except StoreUnavailableError:
            self._left_over = found
            raise
        except Exception as error:
            if is_own:
                raise
            logger.warning(
                "what was bound to %s can't be published, and is dropped: %s. No request was failed for it, "
                "since several ran at the same time, and it can't be told which one has bound it",
                self.place,
                error,
            )
        self._left_over = _MISSING

    def stop_standing_for_another(self) -> None:
        """Bind the content of another shared global, if the code has bound that one to this name.

        To be done before any is published: ``A, B = B, A`` is to publish what both hold now.
        """
        found = self.namespace.get(self.name, _MISSING)
        if isinstance(found, Proxy) and found is not self.proxy:
            content = settle(found._plain())
            if self.namespace.get(self.name) is found:
                self.namespace[self.name] = content

    @abstractmethod
    def _publish(self, company: Company, is_own: bool) -> None:
        """Publish it.

        :param is_own: whether a conflict is to be raised.
        """

    @abstractmethod
    def restore(self) -> None:
        """Put a plain object with the present content back."""

    @property
    def is_bound(self) -> bool:
        """Whether the state has a store, so that there is a present content."""
        return not isinstance(self.proxy._replica, Unbound)

    def _commit(
        self,
        here: Access,
        items: dict[Any, Any],
        expected: dict[Any, Revision | Mark],
        is_own: bool,
    ) -> Revision:
        """Write items; of a conflict let it be known, and write them all the same.

        :raises ConflictError: if conflicts are to raise, and this one is of whoever publishes.
        """
        while True:
            try:
                return here.commit(items, expected)
            except ConflictError as error:
                self._met(error, is_own)
                expected = {key: at for key, at in expected.items() if key != error.key}

    def _met(self, error: ConflictError, is_own: bool) -> None:
        try:
            self._conflicts().met(error)
        except ConflictError:
            if is_own:
                raise
            logger.warning(
                "%s (key %r) was bound while several requests ran, and changed by another worker since one "
                "of them has seen it: that change is now overwritten. No request was failed for it, since it "
                "can't be told which one has bound it; share what is counted as a SharedCounter",
                self.place,
                error.key,
            )

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

    def refresh(self, company: Company) -> None:
        """The proxy sees it."""
        found = self.namespace.get(self.name, _MISSING)
        if found is not self.proxy:
            self._left_over = found

    def _publish(self, company: Company, is_own: bool) -> None:
        while self.namespace.get(self.name, _MISSING) is not self.proxy:
            with self._lock():
                self._replace(self.namespace.get(self.name, _MISSING), company, is_own)

    def _replace(self, found: Any, company: Company, is_own: bool) -> None:
        """Let what the code has bound to the name be the shared content, and bind the proxy again."""
        content = plain(found) if isinstance(found, Proxy) else found
        if found is _MISSING or not isinstance(content, self._kind):
            self.namespace[self.name] = self.proxy
            if found is not _MISSING:
                raise self._refuse(found)
            return
        before = _encoded(content)
        try:
            self._assign(content, company, is_own)
        except StoreUnavailableError:
            raise
        except Exception:
            # What others have written stands, or it can never be written.
            self.namespace[self.name] = self.proxy
            raise
        # If another thread has changed or rebound it meanwhile, that is to be published too.
        if _encoded(content) == before and self.namespace[self.name] is found:
            self.namespace[self.name] = self.proxy

    def _assign(self, content: Any, company: Company, is_own: bool) -> None:
        proxy = self.proxy
        with proxy._gate:
            here = proxy._here()
            if isinstance(proxy, SharedDict):
                items = {key: plain(value) for key, value in content.items()}
                items = {**dict.fromkeys(here.order(), DELETE), **items}
            else:
                items = {KEY: plain(content)}
            if items and is_own:
                here.assign(items)
            elif items:
                self._commit(here, items, _first_noted(here, items, company.requests), is_own)

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

    def refresh(self, company: Company) -> None:
        with self._lock():
            found = self.namespace.get(self.name, self._seen)
            if type(found) is not int and company.others:
                return  # One of them may be about to bind a number again.
            try:
                self._added_here()
            except TypeError as error:
                logger.warning("%s; the shared number was put back", error)
            self._take(self.proxy.value)

    def _publish(self, company: Company, is_own: bool) -> None:
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
            self.refresh(NOBODY)

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
        #: of which revision the object is that is published, if that is noted
        self._seen: Revision | Mark | None = None
        #: requests that ran already when something newer was brought here, and may have seen what was before
        self._behind: WeakSet[Request] = WeakSet()
        self._remember(self.namespace[self.name])
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Leave to the parent what it has not published."""
        self._remember(self.namespace.get(self.name, self._put))

    def _remember(self, value: Any, encoded: bytes | None = None) -> None:
        """Take this object for the one that is published."""
        self._encoded = (encoded or _encoded(value)) if _can_change_unseen(value) else None
        self._put = value

    def refresh(self, company: Company) -> None:
        with self._lock():
            namespace, name = self.namespace, self.name
            found = namespace.get(name, _MISSING)
            if found is not self._put and self._is_rebound(found):
                self._left_over = found
                return
            value = self.proxy.value
            seen = _noted(self.proxy._here(), [KEY]).get(KEY)
            if found is value:
                self._see(seen or self._seen, company)
                return
            found = namespace.get(name, _MISSING)
            if self._is_rebound(found):
                return
            # No thread is switched between these two, see above.
            if found is _MISSING or namespace[name] is found:
                namespace[name] = value
                self._remember(value)
                self._see(seen, company)

    def _see(self, seen: Revision | Mark | None, company: Company) -> None:
        """Note of which revision the object is that was brought here."""
        if self._seen not in (None, seen):
            self._behind.update(company.others)
        if company.request is not None:
            self._behind.discard(company.request)
        self._seen = seen

    def _publish(self, company: Company, is_own: bool) -> None:
        with self._lock():
            found = self.namespace.get(self.name, _MISSING)
            if not self._is_rebound(found):
                return
            # Before it is written: what another thread changes in it afterwards is to be published too.
            encoded = _encoded(found)
            try:
                self._write(found, company, is_own)
            except StoreUnavailableError:
                raise
            except Exception:
                # What another worker has bound stands, or this can never be written; the next request
                # brings here what is shared.
                self._remember(found, encoded)
                raise
            self._remember(found, encoded)

    def _write(self, found: Any, company: Company, is_own: bool) -> None:
        proxy = self.proxy
        with proxy._gate:
            if is_in_place(proxy, KEY, found):
                return
            here = proxy._here()
            is_checked = isinstance(here, Noting) and self._conflicts().checked
            seen = _newer(self._seen, _noted(here, [KEY]).get(KEY)) if is_checked else None
            revision = self._commit(here, {KEY: plain(found)}, {} if seen is None else {KEY: seen}, is_own)
            # What one request of this process has bound and published the others have seen in the module.
            self._seen = revision if is_checked else None
            if is_checked and any(not request.over for request in self._behind):
                self._met(ConflictError(proxy.name, KEY, "what was here before", "another value"), False)
            self._behind.clear()

    def restore(self) -> None:
        if self.is_bound:
            self.refresh(NOBODY)
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


NOBODY = Company(None, (), True)


def _first_noted(
    here: Access, items: Iterable[Any], requests: Iterable[Request]
) -> dict[Any, Revision | Mark]:
    """At which revision keys were read by the one of these requests that has read them before the others."""
    first: dict[Any, Revision | Mark] = {}
    for request in requests:
        for key, at in _noted(here, items, request).items():
            first[key] = at if key not in first else _older(at, first[key])
    return first


def _noted(here: Access, items: Iterable[Any], request: Request | None = None) -> dict[Any, Revision | Mark]:
    """At which revision a request, or who writes in this context, has read keys, of those it has read."""
    return here.noted(items, request) if isinstance(here, Noting) else {}


def _older(one: Revision | Mark, other: Revision | Mark) -> Revision | Mark:
    if isinstance(one, Revision) and isinstance(other, Revision):
        return min(one, other, key=lambda revision: revision.number)
    return ABSENT


def _newer(seen: Revision | Mark | None, noted: Revision | Mark | None) -> Revision | Mark | None:
    """What a request has seen: what was brought here, or what it has read or written itself after that."""
    if seen is None or noted is None or (seen, noted) == (ABSENT, ABSENT):
        return seen
    if isinstance(seen, Revision) and isinstance(noted, Revision) and seen.epoch == noted.epoch:
        return max(seen, noted, key=lambda revision: revision.number)
    return noted


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
    try:
        return any(map(_can_change_unseen, value)) if type(value) is tuple else True
    except RecursionError:
        return True


class _Comparing(pickle.Pickler):
    """Writes of a shared global only which one it is: what it holds is published by itself."""

    def reducer_override(self, obj: Any) -> Any:
        return (str, (obj.name,)) if isinstance(obj, Proxy) else NotImplemented


def _encoded(value: Any) -> bytes:
    """What is compared to find a change; one that can't be encoded is never found."""
    buffer = io.BytesIO()
    try:
        _Comparing(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:
        return b""
    return buffer.getvalue()
