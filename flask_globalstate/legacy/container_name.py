"""Names of modules that hold a dict, list or set: bound to a proxy once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import StoreUnavailableError
from ..proxies.base import KEY, Proxy
from ..proxies.mapping import SharedDict
from ..replicas.base import Access
from ..replicas.requests import Request
from ..stores.base import ABSENT, DELETE, Mark
from ..tracking.types import plain, settle
from ..values.revision import Revision
from .comparing import fingerprint
from .names import MISSING, Company, ModuleName, noted
from .referrers import Place


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
        """Leave it to the proxy, which is up to date; note what the code has bound instead of it."""
        found = self.namespace.get(self.name, MISSING)
        if found is not self.proxy:
            self._left_over = found

    def _publish(self, company: Company, is_own: bool) -> None:
        while self.namespace.get(self.name, MISSING) is not self.proxy:
            with self._lock():
                self._replace(self.namespace.get(self.name, MISSING), company, is_own)

    def _replace(self, found: Any, company: Company, is_own: bool) -> None:
        """Make what the code has bound to the name the shared content, and bind the proxy again."""
        content = plain(found) if isinstance(found, Proxy) else found
        if found is MISSING or not isinstance(content, self._kind):
            self.namespace[self.name] = self.proxy
            if found is not MISSING:
                raise self._refuse(found)
            return
        before = fingerprint(content)
        try:
            self._assign(content, company, is_own)
        except StoreUnavailableError:
            raise
        except Exception:
            # What others have written stands, or it can never be written.
            self.namespace[self.name] = self.proxy
            raise
        # If another thread has changed or rebound it meanwhile, that is to be published too.
        if fingerprint(content) == before and self.namespace[self.name] is found:
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


def _first_noted(
    here: Access, items: Iterable[Any], requests: Iterable[Request]
) -> dict[Any, Revision | Mark]:
    """The oldest revision at which any of these requests has read each key."""
    first: dict[Any, Revision | Mark] = {}
    for request in requests:
        for key, at in noted(here, items, request).items():
            first[key] = at if key not in first else _older(at, first[key])
    return first


def _older(one: Revision | Mark, other: Revision | Mark) -> Revision | Mark:
    if isinstance(one, Revision) and isinstance(other, Revision):
        return min(one, other, key=lambda revision: revision.number)
    return ABSENT
