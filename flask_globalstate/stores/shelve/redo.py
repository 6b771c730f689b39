"""The batch and the conditions of a commit; and the redo record of one over several names."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from ...errors import StoreUnavailableError, UnsupportedOperationError
from ...values import keys
from ...values.revision import Revision
from ..base import ABSENT, CHECK, DELETE, Expected, Write

#: keys with what to store under them, or `DELETE`
Items = list[tuple[bytes, Any]]
#: what is written to each name
Batch = dict[str, Items]
#: a key, or None for the whole name, and what it must be at
Condition = tuple[str | None, Expected]

#: the longest row that SQLite takes, less some room for what is around key and value
LARGEST = 1_000_000_000 - 1000
CHECKSUM_SIZE = 9


def batch_of(writes: Sequence[Write]) -> Batch:
    """The batch that writes make, name by name.

    :raises UnsupportedOperationError: if a value is too large.
    """
    batch: Batch = {}
    for name, key, data, _ in writes:
        if data is CHECK:
            continue
        raw = keys.to_bytes(key)
        if data is not DELETE and len(raw) + len(data) > LARGEST:
            raise UnsupportedOperationError(
                f"key {key!r:.100} of {name!r} has {len(data)} bytes; ShelveStore takes keys and values of "
                f"up to {LARGEST} bytes together"
            )
        batch.setdefault(name, []).append((raw, data))
    return batch


def conditions_of(writes: Sequence[Write], names: Mapping[str, Expected]) -> dict[str, list[Condition]]:
    """The conditions on each name."""
    conditions: dict[str, list[Condition]] = {name: [(None, expected)] for name, expected in names.items()}
    for name, key, _, expected in writes:
        if expected is ABSENT or isinstance(expected, Revision):
            conditions.setdefault(name, []).append((key, expected))
    return conditions


def encode(number: int, batch: Batch) -> bytes:
    """The redo record of a batch, to be committed under that number."""
    names = [
        [
            name,
            [[key.hex(), None if data is DELETE else base64.b64encode(data).decode()] for key, data in items],
        ]
        for name, items in batch.items()
    ]
    text = json.dumps([number, names]).encode()
    return b"%08x\n" % crc32(text) + text


def decode(data: bytes, path: object) -> tuple[int, Batch]:
    """The number and batch of a redo record; no batch if the power failed before it was on the disk.

    :param path: where it was found.
    :raises StoreUnavailableError: if it is damaged.
    """
    if not data.strip(b"\0"):
        return 0, {}
    text = data[CHECKSUM_SIZE:]
    if data[:CHECKSUM_SIZE] != b"%08x\n" % crc32(text):
        raise StoreUnavailableError(
            f"{path} is damaged; it holds a commit over several names that was under way. If it is removed, "
            "some of these names may hold what was committed, and others not"
        )
    number, names = json.loads(text)
    return number, {
        name: [
            (bytes.fromhex(key), DELETE if data is None else base64.b64decode(data)) for key, data in items
        ]
        for name, items in names
    }
