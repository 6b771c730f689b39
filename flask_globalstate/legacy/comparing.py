"""Objects compared with what they were: by their encoding, where they may be changed in place."""

from __future__ import annotations

import io
import pickle
from typing import Any

from ..proxies.base import Proxy
from ..tracking.containers import FROZEN
from ..tracking.plain import TrackedContainer


def can_change_unseen(value: Any) -> bool:
    """Whether an object may be changed without a commit and without being bound again."""
    if type(value) in FROZEN:
        return False
    if isinstance(value, TrackedContainer):
        return bool(value._tracked_value.has_untracked)
    try:
        return any(map(can_change_unseen, value)) if type(value) is tuple else True
    except RecursionError:
        return True


class _Comparing(pickle.Pickler):
    """Writes of a shared global only which one it is: what it holds is published by itself."""

    def reducer_override(self, obj: Any) -> Any:
        return (str, (obj._name,)) if isinstance(obj, Proxy) else NotImplemented


def fingerprint(value: Any) -> bytes:
    """What is compared to find a change of a value; one of a value that can't be encoded is never found."""
    buffer = io.BytesIO()
    try:
        _Comparing(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:
        return b""
    return buffer.getvalue()
