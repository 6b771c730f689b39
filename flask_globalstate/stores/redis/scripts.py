"""The Lua scripts beside this file, and the formats of what they take and answer.

``prelude.lua`` says how the data lies.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from ...values import keys as keys_module
from ..base import ABSENT, Entry, Expected

REVISION_SIZE = 8
#: what scripts begin with, where it is not ``prelude.lua``
BEGINNINGS = {"epoch": "", "settle": "", "put": "one_name.lua", "increment": "one_name.lua"}


class Script:
    """A Lua script beside this file, and the SHA1 by which a server remembers it."""

    def __init__(self, name: str) -> None:
        folder = resources.files(__package__)
        beginning = BEGINNINGS.get(name, "prelude.lua")
        parts = [part for part in (beginning, f"{name}.lua") if part]
        self.text = "".join((folder / part).read_text("utf-8") for part in parts).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


COMMIT, PUT, INCREMENT, FETCH, CHANGES, REVISIONS, EPOCH, REPAIR, RESOLVE = map(
    Script, ["commit", "put", "increment", "fetch", "changes", "revisions", "epoch", "mend", "settle"]
)


def state_key(state_id: str) -> bytes:
    """The key that a state's own record lies under; every other key of the state begins so."""
    return keys_module.to_bytes(f"flask_globalstate:{{{state_id}}}")


def condition(expected: Expected) -> bytes:
    """The revision that a write depends on, as scripts take it."""
    return b"absent" if expected is ABSENT else b"%d" % expected.number


def decimal(number: int) -> bytes:
    """An integer to add, as scripts take it."""
    # More digits than a script takes are not worth formatting; any such text means "too large".
    return b"%d" % number if number.bit_length() < 64 else b"9" * 20


def entry(held: bytes) -> Entry:
    """The entry that is held under a key: its revision, then its data."""
    if len(held) < REVISION_SIZE or held[0]:
        return Entry(held, 0)  # No revision is so large: another program has written this.
    return Entry(held[REVISION_SIZE:], int.from_bytes(held[:REVISION_SIZE], "big"))


def entries(flat: list[bytes]) -> dict[str, Entry]:
    """The entries of a list of keys, each followed by what is held under it."""
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {keys_module.from_bytes(key): entry(held) for key, held in pairs}


def scores(flat: list[bytes]) -> dict[str, int]:
    """The numbers of a list of keys, each followed by the number of a commit.

    :raises ValueError: if one is no number.
    """
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {keys_module.from_bytes(key): int(score) for key, score in pairs}
