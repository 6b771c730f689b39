"""A module as it was written before there were several workers.

What it does to its globals loses nothing in one process with threads: no other thread comes between reading
an int or a tuple and binding the name again.
"""

HITS = 0
TRAIL: tuple[str, ...] = ()
LAST = ""


def hit() -> None:
    """Count."""
    global HITS
    HITS += 1


def trail(one: str) -> None:
    """Append to what is bound anew each time."""
    global TRAIL
    TRAIL += (one,)


def last(one: str) -> None:
    """Bind what nobody depends on."""
    global LAST
    LAST = one


def peek() -> int:
    """Look, and bind nothing."""
    return len(TRAIL)
