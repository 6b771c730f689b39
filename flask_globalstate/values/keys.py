"""Turns the keys of a dict into strings and back, with dict's equality.

A ``str`` is its own key string, so that a store can be read with other tools. Every other key is
``"\\0"``, a letter for its type, and its text. ``1``, ``1.0`` and ``True`` are one key, as in a dict.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

MARK = "\0"
#: how many tuples may be in each other: so few that every thread finds room on its stack to read them
DEEPEST = 100
#: what stands for bytes that another program has written and that are no text
FOREIGN = MARK + "!"


def to_string(key: object) -> str:
    """The key string of ``key``.

    :raises TypeError: if it is not a str, int, float, bool, None, bytes or a tuple of these, or if more
        than `DEEPEST` tuples are in each other.
    """
    if type(key) is not str and isinstance(key, str) and _equals_as(key, str):
        key = str.__str__(key)
    if type(key) is str and not key.startswith(MARK):
        return key
    return MARK + _tagged(key, DEEPEST)


def from_string(text: str) -> object:
    """The key of which ``text`` is the key string.

    :raises ValueError: if it is not the key string of any key.
    """
    if not text.startswith(MARK):
        return text
    key = _untagged(text[len(MARK) :], DEEPEST)
    if to_string(key) != text:
        raise ValueError("not a key string: what it stands for is written in another way")
    return key


def to_bytes(text: str) -> bytes:
    """A key string or name as bytes; a lone surrogate survives, as it does in a dict."""
    if text.startswith(FOREIGN):
        with suppress(ValueError):
            data = bytes.fromhex(text.removeprefix(FOREIGN))
            if from_bytes(data) == text:
                return data
    return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    """The inverse of `to_bytes`; of bytes that it never gives, something that is the key string of no key."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return FOREIGN + data.hex()
    # A text that stands for other bytes was not written by us either.
    return FOREIGN + data.hex() if text.startswith(FOREIGN) and to_bytes(text) != data else text


def _tagged(key: object, deepest: int) -> str:
    """The text of a key, asked of the plain types: a method of a subclass might say something else."""
    if key is None:
        return "n"
    if isinstance(key, str) and _equals_as(key, str):
        return "s" + str.__str__(key)
    if isinstance(key, int) and _equals_as(key, int):
        return _tagged_int(int.__int__(key))
    if isinstance(key, float) and _equals_as(key, float):
        number = float.__float__(key)
        if math.isnan(number):
            raise TypeError("nan can't be a key: it is not equal to itself")
        return _tagged_int(int(number)) if number.is_integer() else f"f{number!r}"
    if isinstance(key, bytes) and _equals_as(key, bytes):
        return "b" + bytes.hex(key)
    if isinstance(key, tuple) and _equals_as(key, tuple):
        return _tagged_tuple(key, deepest)
    raise TypeError(
        "a key must be a str, int, float, bool, None, bytes or a tuple of these, "
        f"not {type(key).__qualname__}"
    )


def _tagged_tuple(key: tuple[object, ...], deepest: int) -> str:
    if not deepest:
        raise TypeError(
            f"a key can't be a tuple with more than {DEEPEST} tuples in each other; use a flat tuple or a "
            "str that says the same, such as its repr or a hash of that"
        )
    parts = [_tagged(item, deepest - 1) for item in tuple.__iter__(key)]
    return "t" + "".join(f"{len(part)}:{part}" for part in parts)


def _tagged_int(number: int) -> str:
    # Decimal for whoever looks into the store; hexadecimal has no limit on the number of digits.
    return f"i{number}" if number.bit_length() < 1024 else f"x{number:x}"


def _equals_as(key: object, base: type) -> bool:
    """Whether ``key`` is equal to what a plain ``base`` of the same content is equal to."""
    kind: Any = type(key)
    like: Any = base
    return kind is like or kind is bool or (kind.__eq__ is like.__eq__ and kind.__hash__ is like.__hash__)


def _untagged(text: str, deepest: int) -> object:
    tag, rest = text[:1], text[1:]
    if tag == "n" and not rest:
        return None
    if tag == "s":
        return rest
    if tag == "i":
        return int(rest)
    if tag == "x":
        return int(rest, 16)
    if tag == "f":
        number = float(rest)
        if math.isnan(number):
            raise ValueError("not a key string: nan can't be a key")
        return number
    if tag == "b":
        return bytes.fromhex(rest)
    if tag == "t":
        if not deepest:
            raise ValueError("not a key string: too many tuples in each other")
        return tuple([_untagged(part, deepest - 1) for part in _parts(rest)])
    raise ValueError(f"not a key string: unknown type {tag!r}")


def _parts(text: str) -> list[str]:
    parts = []
    while text:
        length, colon, text = text.partition(":")
        if not colon or int(length) > len(text) or int(length) < 1:
            raise ValueError("not a key string: a tuple is cut off")
        parts.append(text[: int(length)])
        text = text[int(length) :]
    return parts
