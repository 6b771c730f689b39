"""What a name is asked for with, whatever kind of replica it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import ConflictError
from ..values.revision import Revision
from .base import Access
from .freshness import Outage, Staleness

Initial = Callable[[], Mapping[Any, Any]]
#: makes a value that was read ready to be handed out, given its key, its revision, and the view of the
#: transaction that reads it; and says whether it can still be changed in place without our knowing
Wrap = Callable[[Any, Any, Revision, Access | None], tuple[Any, bool]]


class Conflicts(Protocol):
    """What to do about lost updates."""

    #: whether a write depends on what was read
    checked: bool

    def met(self, error: ConflictError) -> None:
        """Note one; return to write all the same.

        :raises ConflictError: if that is not wanted.
        """

    def met_change_in_place(self, name: str, key: Any) -> None:
        """Note a value that was changed and not given back."""


@dataclass(frozen=True)
class ReplicaOptions:
    """What a replica is made with.

    :param initial: gives what is committed if the name has never existed; called at first use.
    :param outage: for how long what is cached may be read while the store can't be reached.
    :param staleness: how old what a request reads may be.
    :param wrap: makes what is read ready to be handed out.
    :param conflicts: what to do when another worker has changed what a request has read and now writes;
        readers note what they read only if this is given.
    """

    initial: Initial | None = None
    outage: Outage = field(default_factory=Outage)
    staleness: Staleness = field(default_factory=Staleness)
    wrap: Wrap | None = None
    conflicts: Conflicts | None = None
