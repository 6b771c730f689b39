"""Values that are changed in place and not given back: found at the end of a request that is examined."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..errors import EncodingError
from ..values import keys
from ..values.envelope import Codec
from .cache import Cache
from .options import Conflicts
from .requests import request_here

#: the largest encoding, in bytes, of a value that is compared at the end of a request
LARGEST_EXAMINED = 64 * 1024


class InPlaceChanges:
    """What requests were handed of a name, encoded, to be compared with what has become of it.

    :param name: the name.
    :param cache: of the name.
    :param codec: encodes values.
    :param conflicts: is told of a change.
    """

    def __init__(self, name: str, cache: Cache, codec: Codec, conflicts: Conflicts | None) -> None:
        self._name = name
        self._cache = cache
        self._codec = codec
        self._conflicts = conflicts

    def hand_out(self, key: Any, value: Any) -> None:
        """Remember what a value is now, in a request at whose end that is compared."""
        cache, request = self._cache, request_here()
        if request is None or not request.examined or key not in cache.mutable_keys:
            return
        number = cache.number_of(key, value)
        if number is None:
            return
        if request.handed_out.get((self, key), (None,))[0] == number:
            return
        encoded = self.encoded(key, value)
        if encoded is not None:
            request.handed_out[self, key] = number, encoded
            return
        cache.take_for_immutable(key, number)

    def encoded(self, key: Any, value: Any) -> bytes | None:
        """A value encoded, to see whether it changes; None if it is too large, or can't be encoded."""
        with suppress(EncodingError):
            encoded = self._codec.encode(self._name, keys.to_string(key), value)
            return encoded if len(encoded) <= LARGEST_EXAMINED else None
        return None

    def met(self, key: Any) -> None:
        """Note a value that was changed and not given back."""
        if self._conflicts is not None:
            self._conflicts.met_change_in_place(self._name, key)

    def examine(self, key: Any, number: int, encoded: bytes) -> None:
        """Evict a value that isn't what it was when it was handed out, if no commit has changed it."""
        cached = self._cache.cached(key, number)
        if cached is None or not cached.is_mutable:
            return
        with suppress(EncodingError):
            if self._codec.encode(self._name, keys.to_string(key), cached.value) == encoded:
                return
        self._cache.evict_if_at(key, number)
        self.met(key)
