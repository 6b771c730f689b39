"""Names of modules that stand for shared globals: what a request brings into them, and what it takes out.

A container is replaced by its proxy once. A scalar stays a plain object, since the code rebinds it: it is
refreshed from the store before a request, and published after it.

The code may rebind a name at any moment in any thread. Nothing that it binds is overwritten before it is
published: the namespace of a module is changed only by steps between which no other thread can come. With
the GIL of Python 3.11 to 3.14 threads are switched at calls and at jumps back; looking a str up in a dict,
comparing by ``is``, adding two ints and storing into a dict are none of these. The free-threaded build
promises nothing of that kind, neither to this module nor to the code that it serves.

Which thread has bound a name can't be known, and so a request publishes what another has bound. What can't
be published fails a request only if it has run alone since the name was refreshed for it. Else no request
is to blame: a conflict is as under ``warn``, logged and counted, and what was bound is written, since the
request that has bound it may have been answered; what can never be written is logged and put back.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import ConflictError, StoreUnavailableError
from ..proxies.base import Proxy, Unbound
from ..replicas.base import Access
from ..replicas.options import Conflicts
from ..replicas.replica import Replica
from ..replicas.requests import Request
from ..stores.base import Mark
from ..system.locks import ThreadLock
from ..tracking.types import detached
from ..values.revision import Revision
from ..values.wording import article, is_told, kind_of

logger = logging.getLogger("flask_globalstate")

MISSING: Any = object()


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


NOBODY = Company(None, (), True)


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
        self._left_over: Any = MISSING
        #: how often each warning came
        self._told: Counter[str] = Counter()
        # Held from comparing to writing, so that no two threads publish the same change.
        self._lock = ThreadLock()

    @abstractmethod
    def refresh(self, company: Company) -> None:
        """Bring the module up to date with what other workers have published."""

    def publish(self, company: Company) -> None:
        """Commit what the code has bound to the name.

        :raises Exception: if that can't be done, and whoever publishes it seems to have bound it.
        """
        found = self.namespace.get(self.name, MISSING)
        is_own = company.was_alone and found is not self._left_over
        try:
            self._publish(company, is_own)
        except StoreUnavailableError:
            self._left_over = found
            raise
        except Exception as error:
            if is_own:
                raise
            self.tell(
                "what was bound to %s can't be published, and is dropped: %s. No request was failed for it, "
                "since several ran at the same time, and it can't be told which one has bound it",
                self.place,
                error,
            )
        self._left_over = MISSING

    def stop_standing_for_another(self) -> None:
        """Replace another shared global that the code has bound to this name by the content of that one.

        This is done before any name is published: ``A, B = B, A`` publishes what both hold now.
        """
        found = self.namespace.get(self.name, MISSING)
        if isinstance(found, Proxy) and found is not self.proxy:
            content = detached(found._unwrap())
            if self.namespace.get(self.name) is found:
                self.namespace[self.name] = content

    @abstractmethod
    def _publish(self, company: Company, is_own: bool) -> None:
        """Commit what is bound now.

        :param is_own: whether to raise a conflict, or only to report it.
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
        """Write items; report a conflict, and write them all the same.

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
            key = "" if error.key == "" else f"[{error.key!r}]"
            self.tell(
                "%s%s was bound while several requests ran, and changed by another worker since one "
                "of them has seen it: that change is now overwritten. No request was failed for it, since it "
                "can't be told which one has bound it; share what is counted as a SharedCounter",
                self.place,
                key,
            )

    def tell(self, what: str, *arguments: object) -> None:
        """Log a warning, more rarely the oftener it comes."""
        self._told[what] += 1
        if is_told(self._told[what]):
            logger.warning(what, *arguments)

    def _refuse(self, found: Any) -> TypeError:
        kind = article(type(self.proxy).__name__)
        return TypeError(
            f"{self.place} is shared as {kind}, and the code has bound it to {kind_of(found)}; "
            "that was not published. Share a name that is bound to objects of several types as a SharedValue"
        )


def noted(here: Access, items: Iterable[Any], request: Request | None = None) -> dict[Any, Revision | Mark]:
    """At which revision a request, or who writes in this context, has read keys, of those it has read."""
    return here.read_sets.revisions(items, request) if isinstance(here, Replica) else {}
