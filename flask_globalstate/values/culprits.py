"""Finds the part of a value because of which the whole can't be encoded."""

from __future__ import annotations

import pickle
import reprlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from .encodings import Encoding, PickleEncoding
from .wording import kind_of

#: how far it is looked for, and at how many parts: that is done for a message only
DEEPEST, MOST = 50, 10_000
_short = reprlib.Repr()


def told(place: str, encoding: Encoding, value: Any, *, shows_keys: bool = True) -> str:
    """Which part can't be encoded, in words: ``D['a'][3].lock is a _thread.lock``; empty if it is the whole.

    :param place: where the value is, such as ``D['a']``.
    :param encoding: what has raised for the value.
    :param shows_keys: whether keys of dicts stand in it; else it has three dots for each.
    """
    steps, part = culprit(encoding, value, shows_keys=shows_keys)
    return steps and f"{place}{steps} is {kind_of(part)}"


def culprit(encoding: Encoding, value: Any, *, shows_keys: bool = True) -> tuple[str, Any]:
    """The innermost part that can't be encoded, after the steps that lead to it from the value."""
    has_attributes = isinstance(encoding, PickleEncoding)
    steps, found, left = "", value, MOST
    for _ in range(DEEPEST):
        parts = list(islice(_parts(found, has_attributes, shows_keys), left))
        left -= len(parts)
        for step, part in parts:
            if not _is_encodable(encoding.encode, part):
                steps, found = steps + step, part
                break
        else:
            return steps, found
    return "", value  # Nested too deeply, or in itself.


def _is_encodable(encode: Callable[[Any], bytes], value: Any) -> bool:
    try:
        encode(value)
    except Exception:
        return False
    return True


def _parts(value: Any, has_attributes: bool, shows_keys: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"[{_short.repr(key) if shows_keys else '...'}]", item
    elif isinstance(value, (list, tuple, deque)):
        for position, item in enumerate(list(value)):
            yield f"[{position}]", item
    elif isinstance(value, (set, frozenset)):
        for item in list(value):
            yield " (an item of it)", item
    if has_attributes and type(value).__module__ != "builtins":
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Those attributes that pickle would write."""
    try:
        state = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)[2]
    except Exception:
        return  # It can't be pickled itself, or says itself what it is made of.
    for attributes in state if isinstance(state, tuple) else (state,):
        if isinstance(attributes, dict):
            yield from ((f".{name}", part) for name, part in list(attributes.items()))
