"""Turns the keys of a dict into strings and back, with dict's equality.

A ``str`` is its own key string, so that a store can be read with other tools. Every other key is
``"\\0"``, a letter for its type, and its text. ``1``, ``1.0``, ``True`` and ``Decimal(1)`` are one key, as in
a dict; a datetime with a time zone is the same key as that moment in UTC.

A key of another type that equals one of these, such as a member of an IntEnum, a named tuple or a scalar of
numpy, is that key, and comes out of a store as that. So nothing is imported to read a key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

MARK = "\0"
#: how many tuples may be in each other: so few that every thread finds room on its stack to read them
DEEPEST = 100
#: of a Decimal that is a whole number: the int that it is equal to is written in full
MOST_DIGITS = 10_000
#: what stands for bytes that another program has written and that are no text
FOREIGN = MARK + "!"


def to_string(key: object) -> str:
    """The key string of ``key``.

    :raises TypeError: if it is of another type than those that are named here, or is not equal to the same
        as a key of that type; or if more than `DEEPEST` tuples are in each other.
    """
    if type(key) is not str and isinstance(key, str):
        key = str.__str__(key) if _equals_as(key, str) else _numpy_scalar(key, key)
    if type(key) is str and not key.startswith(MARK):
        return key
    return MARK + _tagged(key, DEEPEST)


def to_find(key: object) -> str:
    """The key string under which a key would be found.

    :raises KeyError: if it can be in a dict, and in no store.
    :raises TypeError: if it is not hashable.
    """
    try:
        return to_string(key)
    except TypeError:
        hash(key)
        raise KeyError(key) from None


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


def is_plain(key: object) -> bool:
    """Whether a key comes out of a store as it is: of the same type, and so is all that is in it."""
    if isinstance(key, (tuple, frozenset)):
        return type(key) in (tuple, frozenset) and all(map(is_plain, key))
    return type(key) in _PLAIN


def _tagged(key: object, deepest: int) -> str:
    """The text of a key, asked of the plain types: a method of a subclass might say something else."""
    kind: Any = type(key)
    for base, tagged in _TAGGED.items():
        if kind is base or isinstance(key, base):
            if kind is base or _equals_as(key, base):
                return tagged(key, deepest)
            break
    found = _numpy_scalar(key, None)
    if found is not None:
        return _tagged(found, deepest)
    if isinstance(key, Enum):
        raise TypeError(
            f"a key can't be {key!r}, of an Enum that is neither int nor str: use its .name or .value"
        )
    raise TypeError(
        "a key must be a str, int, float, bool, None, bytes, date, datetime, time, timedelta, Decimal, UUID, "
        f"or a tuple or frozenset of these, not {kind.__qualname__}; use a str or tuple that says the same"
    )


def _tagged_float(key: Any, deepest: int) -> str:
    number = float.__float__(key)
    if math.isnan(number):
        raise TypeError("nan can't be a key: it is not equal to itself")
    return _tagged_int(int(number)) if number.is_integer() else f"f{number!r}"


def _tagged_int(number: int) -> str:
    # Decimal for whoever looks into the store; hexadecimal has no limit on the number of digits.
    return f"i{number}" if number.bit_length() < 1024 else f"x{number:x}"


def _tagged_decimal(key: Any, deepest: int) -> str:
    sign, digits, exponent = Decimal.as_tuple(key)
    if not isinstance(exponent, int):
        return _tagged_float(Decimal.__float__(key) if exponent == "F" else math.nan, deepest)
    text = "".join(map(str, digits))
    significant = text.rstrip("0")
    exponent += len(text) - len(significant)
    if not significant:
        return _tagged_int(0)
    if exponent >= 0:
        if len(significant) + exponent > MOST_DIGITS:
            raise TypeError(f"a Decimal of more than {MOST_DIGITS} digits can't be a key; use its str")
        return _tagged_int(Decimal.__int__(key))
    number = Decimal.__float__(key)
    if Decimal.__eq__(key, number):
        return _tagged_float(number, deepest)
    return f"d{'-' * sign}{significant}e{exponent}"


def _tagged_datetime(key: Any, deepest: int) -> str:
    local, offset = datetime.combine(datetime.date(key), datetime.time(key)), datetime.utcoffset(key)
    if offset is None:
        return f"T{local.replace(fold=0).isoformat()}"
    if local.replace(tzinfo=key.tzinfo, fold=not local.fold).utcoffset() != offset:
        raise TypeError(
            f"a key can't be {local}, which there is twice or not at all in its time zone: use UTC"
        )
    try:
        return f"T{(local.replace(fold=0) - offset).replace(tzinfo=UTC).isoformat()}"
    except OverflowError:
        raise TypeError(f"a key can't be {local}, which has no year in UTC") from None


def _tagged_time(key: Any, deepest: int) -> str:
    if time.utcoffset(key) is not None:
        raise TypeError("a key can't be a time with a time zone; use a str, such as its isoformat()")
    return f"h{datetime.combine(date.min, key).time().replace(fold=0).isoformat()}"


def _tagged_tuple(key: Any, deepest: int) -> str:
    _require_room(deepest)
    return "t" + _joined([_tagged(item, deepest - 1) for item in tuple.__iter__(key)])


def _tagged_frozenset(key: Any, deepest: int) -> str:
    _require_room(deepest)
    return "z" + _joined(sorted([_tagged(item, deepest - 1) for item in frozenset.__iter__(key)]))


def _require_room(deepest: int) -> None:
    if not deepest:
        raise TypeError(
            f"a key can't be a tuple with more than {DEEPEST} tuples in each other; use a flat tuple or a "
            "str that says the same, such as its repr or a hash of that"
        )


def _joined(parts: Iterable[str]) -> str:
    return "".join([f"{len(part)}:{part}" for part in parts])


#: the text of a key with the letter of its type, by the plain type; of two that are base and subclass, the
#: subclass comes first
_TAGGED: dict[type, Callable[[Any, int], str]] = {
    str: lambda key, _: "s" + str.__str__(key),
    int: lambda key, _: _tagged_int(int.__int__(key)),
    float: _tagged_float,
    type(None): lambda key, _: "n",
    bytes: lambda key, _: "b" + bytes.hex(key),
    tuple: _tagged_tuple,
    datetime: _tagged_datetime,
    date: lambda key, _: "D" + date.isoformat(key),
    time: _tagged_time,
    timedelta: lambda key, _: f"p{timedelta.__floordiv__(key, timedelta.resolution)}",
    UUID: lambda key, _: "u" + UUID.hex.fget(key),  # type: ignore[attr-defined]
    Decimal: _tagged_decimal,
    frozenset: _tagged_frozenset,
}
#: those that come out of a store as they are; a Decimal may be equal to an int or a float
_PLAIN = frozenset(_TAGGED) - {Decimal} | {bool}


def _equals_as(key: Any, base: Any) -> bool:
    """Whether ``key`` is equal to what a plain ``base`` of the same content is equal to."""
    kind: Any = type(key)
    return kind is bool or (
        kind.__eq__ is base.__eq__ and (kind.__hash__ is base.__hash__ or hash(key) == base.__hash__(key))
    )


def _numpy_scalar(key: Any, default: object) -> object:
    """The plain object that a scalar of numpy is equal to, or the default for anything else."""
    if type(key).__module__ != "numpy" or not hasattr(key, "item"):
        return default
    found = key.item()
    is_plain = type(found) in (bool, int, float, str, bytes)
    return found if is_plain and bool(found == key) and hash(found) == hash(key) else default


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
    if tag == "d":
        return _untagged_decimal(rest)
    if tag in _UNTAGGED:
        return _UNTAGGED[tag](rest)
    if tag in "tz" and tag:
        if not deepest:
            raise ValueError("not a key string: too many tuples in each other")
        items = [_untagged(part, deepest - 1) for part in _parts(rest)]
        return tuple(items) if tag == "t" else frozenset(items)
    raise ValueError(f"not a key string: unknown type {tag!r}")


def _microseconds(text: str) -> timedelta:
    try:
        return timedelta(microseconds=int(text))
    except OverflowError:
        raise ValueError("not a key string: no timedelta is so long") from None


_UNTAGGED: dict[str, Callable[[str], object]] = {
    "D": date.fromisoformat,
    "T": datetime.fromisoformat,
    "h": time.fromisoformat,
    "p": _microseconds,
    "u": UUID,
}


def _untagged_decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError("not a key string: no Decimal is like that") from None


def _parts(text: str) -> list[str]:
    parts = []
    while text:
        length, colon, text = text.partition(":")
        if not colon or int(length) > len(text) or int(length) < 1:
            raise ValueError("not a key string: a tuple is cut off")
        parts.append(text[: int(length)])
        text = text[int(length) :]
    return parts
