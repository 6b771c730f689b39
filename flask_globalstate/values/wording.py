"""How messages name types."""

from __future__ import annotations

from typing import Any


def article(word: str) -> str:
    """The word with its article, by its first letter: ``an int``, ``a UUID``."""
    return f"{'an' if word[0] in 'aeioAEIO' else 'a'} {word}"


def kind_of(thing: Any) -> str:
    """The type of an object with its article and its module: ``an int``, ``a _thread.lock``."""
    kind = type(thing)
    is_plain = kind.__module__ in ("builtins", "__main__") or kind.__module__.startswith("flask_globalstate.")
    return article(kind.__qualname__ if is_plain else f"{kind.__module__}.{kind.__qualname__}")


def is_told(times: int) -> bool:
    """Whether something is told that has happened so many times: the 1st, 2nd, 4th, 8th time, and so on."""
    return times & (times - 1) == 0
