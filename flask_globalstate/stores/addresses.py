"""The part of a server's address that may be shown: in messages, in the log, anywhere."""

from __future__ import annotations

import re

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=://)", re.IGNORECASE)
#: a name, an address of IPv4, or one of IPv6
HOST = re.compile(r"[\w.-]+|[0-9a-f:]*:[0-9a-f:.]*(?:%[\w.-]+)?", re.IGNORECASE)
CLEAR = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)"
    r"(?:[^/?#]*@)?"
    rf"(?P<place>(?:[\w.-]+|\[(?:{HOST.pattern})\])(?::[0-9]+)?|)"
    r"(?P<path>(?:/[^?#@]*)?)"
    r"(?:\?[^#@]*)?(?:\#[^@]*)?",
    re.IGNORECASE,
)


def is_clear(url: str) -> bool:
    """Return whether a URL can be read in one way only, so that no part of a password passes for another.

    In one that is, the characters ``@``, ``/``, ``?`` and ``#`` of a user name or password are escaped.
    """
    return CLEAR.fullmatch(url) is not None


def shown(url: str) -> str:
    """A URL as it may stand in a message: scheme, host, port, path; of one that is not clear, the scheme."""
    clear = CLEAR.fullmatch(url)
    if clear is not None:
        return f"{clear['scheme']}{clear['place']}{clear['path']}"
    scheme = SCHEME.match(url)
    return f"{scheme[0]}://..." if scheme is not None else "..."
