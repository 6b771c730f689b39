"""The revision of a store: which history, and how far into it."""

from __future__ import annotations

from typing import NamedTuple


class Revision(NamedTuple):
    """A point in the history of a store.

    :ivar epoch: a random id of the history; another one means that history was lost or begun anew.
    :ivar number: grows by one with every commit to the store. The revision of a name or of a key is
        the number of the last commit that changed it; 0 is a name that was never written.

    Compare epochs with ``!=``. Numbers of different epochs mean nothing to each other.
    """

    epoch: str
    number: int
