"""Lost updates and changes in place: what to do about them, and how many there were."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from ..errors import ConflictError

logger = logging.getLogger("flask_globalstate")


class Stats:
    """Counts lost updates and changes in place in one process, for each name.

    :param on_conflict: STORE_ON_CONFLICT: ``ignore``, ``warn`` or ``raise``.
    """

    def __init__(self, on_conflict: str) -> None:
        self.checked = on_conflict != "ignore"
        self._raises = on_conflict == "raise"
        self.conflicts: Counter[str] = Counter()
        self.changed_in_place: Counter[str] = Counter()

    def met(self, error: ConflictError) -> None:
        """Count a lost update, and log it.

        :raises ConflictError: if STORE_ON_CONFLICT is ``raise``.
        """
        self.conflicts[error.name] += 1
        if self._raises:
            raise error
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
        logger.warning(
            "%s[%r] was changed in place, which other workers do not see; the change was dropped. "
            "Use with %s.edit(%r) as value, or assign it again",
            name,
            key,
            name,
            key,
        )
