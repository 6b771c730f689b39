"""Questions to the store that are on their way, and what their answers may do to the cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from ..errors import ConflictError, ReentryError, UnsupportedOperationError
from ..stores.base import Changes
from ..values.revision import Revision
from .cache import Cache, CachedValue, known_key

#: after these it is sure that nothing was written
REFUSALS = (ConflictError, ReentryError, TypeError, UnsupportedOperationError)


class Ticket:
    """A question to the store about a name: taken before it is sent, and handed the answer.

    It remembers how often the cache had been emptied. So an answer of an epoch that has ended while it was
    on its way does nothing.

    :param cache: of the name.
    """

    __slots__ = ("_cache", "_generation")

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._generation = cache.generation

    def is_current(self) -> bool:
        """Whether the cache was not emptied for another epoch since this was taken."""
        return self._generation == self._cache.generation

    def generation_of(self, revision: Revision) -> int | None:
        """Record an answer, and give the generation of its epoch; None if that is gone."""
        cache = self._cache
        with cache.guard():
            cache._accept(revision, self._generation)
            generation = cache.generation if revision.epoch == cache.epoch else None
        cache.let_go()
        return generation

    def invalidate(self, changes: Changes) -> list[str] | None:
        """Evict what has changed.

        :returns: the key strings of what came along and somebody here has read; None if another thread has
            met a new epoch since the question was sent.
        """
        cache = self._cache
        with cache.guard():
            wanted = [text for text in changes.entries if cache._knows(known_key(text))]
            if changes.revision.epoch == cache.epoch:
                cache._invalidate(changes)
            elif self.is_current():
                cache._reset(changes.revision)
            else:
                return None
        cache.let_go()
        return wanted

    def put(self, found: Mapping[Any, CachedValue], revision: Revision) -> dict[Any, Any]:
        """Cache values, if nothing newer is known; what to show for each."""
        cache = self._cache
        with cache.guard():
            shown = self._put(found, revision)
        cache.let_go()
        return shown

    def put_all(
        self, found: Mapping[Any, CachedValue], order: Iterable[Any], revision: Revision
    ) -> dict[Any, Any]:
        """The same for an answer that holds all there is.

        :param order: of all keys, also those whose values can't be decoded.
        """
        cache = self._cache
        with cache.guard():
            shown = self._put(found, revision)
            cache._put_order(order, revision)
        cache.let_go()
        return shown

    def _put(self, found: Mapping[Any, CachedValue], revision: Revision) -> dict[Any, Any]:
        cache = self._cache
        if cache._accept(revision, self._generation):
            return cache._put_new(found, revision)
        if revision.epoch == cache.epoch:
            for key, cached in found.items():
                cache._evict_older(key, cached.number)
        return {key: cached.value for key, cached in found.items()}

    def put_order(self, order: Iterable[Any], revision: Revision) -> None:
        """Cache the order of the keys, if nothing newer is known."""
        cache = self._cache
        with cache.guard():
            cache._accept(revision, self._generation)
            cache._put_order(order, revision)
        cache.let_go()

    def move_base(
        self,
        found: Mapping[Any, CachedValue],
        removed: Iterable[Any],
        order: Iterable[Any],
        start: Revision,
        revision: Revision,
    ) -> bool:
        """Move the base to a newer revision in one step.

        :param start: the revision of the base that this leads on from.
        :returns: False if the base isn't at ``start``; nothing was done.
        """
        cache = self._cache
        with cache.guard():
            is_at_start = (
                cache.order is not None and self.is_current() and start == (cache.epoch, cache.order_at)
            )
            if is_at_start:
                cache._move_base(found, removed, order, revision)
        cache.let_go()
        return is_at_start

    def show(self, numbers: Mapping[Any, int], revision: Revision) -> None:
        """Record what somebody is shown and is not cached: keys with the number of their last change.

        :param numbers: `NONE` for a key that is absent, which is remembered.
        """
        cache = self._cache
        with cache.guard():
            may_be_put = cache._accept(revision, self._generation)
            if revision.epoch == cache.epoch:
                cache._show(numbers, revision, may_be_put)
        cache.let_go()


class WriteTicket(Ticket):
    """A write that is sent in a ``with`` statement.

    What is written is evicted if the statement is left by an error, unless it is sure that nothing was
    written: also by one that has cut the wait for the answer short.

    :param cache: of the name that is written to.
    :param written: the keys; None for all.
    """

    __slots__ = ("_written",)

    def __init__(self, cache: Cache, written: Iterable[Any] | None) -> None:
        super().__init__(cache)
        self._written = written

    def __enter__(self) -> WriteTicket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, REFUSALS):
            return
        if self._written is None:
            self._cache.empty()
        else:
            self._cache.evict(self._written)

    def replaced(self, revision: Revision) -> None:
        """Evict what the write has replaced; nothing older may be cached any more."""
        cache = self._cache
        with cache.guard():
            cache._accept(revision, self._generation)
            if self._written is None:
                cache._empty()
            else:
                for key in self._written:
                    cache._evict(key)
        cache.let_go()


class WriteTickets(tuple[WriteTicket, ...]):
    """Tickets for a write of several names at once, in one ``with`` statement."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for ticket in self:
            ticket.__exit__(kind, error, traceback)
