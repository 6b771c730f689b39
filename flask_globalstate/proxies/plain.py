"""Plain objects for libraries that take nothing else."""

from __future__ import annotations

from typing import Any

from ..tracking.plain import detach_strictly
from .base import Proxy


def unwrap(thing: Any) -> Any:
    """The plain object that something stands for, with plain objects in it at any depth.

    :param thing: a shared global, a list, dict or set that was read from one, a list, dict, set or tuple that
        holds such things, or anything else.
    :returns: a copy with nothing shared or tracked in it; any other object, also one in it, is itself. What
        each shared global holds is of one revision.
    :raises RecursionError: if it holds itself, or containers that are nested more than 200 deep.
    :raises StoreUnavailableError: if a shared global can't be read.
    """
    return detach_strictly(thing)


def json_default(thing: Any) -> Any:
    """What an encoder of JSON or msgpack calls for an object that it doesn't know.

    ::

        json.dumps(DATA, default=json_default)
        orjson.dumps(DATA, default=json_default)
        msgpack.packb(DATA, default=json_default)

    :param thing: what is to be encoded.
    :returns: the plain object that a shared global stands for.
    :raises TypeError: for anything else, as the encoder raises it.
    :raises StoreUnavailableError: if the shared global can't be read.
    """
    if isinstance(thing, Proxy):
        return unwrap(thing)
    raise TypeError(f"Object of type {type(thing).__name__} is not JSON serializable")
