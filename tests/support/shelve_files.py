"""Shelves that others write and read."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress


def open_files() -> Iterator[str]:
    """The files that this process has open."""
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # The one by which this is read.
            yield os.readlink(f"/proc/self/fd/{number}")


def damages(content: bytes, count: int) -> Iterator[bytes]:
    """The same with a bit flipped, cut, or with some bytes of it lost."""
    chance = random.Random(len(content))
    telling = [place for place, byte in enumerate(content) if byte] or [0]
    for number in range(count):
        damaged = bytearray(content)
        place = chance.choice(telling) if number % 8 else chance.randrange(len(content))
        if number % 5 == 4:
            damaged = damaged[:place]
        elif number % 5 == 3:
            damaged[place : place + 64] = bytes(64)
        else:
            damaged[place] ^= 1 << chance.randrange(8)
        yield bytes(damaged)
