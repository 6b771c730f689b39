"""Names of modules that hold an int which is counted: what was added here is added to the shared number."""

from __future__ import annotations

from typing import Any

from ..errors import StoreUnavailableError
from ..proxies.counter import SharedCounter
from ..system import forks
from .names import NOBODY, Company, ModuleName


class CounterName(ModuleName):
    """An int that is counted up or down: what was added here is added to the shared number."""

    proxy: SharedCounter

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: the shared number that the number of the module includes; what is more was added here
        self._seen: int = self.namespace[self.name]
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Drop what the parent has not published yet, since the parent publishes it."""
        self.namespace[self.name] = self._seen

    def refresh(self, company: Company) -> None:
        with self._lock():
            found = self.namespace.get(self.name, self._seen)
            if type(found) is not int and company.others:
                return  # One of them may be about to bind a number again.
            try:
                self._added_here()
            except TypeError as error:
                self.tell("%s; the shared number was put back", error)
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
            # No thread is switched in this line, see `names`; not even ``HITS += 1`` is lost.
            namespace[name] = namespace[name] + others
            self._seen = number


def _may_be_written(error: BaseException) -> bool:
    """Whether a write that has ended so may have been made: its answer was lost, or not waited for."""
    if isinstance(error, StoreUnavailableError):
        return error.may_be_written
    return not isinstance(error, Exception)
