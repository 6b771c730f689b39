"""The number of the format in which a state lies in Redis; a state of one that is not known is refused."""

from __future__ import annotations

import re

from ...errors import GlobalStateError, StoreUnavailableError
from ..base import newer_format

#: the newest that is known, which is described in ``prelude.lua``; a state without a number is of the first
FORMAT = 1
NUMBER = re.compile(rb"[0-9]{1,9}")


def is_known(found: bytes) -> bool:
    """Whether a state that bears this number can be read and written."""
    return NUMBER.fullmatch(found) is not None and int(found) <= FORMAT


def unknown_format(found: bytes, state_id: str, place: str) -> GlobalStateError:
    """The error for a state that bears another number.

    :param place: the store, and where its server is.
    """
    if NUMBER.fullmatch(found):
        return newer_format(f"STORE_ID {state_id!r} of {place}", int(found), FORMAT)
    return changed_by_another_program(state_id, place)


def changed_by_another_program(state_id: str, place: str) -> StoreUnavailableError:
    """The error for a state that holds what none of our releases writes."""
    return StoreUnavailableError(
        f"{place} can't be used: what is stored of the state {state_id!r} is changed by another program; "
        "leave its keys to this package"
    )
