"""Damage to bytes, and what may come of it: the right answer or one of our errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from flask_globalstate import GlobalStateError

#: seconds in which anything must be answered, or refused
HANG = 120.0
EXAMPLES = 150
fuzzed = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Refused(NamedTuple):
    """What stands for an answer where there was one of our errors."""

    error: GlobalStateError


def attempt(act: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or that it was refused; any other error is a failure of the test."""
    began = time.monotonic()
    try:
        return act(*arguments)
    except GlobalStateError as error:
        return Refused(error)
    finally:
        assert time.monotonic() - began < HANG, "it hangs"


class Damage(NamedTuple):
    """Something done to bytes: one is changed, or some are cut out or put in."""

    kind: str
    place: int
    length: int
    mask: int

    def apply(self, data: bytes) -> bytes:
        """The bytes with it."""
        place = self.place % max(1, len(data))
        if self.kind == "flip":
            return data[:place] + bytes([data[place] ^ self.mask]) + data[place + 1 :] if data else b""
        if self.kind == "cut":
            return data[:place] + data[place + self.length :]
        if self.kind == "end":
            return data[:place]
        return data[:place] + bytes([self.mask]) * self.length + data[place:]


damages = st.builds(
    Damage,
    kind=st.sampled_from(["flip", "flip", "flip", "cut", "end", "put in"]),
    place=st.integers(0, 1 << 20),
    length=st.integers(1, 64),
    mask=st.integers(1, 255),
)
