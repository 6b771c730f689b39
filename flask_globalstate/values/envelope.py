"""What surrounds a value in a store: what kind of bytes they are, and who wrote them.

An envelope is the payload, then its signature if it has one, then one byte for its kind::

    123 i                an integer, in clear, so that a store can add to it
    payload mac(32) s    encoded, signed
    payload e            encoded, not signed

Kind and signature come last: unpickling stops at a pickle's end and doesn't look at what follows, so
a shelve written by us can be read by the standard library.

The signature is an HMAC-SHA256 over the state id, the name, the key and the payload, so that a value
can't be moved to another place. Its key is derived from the secret for this purpose only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ..errors import ConfigurationError, DecodingError, EncodingError, GlobalStateError, SignatureError
from . import keys
from .culprits import culprit, told
from .encodings import Encoding, PickleEncoding

INTEGER, SIGNED, UNSIGNED = b"i", b"s", b"e"
MAC_SIZE = 32
DIGITS = re.compile(rb"-?[0-9]+")
PURPOSE = b"flask_globalstate signature 1"
# int() of a decimal text refuses more than 4300 digits; larger ones are encoded as any other value.
LARGEST_CLEAR_BITS = 8192

Secrets = Callable[[], Sequence[bytes]]


class Codec(Protocol):
    """What turns the values of users into what a store holds."""

    #: what is opened is of the very types that were sealed
    is_exact: bool

    def seal(self, name: str, key: str, value: Any) -> Any:
        """What the store holds for ``value`` under ``key`` of ``name``.

        :raises EncodingError: if no other worker could read it.
        """
        ...

    def encode(self, name: str, key: str, value: Any) -> bytes:
        """The value encoded, to see whether it has changed.

        :raises EncodingError: as `seal`.
        """
        ...

    def open(self, name: str, key: str, data: Any) -> Any:
        """The value that `seal` was given.

        :raises DecodingError: if ``data`` can't be decoded.
        :raises SignatureError: if it was not written by this state for this place.
        """
        ...


class PlainCodec:
    """For stores that hold the objects themselves.

    :param check: called with name, key and value of each write.
    """

    is_exact = True

    def __init__(self, check: Callable[[str, str, Any], None] | None = None) -> None:
        self._check = check

    def seal(self, name: str, key: str, value: Any) -> Any:
        if self._check is not None:
            self._check(name, key, value)
        return value

    def encode(self, name: str, key: str, value: Any) -> bytes:
        return encoded(PickleEncoding(), name, key, value)

    def open(self, name: str, key: str, data: Any) -> Any:
        return data


class SigningKey:
    """HMAC-SHA256 under one key, its first block hashed once: `hmac.digest` sets OpenSSL up at every call."""

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def sign(self, message: bytes) -> bytes:
        """The same bytes as of ``hmac.digest(key, message, "sha256")`` for a key of 32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Envelope:
    """Encodes and signs what goes into a store, verifies and decodes what comes out.

    :param encoding: an object with ``encode`` and ``decode``.
    :param old_encoding: tried when decoding with ``encoding`` fails.
    :param state_id: part of what is signed.
    :param secrets: gives the secret keys, the current one first; called at first use. None at all
        means that signed encodings are refused.
    :param allow_unsigned: read and write unsigned even where the encoding wants a signature.
    """

    def __init__(
        self,
        encoding: Encoding,
        *,
        state_id: str,
        secrets: Secrets = tuple,
        old_encoding: Encoding | None = None,
        allow_unsigned: bool = False,
    ) -> None:
        self._encodings = [encoding] if old_encoding is None else [encoding, old_encoding]
        self.is_exact = type(encoding) is PickleEncoding
        self._state_id = keys.to_bytes(state_id)
        self._secrets = secrets
        self._allow_unsigned = allow_unsigned
        self._signing_keys: list[SigningKey] | None = None

    def seal(self, name: str, key: str, value: Any) -> bytes:
        if type(value) is int:
            with suppress(EncodingError):
                return integer_data(value)
        encoding = self._encodings[0]
        payload = self.encode(name, key, value)
        if not self._wants_signature(encoding):
            return payload + UNSIGNED
        return payload + self._mac(self._keys()[0], name, key, payload) + SIGNED

    def seal_foreign(self, name: str, key: str, pickled: bytes) -> bytes:
        """Seal a bare pickle that another program wrote where only its user can write.

        :raises DecodingError: if it can't be decoded.
        """
        value = self._decode(name, key, pickled, [PickleEncoding()])
        if type(value) is int or type(self._encodings[0]) is not PickleEncoding or self._allow_unsigned:
            return self.seal(name, key, value)
        # As it is: what can be read need not be something that we would write.
        return pickled + self._mac(self._keys()[0], name, key, pickled) + SIGNED

    def open(self, name: str, key: str, data: bytes) -> Any:
        kind = data[-1:]
        if kind == INTEGER:
            return self._integer(name, key, data[:-1])
        if kind == SIGNED and len(data) > MAC_SIZE:
            payload, mac = data[: -MAC_SIZE - 1], data[-MAC_SIZE - 1 : -1]
            self._verify(name, key, payload, mac)
            return self._decode(name, key, payload, self._encodings)
        if kind == UNSIGNED:
            trusted = [e for e in self._encodings if not self._wants_signature(e)]
            if not trusted:
                raise SignatureError(f"{_place(name, key)} is not signed, and so was not decoded")
            return self._decode(name, key, data[:-1], trusted)
        raise DecodingError(f"{_place(name, key)} is not something that this package wrote")

    def _wants_signature(self, encoding: Encoding) -> bool:
        return getattr(encoding, "signed", False) and not self._allow_unsigned

    def encode(self, name: str, key: str, value: Any) -> bytes:
        return encoded(self._encodings[0], name, key, value)

    def _decode(self, name: str, key: str, payload: bytes, encodings: Sequence[Encoding]) -> Any:
        failure: Exception | None = None
        for encoding in encodings:
            try:
                return encoding.decode(payload)
            except Exception as error:
                failure = failure or error
        raise DecodingError(
            f"{_place(name, key)} can't be decoded ({type(failure).__name__}). If it was written with "
            "another encoding, set STORE_OLD_ENCODING; if by another release of your code, its class is gone"
        ) from failure

    def _integer(self, name: str, key: str, digits: bytes) -> int:
        try:
            return read_integer(digits)
        except ValueError as error:
            raise DecodingError(f"{_place(name, key)} should be an integer and is not") from error

    def _verify(self, name: str, key: str, payload: bytes, mac: bytes) -> None:
        for signing_key in self._keys():
            if hmac.compare_digest(mac, self._mac(signing_key, name, key, payload)):
                return
        raise SignatureError(
            f"{_place(name, key)} bears a wrong signature, and was not decoded. The usual cause: SECRET_KEY "
            "(or STORE_SECRET_KEY) differs between workers or has changed since it was written; list the "
            "older one in STORE_SECRET_KEY_FALLBACKS"
        )

    def _mac(self, signing_key: SigningKey, name: str, key: str, payload: bytes) -> bytes:
        name_bytes, key_bytes = keys.to_bytes(name), keys.to_bytes(key)
        head = b"%d:%d:%d:" % (len(self._state_id), len(name_bytes), len(key_bytes))
        return signing_key.sign(head + self._state_id + name_bytes + key_bytes + payload)

    def _keys(self) -> list[SigningKey]:
        if self._signing_keys is None:
            derived = [hmac.digest(secret, PURPOSE, "sha256") for secret in self._secrets()]
            if not derived:
                raise ConfigurationError(
                    "pickles in a store that other hosts can write to need a secret key, or whoever writes "
                    "there can run code in every worker. Set SECRET_KEY or STORE_SECRET_KEY, or use "
                    'STORE_ENCODING="json", or, if everybody there is trusted, '
                    'STORE_OPTIONS={"unsigned_pickles": True}'
                )
            self._signing_keys = [SigningKey(key) for key in derived]
        return self._signing_keys


def integer_data(number: int) -> bytes:
    """What stands in an envelope for an integer that a store can add to.

    :raises EncodingError: for one that is too large for that.
    """
    if number.bit_length() <= LARGEST_CLEAR_BITS:
        with suppress(ValueError):  # sys.set_int_max_str_digits has been called.
            return b"%d" % number + INTEGER
    raise EncodingError(
        f"a number of {number.bit_length():,} bits is too large to be counted with; keep it as a value, and "
        "change it with apply"
    )


def read_integer(digits: bytes) -> int:
    """The integer that stands in an envelope in clear.

    :raises ValueError: if it is not one that `Envelope.seal` writes; `int` alone takes ``1_0`` and spaces.
    """
    if not DIGITS.fullmatch(digits):
        raise ValueError("not an integer")
    return int(digits)


def encoded(encoding: Encoding, name: str, key: str, value: Any) -> bytes:
    """A value encoded.

    :raises EncodingError: if it can't be, naming the part of it that is to blame.
    """
    try:
        return encoding.encode(value)
    except GlobalStateError as error:
        steps, _ = culprit(encoding, value)
        where = steps and f"{_shown(name, key)}{steps}: "
        raise EncodingError(f"{_place(name, key)}: {where}{error}") from error
    except Exception as error:
        part = told(_shown(name, key), encoding, value)
        raise EncodingError(
            f"{_place(name, key)}: a value of type {type(value).__qualname__} can't be stored"
            f"{part and f': {part}'} ({type(error).__name__} while encoding it)"
        ) from error


def _shown(name: str, key: str) -> str:
    """A place as its user would write it; a global that is no dict has one value, under an empty key."""
    with suppress(ValueError):
        return f"{name}[{keys.from_string(key)!r}]" if key else name
    return f"{name}[...]"


def _place(name: str, key: str) -> str:
    if not key:
        return repr(name)
    try:
        return f"key {keys.from_string(key)!r} of {name!r}"
    except ValueError:
        return f"key string {key!r} of {name!r}"
