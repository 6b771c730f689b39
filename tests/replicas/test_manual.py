"""Manual mode: what is cached of a name is of one revision."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import DecodingError, SharedDict
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.memory import REMOVALS_KEPT
from flask_globalstate.stores.shelve import ShelveStore
from tests.support import PATIENCE
from tests.support.workers import elsewhere, make_workers, store_of


@pytest.fixture
def manual() -> tuple[SharedDict[Any, Any], SharedDict[Any, Any], Any]:
    """A dict in manual mode, the same one elsewhere, and the store of the first; ``a`` is always ``b``."""
    state, other = make_workers(2)
    here, there = state.dict("DATA", sync="manual"), other.dict("DATA")
    there.update(a=0, b=0)
    assert here.copy() == {"a": 0, "b": 0}
    return here, there, store_of(state)


WRITES: dict[str, Callable[[SharedDict[Any, Any]], Any]] = {
    "item": lambda data: data.__setitem__("mine", 1),
    "item of both": lambda data: data.update(a=7, b=7),
    "del": lambda data: data.__delitem__("b") or data.__setitem__("b", data["a"]),
    "increment": lambda data: data.increment("n"),
    "setdefault": lambda data: data.setdefault("mine", 1),
    "apply": lambda data: data.apply("mine", lambda n: n + 1, 0),
    "compare_and_set": lambda data: data.compare_and_set("a", 99, 1),
    "several new": lambda data: data.update(z=1, y=2, x=3),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_brings_the_whole_name_to_its_revision(manual: Any, write: Callable[[Any], Any]) -> None:
    here, there, _ = manual
    elsewhere(there.update, a=1, b=1, theirs=1)
    write(here)
    found = here.copy()
    assert found["a"] == found["b"]
    here.sync()
    assert list(here.copy().items()) == list(found.items()) == list(elsewhere(there.copy).items())


def test_a_write_beside_another_workers_write_leaves_one_revision(manual: Any) -> None:
    here, there, store = manual
    elsewhere(there.update, a=1, b=1)
    store.after["fetch"] = lambda: elsewhere(there.update, a=8, b=8)
    here.update(a=7, b=7)
    assert here.copy() in ({"a": 7, "b": 7}, {"a": 8, "b": 8})


def test_a_write_of_one_key_does_not_load_all_of_a_large_name() -> None:
    state, other = make_workers(2)
    here, there = state.dict("DATA", sync="manual"), other.dict("DATA")
    there.update({str(n): n for n in range(1000)})
    assert len(here.copy()) == 1000
    store, asked = store_of(state), []
    real = store.fetch
    store.fetch = lambda name, keys=None: asked.append(keys) or real(name, keys)  # type: ignore[method-assign]
    here["5"] = -5
    here["new"] = 1
    here.pop("6")
    assert None not in asked
    assert here.copy() == elsewhere(there.copy)


def test_a_name_that_is_loaded_whole_is_whole_on_a_store_that_keeps_few_values(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path / "store", cache_size=10)
    data: SharedDict[Any, Any] = SharedDict("D", store, sync="manual")
    data.update({n: n for n in range(50)})
    other = ShelveStore(tmp_path / "store")
    theirs: SharedDict[Any, Any] = SharedDict("D", other)
    assert len(data.copy()) == 50
    theirs[3] = "new"
    assert data.copy() == {n: n for n in range(50)}
    assert data[3] == 3
    for one in (store, other):
        one.close()


def test_copies_of_threads_beside_own_writes_are_of_one_revision() -> None:
    state, other = make_workers(2)
    here, there = state.dict("DATA", sync="manual"), other.dict("DATA")
    there.update(a=0, b=0)
    torn: list[Any] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for found in (here.copy(), dict(here.items())):
                if found["a"] != found["b"]:
                    torn.append(found)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(1, 200):
        elsewhere(there.update, a=2 * n, b=2 * n)
        here["mine"] = n
        here.update(a=2 * n + 1, b=2 * n + 1)
    done.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert torn == []


def test_what_was_shown_newer_ends_the_base(manual: Any) -> None:
    here, there, _ = manual
    elsewhere(there.update, a=1, b=1)
    assert not here.compare_and_set("a", 99, 0)
    assert here.copy() == {"a": 1, "b": 1}


def test_a_new_key_that_was_shown_ends_the_base(manual: Any) -> None:
    here, there, _ = manual
    elsewhere(there.update, a=1, b=1, new={"n": 1})
    with here.edit("new") as shown:
        assert shown == {"n": 1}
    assert "new" in here
    assert here.copy() == {"a": 1, "b": 1, "new": {"n": 1}}


@pytest.fixture
def unreadable() -> Any:
    """As `manual`, with a key ``bad`` that can't be decoded, and known to be there."""
    state, other = make_workers(2)
    here, there = state.dict("DATA", sync="manual"), other.dict("DATA")
    there.update(a=0, b=0)
    store_of(other).commit([Write("DATA", "bad", b"garbage")])
    assert (here["a"], here["b"], list(here)) == (0, 0, ["a", "b", "bad"])
    with pytest.raises(DecodingError):
        here["bad"]
    return here, there, store_of(state)


def test_a_sync_beside_another_write_is_of_one_revision(manual: Any) -> None:
    here, there, store = manual
    elsewhere(there.update, a=1)
    store.before["fetch"] = lambda: elsewhere(there.update, a=2, b=2)
    here.sync()
    assert here.copy() in ({"a": 1, "b": 0}, {"a": 2, "b": 2})


def test_new_keys_beside_another_write_are_of_one_revision(manual: Any) -> None:
    here, there, store = manual
    elsewhere(there.update, x=1, y=1)
    store.before["keys"] = lambda: elsewhere(there.update, a=2, z=2)
    here.sync()
    assert ("z" in here) == (here["a"] == 2)
    assert {"x", "y"} <= here.keys()


def test_what_can_not_be_decoded_is_not_shown_as_it_was(manual: Any) -> None:
    here, _, store = manual
    store.commit([Write("DATA", "a", b"garbage")])
    here.sync()
    assert here["b"] == 0
    with pytest.raises(DecodingError):
        here["a"]


def test_what_others_have_removed_and_written_again_is_at_the_end(manual: Any) -> None:
    here, there, _ = manual
    elsewhere(there.pop, "a")
    elsewhere(there.update, a=5)
    here.sync()
    assert list(here.copy().items()) == [("b", 0), ("a", 5)]


def test_a_sync_that_the_log_does_not_reach_back_for_loads_all(manual: Any) -> None:
    here, there, _ = manual

    def change() -> None:
        there.update({f"key {n}": n for n in range(REMOVALS_KEPT + 1)}, a=5)
        del there["b"]
        for n in range(REMOVALS_KEPT + 1):
            del there[f"key {n}"]

    elsewhere(change)
    here.sync()
    assert here.copy() == {"a": 5}


def test_to_read_what_can_not_be_decoded_does_not_load_the_rest_again(unreadable: Any) -> None:
    here, _, store = unreadable
    store.asked.clear()
    assert (here["a"], here["b"], len(here)) == (0, 0, 3)
    assert store.asked == []


def test_what_can_be_decoded_by_now_brings_the_whole_name_to_its_revision(unreadable: Any) -> None:
    here, there, _ = unreadable
    elsewhere(there.update, a=1, b=1, bad="good")
    assert here["bad"] == "good"
    assert here.copy() == {"a": 1, "b": 1, "bad": "good"}


def test_what_could_not_be_decoded_and_is_gone_brings_the_whole_name_to_its_revision(unreadable: Any) -> None:
    here, there, _ = unreadable

    def change() -> None:
        there.update(a=1, b=1)
        del there["bad"]

    elsewhere(change)
    with pytest.raises(KeyError):
        here["bad"]
    assert "bad" not in here
    assert here.copy() == {"a": 1, "b": 1}
