"""Lost updates and changes in place: what to do about them, and how many there were."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container
from typing import Any

from ..errors import ConflictError
from ..values.wording import is_told

logger = logging.getLogger("flask_globalstate")

OVERWRITTEN = (
    "was changed by another worker or request since this one has seen it, and that change is now overwritten"
)
CHANGED_IN_PLACE = "was changed in place, which other workers do not see, and the change was dropped"


class Stats:
    """Counts lost updates and changes in place in one process, for each name.

    :param on_conflict: STORE_ON_CONFLICT: ``ignore``, ``warn`` or ``raise``.
    """

    def __init__(self, on_conflict: str) -> None:
        self.checked = on_conflict != "ignore"
        self._raises = on_conflict == "raise"
        self.conflicts: Counter[str] = Counter()
        self.changed_in_place: Counter[str] = Counter()
        #: the names that are globals of modules, whose code can't be edited
        self.of_modules: Container[str] = ()

    def met(self, error: ConflictError) -> None:
        """Count a lost update, and log it.

        :raises ConflictError: if STORE_ON_CONFLICT is ``raise``.
        """
        self.conflicts[error.name] += 1
        if self._raises:
            raise error
        if error.name in self.of_modules:
            place = _place(error.name, error.key)
            _tell(self.conflicts[error.name], f"{place}{error.path} {OVERWRITTEN}", _advice(error.key))
            return
        logger.warning(
            "%s[%r]%s was read, then changed by another worker or request, and is now overwritten; "
            "use increment, apply, edit or a transaction",
            error.name,
            error.key,
            error.path,
        )

    def met_change_in_place(self, name: str, key: Any) -> None:
        """Count a value that was changed and not given back, and log it."""
        self.changed_in_place[name] += 1
        if name in self.of_modules:
            shared = f"share_globals(..., {name.rpartition('.')[2]}=SharedValue)"
            advice = f"To have it compared and published as a whole, share it by {shared}"
            _tell(self.changed_in_place[name], f"{_place(name, key)} {CHANGED_IN_PLACE}", advice)
            return
        logger.warning(
            "%s[%r] was changed in place, which other workers do not see; the change was dropped. "
            "Use with %s.edit(%r) as value, or assign it again",
            name,
            key,
            name,
            key,
        )


def _place(name: str, key: Any) -> str:
    """A place as code writes it; a global that is no dict has one value, under an empty key."""
    return name if key == "" else f"{name}[{key!r}]"


def _advice(key: Any) -> str:
    """What can be done about lost updates by whoever can't edit the code."""
    fail = 'STORE_ON_CONFLICT = "raise" fails such a request instead'
    return fail if key != "" else f"A number that is counted is to be shared as a SharedCounter; {fail}"


def _tell(times: int, what: str, advice: str) -> None:
    """Log something about a global of a module, more rarely the oftener it happens."""
    if is_told(times):
        logger.warning("%s%s. %s", what, f", {times} times by now" if times > 1 else "", advice)
