"""Names of modules that hold an object which the code replaces: refreshed, and published when rebound."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from ..errors import ConflictError, StoreUnavailableError
from ..proxies.base import KEY
from ..proxies.value import SharedValue
from ..replicas.base import same
from ..replicas.replica import Replica
from ..replicas.requests import Request
from ..stores.base import ABSENT, Mark
from ..system import forks
from ..tracking.types import detached, is_in_place, unwrap
from ..values.revision import Revision
from .comparing import can_change_unseen, fingerprint
from .names import MISSING, NOBODY, Company, ModuleName, noted


class ValueName(ModuleName):
    """An object that the code replaces: the last one that was bound in any worker counts."""

    proxy: SharedValue[Any]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: the revision of the published object, if it is noted
        self._seen: Revision | Mark | None = None
        #: requests that ran already when a newer object came, and may have seen the one before it
        self._behind: WeakSet[Request] = WeakSet()
        self._remember(self.namespace[self.name])
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Drop what the parent has not published yet, since the parent publishes it."""
        self._remember(self.namespace.get(self.name, self._put))

    def _remember(self, value: Any, encoded: bytes | None = None) -> None:
        """Remember this object as the one that is published."""
        self._encoded = (encoded or fingerprint(value)) if can_change_unseen(value) else None
        self._put = value

    def refresh(self, company: Company) -> None:
        with self._lock():
            namespace, name = self.namespace, self.name
            found = namespace.get(name, MISSING)
            if found is not self._put and self._is_rebound(found):
                self._left_over = found
                return
            value = self.proxy.value
            seen = noted(self.proxy._here(), [KEY]).get(KEY)
            if found is value:
                self._see(seen or self._seen, company)
                return
            found = namespace.get(name, MISSING)
            if self._is_rebound(found):
                return
            # No thread is switched between these two, see `names`.
            if found is MISSING or namespace[name] is found:
                namespace[name] = value
                self._remember(value)
                self._see(seen, company)

    def _see(self, seen: Revision | Mark | None, company: Company) -> None:
        """Note the revision of the object that the module has now."""
        if self._seen not in (None, seen):
            self._behind.update(company.others)
        if company.request is not None:
            self._behind.discard(company.request)
        self._seen = seen

    def _publish(self, company: Company, is_own: bool) -> None:
        with self._lock():
            found = self.namespace.get(self.name, MISSING)
            if not self._is_rebound(found):
                return
            # Before it is written: what another thread changes in it afterwards is to be published too.
            encoded = fingerprint(found)
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
            if is_in_place(proxy, KEY, found) and not can_change_unseen(found):
                return  # Each change of it was a commit.
            here = proxy._here()
            is_checked = isinstance(here, Replica) and self._conflicts().checked
            seen = _newer(self._seen, noted(here, [KEY]).get(KEY)) if is_checked else None
            revision = self._commit(here, {KEY: unwrap(found)}, {} if seen is None else {KEY: seen}, is_own)
            # What one request of this process has bound and published the others have seen in the module.
            self._seen = revision if is_checked else None
            if is_checked and any(not request.over for request in self._behind):
                self._met(ConflictError(proxy._name, KEY, "what was here before", "another value"), False)
            self._behind.clear()

    def restore(self) -> None:
        if self.is_bound:
            self.refresh(NOBODY)
        self.namespace[self.name] = detached(self.namespace[self.name])

    def _is_rebound(self, found: Any) -> bool:
        """Whether the code has bound another object to the name, or changed the one that is there."""
        if found is MISSING:
            return False
        if self._encoded is not None:
            return fingerprint(found) != self._encoded
        if found is self._put:
            return False
        # An int is not the float, and True is not the 1, that it is equal to.
        return type(unwrap(found)) is not type(unwrap(self._put)) or not same(found, self._put)


def _newer(seen: Revision | Mark | None, noted: Revision | Mark | None) -> Revision | Mark | None:
    """What a request has seen: what was brought here, or what it has read or written itself after that."""
    if seen is None or noted is None or (seen, noted) == (ABSENT, ABSENT):
        return seen
    if isinstance(seen, Revision) and isinstance(noted, Revision) and seen.epoch == noted.epoch:
        return max(seen, noted, key=lambda revision: revision.number)
    return noted
