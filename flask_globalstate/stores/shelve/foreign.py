"""Take over what other programs have written with ``shelve.open``: it is sealed, and committed as our own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import GlobalStateError
from ...values import keys as keys_module
from ...values.envelope import UNSIGNED
from ..base import DELETE
from .connections import Connections
from .redo import Items
from .schema import is_key

logger = logging.getLogger("flask_globalstate")

#: so much is taken over in one commit, and in memory
BYTES_AT_ONCE = 8 * 1024 * 1024

#: seals a bare pickle, given name, key and pickle
Seal = Callable[[str, str, bytes], bytes]


def take_over(
    name: str, path: str, connections: Connections, seal: Seal, count: Callable[[int], int]
) -> None:
    """Commit what is foreign in a file; the caller has the write lock, and counts this in the seqcount.

    :param count: gives the number of a commit, given the last one of the name.
    """
    with connections.connection(path) as file, file.writing(keys_module.to_bytes(name)):
        keys = file.foreign_keys()
    pending = iter(keys)
    while batch := _some(path, connections, pending):
        # User's code runs here, so that no connection is in use.
        sealed = [_sealed(name, key, value, seal) for key, value in batch.items()]
        items: Items = [item for item in sealed if item is not None]
        with connections.connection(path) as file, file.writing(keys_module.to_bytes(name)) as head:
            if items:
                file.apply(head, count(head.number), items)
            file.forget_foreign(batch)
    if keys:
        logger.warning("%s: took over %d entries that another program has written", path, len(keys))


def _some(path: str, connections: Connections, keys: Iterator[Any]) -> dict[Any, Any]:
    """The next entries, until they are large enough together."""
    found, size = {}, 0
    with connections.connection(path) as file:
        for key in keys:
            found[key] = value = file.foreign_value(key)
            size += len(key) + len(value or b"")
            if size > BYTES_AT_ONCE:
                break
    return found


def _sealed(name: str, key: Any, value: Any, seal: Seal) -> tuple[bytes, Any] | None:
    if not is_key(key):
        logger.warning("%r holds the key %r, which shelve did not write; it is left alone", name, key)
        return None
    if value is None:
        return key, DELETE
    if type(value) is not bytes:
        value = str(value).encode()
    try:
        return key, seal(name, keys_module.from_bytes(key), value)
    except GlobalStateError as error:
        # Raised again when that key is read; the others are as good as they were.
        logger.warning("%r: an entry that another program has written can't be read: %s", name, error)
        return key, value + UNSIGNED
