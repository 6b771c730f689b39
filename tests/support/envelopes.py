"""Envelopes, and a value that tells when it is unpickled."""

from __future__ import annotations

import pickle
from typing import Any

from flask_globalstate.values.encodings import PickleEncoding
from flask_globalstate.values.envelope import (
    Envelope,
)

NAME, KEY = "DATA", "key"


fired: list[str] = []


def fire(word: str) -> None:
    """What a bomb does when it is unpickled."""
    fired.append(word)


class Bomb:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fire, ("unpickled",)


BOMB = pickle.dumps(Bomb())


def envelope(*secrets: bytes, state_id: str = "state", encoding: Any = None, **options: Any) -> Envelope:
    return Envelope(
        encoding or PickleEncoding(), state_id=state_id, secrets=lambda: secrets or (b"secret",), **options
    )


def sealed_bomb() -> bytes:
    """A bomb with a right signature, made past the check that `PickleEncoding.encode` makes."""

    class Raw(PickleEncoding):
        def encode(self, value: Any) -> bytes:
            return BOMB

    return envelope(encoding=Raw()).seal(NAME, KEY, None)
