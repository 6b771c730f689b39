"""Encodings turn a value into bytes and back.

Any object with ``encode(value) -> bytes`` and ``decode(data) -> value`` is an encoding. Two optional
attributes say more: ``signed = True`` (decoding foreign bytes is dangerous, so they must bear a
signature) and ``check(value, data)`` (raise unless ``data`` can be decoded again by every worker).
"""

from __future__ import annotations

import io
import json
import pickle
from typing import Any, Protocol

from ..errors import EncodingError

PLAIN_TYPES = frozenset({str, bytes, int, float, bool, type(None)})


class Encoding(Protocol):
    """What an encoding must have; see the module."""

    def encode(self, value: Any) -> bytes:
        """``value`` as bytes."""
        ...

    def decode(self, data: bytes) -> Any:
        """The value of which ``data`` is the encoding."""
        ...


class PickleEncoding:
    """Pickle, refusing what other workers could not read.

    :raises EncodingError: for an object of a class or function that lives in ``__main__``, which no
        other worker could find, and for a pickle that doesn't load again.
    """

    signed = True

    def encode(self, value: Any) -> bytes:
        if type(value) in PLAIN_TYPES:
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        buffer = io.BytesIO()
        pickler = _CheckingPickler(buffer, pickle.HIGHEST_PROTOCOL)
        pickler.dump(value)
        data = buffer.getvalue()
        if pickler.met_an_object:
            # Pickle promises nothing here: __reduce__ may give what __init__ doesn't take.
            self.decode(data)
        return data

    def decode(self, data: bytes) -> Any:
        return pickle.loads(data)


class _CheckingPickler(pickle.Pickler):
    """Notices objects that are not plain data, and refuses those of ``__main__``."""

    met_an_object = False

    def reducer_override(self, obj: Any) -> Any:
        self.met_an_object = True
        owner = obj if isinstance(obj, type) or hasattr(obj, "__qualname__") else type(obj)
        if getattr(owner, "__module__", None) == "__main__":
            raise EncodingError(
                f"{owner.__qualname__} lives in __main__, where no other worker can find it; "
                "move it into a module that the workers import"
            )
        return NotImplemented


class JSONEncoding:
    """JSON in UTF-8, for stores that other programs read too.

    As in every use of JSON a tuple comes back as a list. A dict with keys that are not str is
    refused, since JSON would turn them into str, and so are nan and infinity, which are not JSON.
    """

    signed = False

    def encode(self, value: Any) -> bytes:
        _require_str_keys(value)
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")

    def decode(self, data: bytes) -> Any:
        return json.loads(data)


def _require_str_keys(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise EncodingError(f"JSON would turn a dict key of type {type(key).__qualname__} into a str")
            _require_str_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _require_str_keys(item)


class NoOpEncoding:
    """The objects themselves; only for stores that hold objects (memory, custom classes)."""

    signed = False

    def encode(self, value: Any) -> Any:
        return value

    def decode(self, data: Any) -> Any:
        return data


ENCODINGS: dict[str, type[Any]] = {"pickle": PickleEncoding, "json": JSONEncoding, "noop": NoOpEncoding}


def find_encoding(encoding: str | Encoding) -> Encoding:
    """The encoding that is called so in `ENCODINGS`, or the one that is given."""
    found: Encoding = ENCODINGS[encoding]() if isinstance(encoding, str) else encoding
    return found
