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
        """The bytes that stand for a value.

        :param value: what to encode.
        :returns: bytes from which `decode` makes an equal value in any worker.
        :raises Exception: if the value can't be encoded; the caller gets an `EncodingError`.
        """
        ...

    def decode(self, data: bytes) -> Any:
        """The value that bytes stand for.

        :param data: what `encode` gave, here or in another worker.
        :returns: an equal value, newly made.
        :raises Exception: if there is none; the caller gets a `DecodingError`.
        """
        ...


class PickleEncoding:
    """Values of any type that pickle takes, as bytes; what other workers could not read is refused.

    What is stored is signed, and nothing is unpickled whose signature is wrong.
    """

    signed = True

    def encode(self, value: Any) -> bytes:
        """The pickle of a value.

        :param value: any picklable object.
        :returns: the pickle, in the highest protocol.
        :raises EncodingError: for an object whose class or function lives in ``__main__``, where no other
            worker could find it.
        :raises Exception: if pickle can't write the value, or what it wrote doesn't load again.
        """
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
        """The value of a pickle, newly made. Give it nothing whose origin isn't known.

        :param data: a pickle, as bytes.
        :returns: the value.
        :raises Exception: whatever unpickling raises.
        """
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
    """Values as JSON in ASCII, for stores that other programs read too.

    As in every use of JSON a tuple comes back as a list. A dict with keys that are not str is
    refused, since JSON would turn them into str, and so are nan and infinity, which are not JSON.
    """

    signed = False

    def encode(self, value: Any) -> bytes:
        """The JSON of a value.

        :param value: None, a bool, int, float or str, or a list, tuple or dict of such values.
        :returns: JSON in ASCII, as bytes.
        :raises EncodingError: for a dict with a key that is not a str.
        :raises ValueError: for nan and infinity.
        :raises TypeError: for a value of another type.
        """
        _require_str_keys(value)
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")

    def decode(self, data: bytes) -> Any:
        """The value of a piece of JSON.

        :param data: JSON, as bytes.
        :returns: the value.
        :raises ValueError: for what is not JSON.
        """
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
    """Values as they are; only for stores that hold objects (memory, custom classes)."""

    signed = False

    def encode(self, value: Any) -> Any:
        """The object itself.

        :param value: any object.
        :returns: the same object.
        """
        return value

    def decode(self, data: Any) -> Any:
        """The object itself.

        :param data: any object.
        :returns: the same object.
        """
        return data


ENCODINGS: dict[str, type[Any]] = {"pickle": PickleEncoding, "json": JSONEncoding, "noop": NoOpEncoding}


def find_encoding(encoding: str | Encoding) -> Encoding:
    """The encoding that is called so in `ENCODINGS`, or the one that is given."""
    found: Encoding = ENCODINGS[encoding]() if isinstance(encoding, str) else encoding
    return found
