"""Stores in the manner of durabledict: the laws, a time of update in a cache, two processes on one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    DurableStore,
    GlobalState,
    SharedDict,
)
from flask_globalstate.stores.base import Store
from flask_globalstate.stores.durable import ReloadedStore
from flask_globalstate.testing import DictSuite
from tests.support import PATIENCE, environment
from tests.support.authors import AtomicFileStore, FileStore
from tests.support.durables import Shelf, asked, worker


class TestFile(DictSuite):
    lacks = frozenset({"atomic", "revisions"})

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: ReloadedStore(FileStore, folder=tmp_path)


@pytest.mark.slow
class TestFileWithTheOptionalMethods(DictSuite):
    lacks = frozenset({"atomic", "revisions"})

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: ReloadedStore(AtomicFileStore, folder=tmp_path)


# --- last_updated in a cache ----------------------------------------------------------------------


class Memcache:
    """As a memcache client: ``incr`` of what is missing raises in some, and gives None in others."""

    def __init__(self, missing: type[Exception] | None = None) -> None:
        self.held: dict[str, int] = {}
        self.missing = missing

    def add(self, key: str, value: int) -> bool:
        assert len(key) <= 250
        assert key.isascii()
        assert " " not in key
        return key not in self.held and self.held.setdefault(key, value) is value

    def incr(self, key: str) -> int | None:
        if key not in self.held:
            if self.missing is not None:
                raise self.missing(key)
            return None
        self.held[key] += 1
        return self.held[key]

    def get(self, key: str) -> int | None:
        return self.held.get(key)


class Cached(DurableStore):
    """Three methods; the fourth is the cache's."""

    def __init__(self, name: str, shelf: Shelf, cache: Any = None) -> None:
        super().__init__(name, cache=cache)
        self.shelf = shelf

    def persist(self, key: str, value: Any) -> None:
        self.shelf.items[key] = value

    def depersist(self, key: str) -> None:
        del self.shelf.items[key]

    def durables(self) -> dict[str, Any]:
        self.shelf.asked.append("durables")
        return dict(self.shelf.items)


@pytest.mark.parametrize("missing", [None, ValueError, KeyError])
def test_last_updated_is_kept_in_a_cache(shelf: Shelf, missing: Any) -> None:
    cache = Memcache(missing)
    ours, theirs = worker(shelf, Cached, cache=cache), worker(shelf, Cached, cache=cache)
    ours["a"] = 1
    assert theirs["a"] == 1
    asked(shelf)
    assert theirs["a"] == 1
    assert asked(shelf) == []
    ours["a"] = 5
    assert theirs["a"] == 5
    ours["a"] = 1
    cache.held.clear()  # It was evicted.
    assert theirs["a"] == 1
    ours["a"] = 2
    assert theirs["a"] == 2
    cache.held.clear()
    ours["a"] = 3
    assert theirs["a"] == 3
    asked(shelf)
    assert theirs["a"] == 3
    assert asked(shelf) == []
    del ours["a"]
    assert dict(theirs) == {}


@pytest.mark.parametrize("name", ["a b", "x" * 1000, "naïve ☃\n", "\ud800"])
def test_any_name_has_a_key_in_the_cache(shelf: Shelf, name: str) -> None:
    cache = Memcache()
    stores = [ReloadedStore(Cached, shelf=shelf, cache=cache) for _ in range(2)]
    ours, theirs = (SharedDict[Any, Any](name, store, secret=b"s") for store in stores)
    ours["a"] = 1
    assert theirs["a"] == 1


def test_a_class_without_last_updated_needs_a_cache(shelf: Shelf) -> None:
    settings: dict[str, Any] = {"STORE_BACKEND": Cached, "STORE_OPTIONS": {"shelf": shelf}}
    with pytest.raises(ConfigurationError, match=r"Cached.*last_updated.*cache"):
        GlobalState.from_config(settings)
    settings["STORE_OPTIONS"]["cache"] = Memcache()
    GlobalState.from_config(settings)


# --- processes ------------------------------------------------------------------------------------


WORKER = """
import sys
from flask_globalstate import GlobalState

state = GlobalState.from_config({
    "STORE_BACKEND": f"tests.support.authors:{sys.argv[2]}",
    "STORE_OPTIONS": {"folder": sys.argv[1]},
    "STORE_ENCODING": "json",
})
data = state.dict("DATA", initial={"first": None})
mine = sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
for n in range(100):
    data[f"{mine} {n}"] = [mine, n]
    assert data[f"{mine} {n}"] == [mine, n]
winners = [data.setdefault(f"winner {n}", mine) for n in range(100)]
taken = [n for n in range(100) if data.pop(f"prize {n}", None) is not None]
print(repr((winners, taken)), flush=True)
sys.stdin.readline()
print(repr(dict(data)))
"""


def start_worker(folder: Path, kind: str, mine: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), kind, mine],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(workers: list[subprocess.Popen[str]]) -> list[str]:
    """Let all go on at once, and give the next line of each."""
    for each in workers:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    return [each.stdout.readline() for each in workers if each.stdout is not None]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FileStore", "AtomicFileStore"])
def test_two_processes_share_a_file(tmp_path: Path, kind: str) -> None:
    store = ReloadedStore(FileStore, folder=tmp_path)
    ours = SharedDict[Any, Any]("DATA", store, encoding="json")
    ours.update({f"prize {n}": n for n in range(100)})
    workers = [start_worker(tmp_path, kind, mine) for mine in ("one", "two")]
    try:
        assert [each.stdout.readline() for each in workers if each.stdout] == ["ready\n"] * 2
        (winners, taken), (their_winners, also_taken) = map(eval, tell(workers))
        if kind == "AtomicFileStore":
            assert winners == their_winners
            assert sorted([*taken, *also_taken]) == list(range(100))
        contents = [eval(line) for line in tell(workers)]
    finally:
        for each in workers:
            each.communicate(timeout=PATIENCE)
    expected = {f"{mine} {n}": [mine, n] for mine in ("one", "two") for n in range(100)}
    assert {key: value for key, value in ours.items() if not key.startswith("winner")} == expected
    # Its first use found something, so that the initial content was not put in.
    assert contents[0] == contents[1] == dict(ours)
    store.close()
