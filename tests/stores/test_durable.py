"""Stores in the manner of durabledict: when they are loaded again, what they refuse, two processes on one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    ConflictError,
    DecodingError,
    DurableStore,
    GlobalState,
    JSONEncoding,
    SharedDict,
    SignatureError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from flask_globalstate.stores.base import Store
from flask_globalstate.stores.durable import ReloadedStore
from flask_globalstate.testing import DictSuite
from tests.support import PATIENCE, environment
from tests.support.authors import AtomicFileStore, FileStore


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


class Shelf:
    """What the objects of several workers share, and what they were asked."""

    def __init__(self) -> None:
        self.items: dict[str, Any] = {}
        self.number = 0
        self.asked: list[str] = []


class MemoryDict(DurableStore):
    """As durabledict's own; ``last_updated`` is a count of the writes."""

    def __init__(self, name: str, shelf: Shelf) -> None:
        super().__init__(name)
        self.shelf = shelf

    def persist(self, key: str, value: Any) -> None:
        self.shelf.asked.append("persist")
        self.shelf.items[key] = value
        self.shelf.number += 1

    def depersist(self, key: str) -> None:
        self.shelf.asked.append("depersist")
        del self.shelf.items[key]
        self.shelf.number += 1

    def durables(self) -> dict[str, Any]:
        self.shelf.asked.append("durables")
        return dict(self.shelf.items)

    def last_updated(self) -> Any:
        self.shelf.asked.append("last_updated")
        return self.shelf.number


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def worker(shelf: Shelf, kind: type[Any] = MemoryDict, **options: Any) -> Any:
    """The dict of another worker."""
    named = {
        key: options.pop(key) for key in ("sync", "initial", "encoding", "old_encoding") if key in options
    }
    return SharedDict("DATA", ReloadedStore(kind, shelf=shelf, **options), secret=b"secret", **named)


def asked(shelf: Shelf) -> list[str]:
    """What was asked since the last time."""
    found, shelf.asked = shelf.asked, []
    return found


# --- when it is loaded --------------------------------------------------------------------------


def test_a_read_that_finds_nothing_changed_loads_nothing(shelf: Shelf) -> None:
    ours, theirs = worker(shelf), worker(shelf)
    ours.update(a=1, b=[2])
    assert theirs["a"] == 1
    asked(shelf)
    held = theirs["b"]
    assert theirs["b"] is held
    assert asked(shelf) == ["last_updated"] * 2
    ours["a"] = 5
    asked(shelf)
    assert theirs["a"] == 5
    assert asked(shelf) == ["last_updated", "durables"]
    # What has not changed is not decoded again.
    assert theirs["b"] is held


def test_in_a_request_it_is_asked_once(shelf: Shelf) -> None:
    state = GlobalState.from_config(
        {"STORE_BACKEND": MemoryDict, "STORE_OPTIONS": {"shelf": shelf}, "STORE_ENCODING": "json"}
    )
    data, other = state.dict("DATA"), state.dict("OTHER")
    theirs = SharedDict("DATA", ReloadedStore(MemoryDict, shelf=shelf), encoding="json")
    theirs["a"] = 1
    with state.request():
        assert data["a"] == 1
        theirs["a"] = 2
        asked(shelf)
        assert (data["a"], len(data), list(data), dict(data)) == (1, 1, ["a"], {"a": 1})
        assert asked(shelf) == []
        data["b"] = 5
        assert data["b"] == 5
    with state.request():
        assert data["a"] == 2
        assert "a" in other
        assert data["a"] == 2
        assert asked(shelf).count("durables") == 2
    theirs["a"] = 3
    assert data["a"] == 3


def test_manual_is_loaded_at_first_use_and_by_sync(shelf: Shelf) -> None:
    ours, theirs = worker(shelf, sync="manual"), worker(shelf)
    theirs["a"] = 1
    assert ours["a"] == 1
    theirs.update(a=2, b=2)
    asked(shelf)
    assert (ours["a"], ours.get("b"), dict(ours)) == (1, None, {"a": 1})
    assert asked(shelf) == []
    assert ours._replica.row == ours._replica.remembered
    ours["c"] = 3
    assert ours["c"] == 3
    ours.sync(sender="a signal")
    assert dict(ours) == {"a": 2, "b": 2, "c": 3}


def test_a_write_in_manual_mode_shows_what_others_have_written_before_it(shelf: Shelf) -> None:
    ours, theirs = worker(shelf, sync="manual"), worker(shelf)
    theirs.update(a=1, b=1)
    assert dict(ours) == {"a": 1, "b": 1}
    theirs.update(a=2, b=2)
    ours["b"] = 3
    # Not {"a": 1, "b": 3}, which never was.
    assert (ours["a"], ours.copy()) == (2, {"a": 2, "b": 3})
    theirs["a"] = 4
    asked(shelf)
    assert (ours["a"], ours["b"], dict(ours)) == (2, 3, {"a": 2, "b": 3})
    assert asked(shelf) == []
    for write in (lambda: ours.pop("b"), lambda: ours.setdefault("b", 5), ours.clear):
        write()
        assert dict(ours) == dict(theirs)


def test_many_writes_in_manual_mode_load_once(shelf: Shelf) -> None:
    ours = worker(shelf, sync="manual")
    assert dict(ours) == {}
    asked(shelf)
    for number in range(10):
        ours[str(number)] = number
    assert len(ours) == 10
    assert asked(shelf).count("durables") == 1


def test_a_write_while_it_is_loaded_is_seen_by_the_next_read(shelf: Shelf) -> None:
    ours, theirs = worker(shelf), worker(shelf)
    theirs["a"] = 1

    class Late(MemoryDict):
        def durables(self) -> dict[str, Any]:
            found = super().durables()
            if "b" not in self.shelf.items:
                theirs["b"] = 2
            return found

    late = worker(shelf, Late)
    assert late["a"] == 1
    assert late["b"] == 2
    assert ours["b"] == 2


def test_what_is_updated_at_an_unknown_time_is_loaded_each_time(shelf: Shelf) -> None:
    class Unknown(MemoryDict):
        def last_updated(self) -> Any:
            return None

    ours, theirs = worker(shelf, Unknown), worker(shelf)
    for n in range(3):
        theirs["a"] = n
        assert ours["a"] == n


def test_an_update_that_goes_back_is_a_change(shelf: Shelf) -> None:
    ours, theirs = worker(shelf), worker(shelf)
    theirs["a"] = 1
    assert ours["a"] == 1
    shelf.items.clear()
    shelf.number = 0
    assert dict(ours) == {}


def test_what_a_new_object_holds_is_loaded_whatever_it_says_of_its_last_update(shelf: Shelf) -> None:
    class Fresh(MemoryDict):
        def last_updated(self) -> Any:
            return 0  # Counted by each object for itself.

        def close(self) -> None: ...

    store = ReloadedStore(Fresh, shelf=shelf)
    data = SharedDict[Any, Any]("DATA", store, initial={"a": 1})
    assert dict(data) == {"a": 1}
    shelf.items["b"] = b"2i"
    store.close()
    assert dict(data) == {"a": 1, "b": 2}


def test_a_write_that_fails_is_not_believed(shelf: Shelf) -> None:
    class Failing(MemoryDict):
        def persist(self, key: str, value: Any) -> None:
            super().persist(key, value)
            self.shelf.number -= 1
            raise OSError("cut off")

    ours, theirs = worker(shelf, Failing), worker(shelf)
    assert dict(ours) == {}
    with pytest.raises(OSError, match="cut off"):
        ours["a"] = 1
    assert ours["a"] == 1
    assert dict(theirs) == {"a": 1}


def test_reads_go_on_for_a_while_when_the_store_is_down(shelf: Shelf) -> None:
    class Down(MemoryDict):
        def last_updated(self) -> Any:
            if self.shelf.number < 0:
                raise StoreUnavailableError("down")
            return super().last_updated()

    settings = {"STORE_BACKEND": Down, "STORE_OPTIONS": {"shelf": shelf}}
    strict = GlobalState.from_config(settings).dict("DATA")
    patient = GlobalState.from_config({**settings, "STORE_STALE_IF_DOWN": 60}).dict("DATA")
    strict["a"] = patient["b"] = 1
    assert (dict(strict), dict(patient)) == ({"a": 1, "b": 1},) * 2
    shelf.number = -1
    assert patient["a"] == 1
    with pytest.raises(StoreUnavailableError):
        strict["a"]
    with pytest.raises(StoreUnavailableError):
        GlobalState.from_config(settings)


# --- what it is given ---------------------------------------------------------------------------


def test_what_is_persisted_is_encoded_and_signed_bytes(shelf: Shelf) -> None:
    ours = worker(shelf)
    ours.update({"a": "text", 1: None})
    assert {type(value) for value in shelf.items.values()} == {bytes}
    assert list(shelf.items) == ["a", "\0i1"]
    assert dict(worker(shelf)) == {"a": "text", 1: None}
    shelf.items["\0i1"] = shelf.items["a"]
    shelf.number += 1
    with pytest.raises(SignatureError):
        ours[1]


def test_one_entry_that_cant_be_decoded_breaks_no_other(shelf: Shelf) -> None:
    ours = worker(shelf)
    ours.update(a=1, b="text", c=3)
    shelf.items["b"] = b"damaged"
    shelf.number += 1
    theirs = worker(shelf)
    with pytest.raises(DecodingError, match="'b'"):
        theirs["b"]
    assert (theirs["a"], theirs["c"], len(theirs), list(theirs), "b" in theirs) == (
        1,
        3,
        3,
        ["a", "b", "c"],
        True,
    )
    for use in (lambda: dict(theirs), lambda: theirs.pop("b"), lambda: theirs.setdefault("b", 1)):
        with pytest.raises(DecodingError):
            use()
    del theirs["b"]
    assert dict(ours) == {"a": 1, "c": 3}
    with pytest.raises(KeyError):
        del theirs["b"]


def test_an_old_encoding_is_read_while_moving_to_another(shelf: Shelf) -> None:
    worker(shelf)["a"] = [1]
    moving = worker(shelf, encoding=JSONEncoding(), old_encoding="pickle")
    assert moving["a"] == [1]
    moving["a"] = [2]
    assert worker(shelf, encoding="json")["a"] == [2]


def test_pickles_need_a_secret_key(shelf: Shelf) -> None:
    settings = {"STORE_BACKEND": MemoryDict, "STORE_OPTIONS": {"shelf": shelf}}
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        GlobalState.from_config(settings).dict("DATA")["a"] = "text"
    assert shelf.items == {}
    for way_out in (
        {"STORE_SECRET_KEY": "s"},
        {"STORE_ENCODING": "json"},
        {"STORE_OPTIONS": {"shelf": shelf, "unsigned_pickles": True}},
    ):
        data = GlobalState.from_config({**settings, **way_out}).dict(repr(way_out))
        data["a"] = "text"
        assert data.pop("a") == "text"


def test_a_class_that_encodes_by_itself_is_given_the_values(shelf: Shelf) -> None:
    class Own(MemoryDict):
        holds_objects = True

        def _pop(self, key: str, default: Any) -> Any:
            self.shelf.number += 1
            return self.shelf.items.pop(key, default)

    ours, theirs = worker(shelf, Own), worker(shelf, Own)
    thing = object()
    ours.update(a=thing, b=None)
    assert shelf.items == {"a": thing, "b": None}
    assert theirs["a"] is thing
    assert theirs["b"] is None
    assert theirs.pop("b", 5) is None
    assert theirs.pop("b", 5) == 5
    assert GlobalState.from_config(
        {"STORE_BACKEND": Own, "STORE_OPTIONS": {"shelf": shelf}, "STORE_ENCODING": "noop"}
    ).dict("DATA") == {"a": thing}


class Upper(MemoryDict):
    """Stores something else than it is given, as a class does that has an encoding of its own."""

    holds_objects = True

    def persist(self, key: str, value: Any) -> None:
        super().persist(key, [str(item).upper() for item in value])

    def durables(self) -> dict[str, Any]:
        return {key: list(value) for key, value in super().durables().items()}

    def last_updated(self) -> Any:
        super().last_updated()
        return "today"  # As of a file on a disk that knows whole seconds.


@pytest.mark.parametrize("is_request", [False, True])
@pytest.mark.parametrize("sync", ["request", "read", "manual"])
def test_a_write_is_shown_as_a_class_that_encodes_by_itself_has_stored_it(
    shelf: Shelf, sync: str, is_request: bool
) -> None:
    settings = {"STORE_BACKEND": Upper, "STORE_OPTIONS": {"shelf": shelf}, "STORE_SYNC": sync}
    state = GlobalState.from_config(settings)
    data, mine = state.dict("DATA"), ["a"]
    writes: list[Callable[[], Any]] = [
        lambda: data.__setitem__("k", mine),
        lambda: data.update(k=mine),
        lambda: (data.pop("k"), data.setdefault("k", mine)),
    ]
    with state.request() if is_request else nullcontext():
        assert dict(data) == {}
        for write in writes:
            write()
            for found in (
                data.get("k"),
                data.copy()["k"],
                dict(data.items())["k"],
                next(iter(data.values())),
            ):
                assert found == ["A"]
                assert found is not mine
        mine.append("b")
        assert data["k"] == ["A"]
    other = state.value("OTHER")
    with state.request() if is_request else nullcontext():
        assert other.value is None
        other.value = mine
        assert other.value == ["A", "B"]


@pytest.mark.parametrize("sync", ["request", "read", "manual"])
def test_a_write_that_fails_is_looked_up_in_every_mode(shelf: Shelf, sync: str) -> None:
    class Failing(MemoryDict):
        def persist(self, key: str, value: Any) -> None:
            super().persist(key, value)
            self.shelf.number -= 1
            raise OSError("cut off")

    settings = {"STORE_BACKEND": Failing, "STORE_OPTIONS": {"shelf": shelf}, "STORE_ENCODING": "json"}
    state = GlobalState.from_config({**settings, "STORE_SYNC": sync})
    data = state.dict("DATA")
    with state.request():
        assert dict(data) == {}
        with pytest.raises(OSError, match="cut off"):
            data["a"] = 1
        assert data["a"] == 1


# --- what it refuses, and what it is given for that ---------------------------------------------


def test_a_private_one_counts(shelf: Shelf) -> None:
    class Private(MemoryDict):
        shared = False

    ours = worker(shelf, Private)
    assert (ours.increment("n"), ours.increment("n", 5), ours.compare_and_set("n", 6, 7)) == (1, 6, True)
    ours["s"] = "text"
    with pytest.raises(TypeError):
        ours.increment("s")
    assert dict(ours) == {"n": 7, "s": "text"}


def test_a_nested_change_is_a_write_where_it_can_be_atomic_and_else_refused(shelf: Shelf) -> None:
    class Private(MemoryDict):
        shared = False

    store = ReloadedStore(Private, shelf=shelf)
    first, second = (SharedDict[Any, Any]("DATA", store, secret=b"s") for _ in range(2))
    first["list"] = [1]
    held = first["list"]
    held.append(2)
    assert first["list"] is held
    second["list"].append({"a": []})
    first["list"][2]["a"].append(3)
    assert first["list"] == second["list"] == [1, 2, {"a": [3]}]
    first["list"] += [4]
    with second.edit("list") as value:
        value.append(5)
    assert first["list"] == [1, 2, {"a": [3]}, 4, 5]

    def lose() -> None:
        with second.edit("list") as value:
            value.append(6)
            first["list"] = []

    with pytest.raises(ConflictError, match="'list'"):
        lose()
    assert second.apply("list", lambda value: [*value, 7]) == [7]
    assert first.pop("list") == [7]

    shared = worker(shelf)
    shared["list"] = [1]
    for change in (
        lambda: shared["list"].append(2),
        lambda: shared.apply("list", lambda value: [*value, 2]),
        lambda: shared.edit("list").__enter__(),
    ):
        with pytest.raises(UnsupportedOperationError, match="MemoryDict"):
            change()
    assert shared["list"] == [1]
    assert worker(shelf)["list"] == [1]


def test_nothing_is_refused_after_something_was_written(shelf: Shelf) -> None:
    ours = worker(shelf)
    asked(shelf)
    with pytest.raises(UnsupportedOperationError, match="MemoryDict"):
        ours.increment("n")
    with pytest.raises(TypeError):
        ours.increment([])
    assert asked(shelf) == []


class Atomic(MemoryDict):
    """Another worker comes before each of the optional methods."""

    def _setdefault(self, key: str, value: Any) -> Any:
        self.shelf.number += 1
        self.shelf.items.setdefault(key, b"5i")
        return self.shelf.items.setdefault(key, value)

    def _pop(self, key: str, default: Any = None) -> Any:
        self.shelf.number += 1
        self.shelf.items.pop(key, None)
        return self.shelf.items.pop(key, default)


class AsDurabledict(Atomic):
    """durabledict's own raise for a missing key where the default is false."""

    def _pop(self, key: str, default: Any = None) -> Any:
        found = super()._pop(key, default)
        if not found:
            raise KeyError(key)
        return found


@pytest.mark.parametrize("kind", [Atomic, AsDurabledict])
def test_the_optional_methods_decide_when_another_worker_comes_between(shelf: Shelf, kind: type[Any]) -> None:
    ours = worker(shelf, kind)
    assert ours.setdefault("a", 1) == 5
    assert ours.pop("a", "gone") == "gone"
    with pytest.raises(KeyError):
        ours.pop("a")
    assert dict(worker(shelf, kind, initial={"b": 1})) == {"b": 5}


def test_popitem_gives_what_no_other_worker_has_taken(shelf: Shelf) -> None:
    class Contended(MemoryDict):
        def _pop(self, key: str, default: Any = None) -> Any:
            found = self.shelf.items.pop(key)
            self.shelf.number += 1
            return default if key == "c" else found  # Another worker has come first.

    ours = worker(shelf, Contended)
    ours.update(a=1, b=2, c=3)
    assert ours.popitem() == ("b", 2)
    assert dict(ours) == {"a": 1}


# --- last_updated in a cache --------------------------------------------------------------------


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


# --- processes ----------------------------------------------------------------------------------

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
