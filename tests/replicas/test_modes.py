"""`manual` mode: what was loaded stays right, whatever fails or happens beside it. `request` mode: reads that
never go back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import DecodingError, SharedDict, StoreUnavailableError
from flask_globalstate.state.state import State
from flask_globalstate.stores.base import Write
from flask_globalstate.stores.memory import REMOVALS_KEPT
from flask_globalstate.stores.shelve import ShelveStore
from tests.support.workers import elsewhere, make_workers, store_of

#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 240


class Workers:
    """Two workers on one store; the first has loaded the name."""

    def __init__(self, folder: Path) -> None:
        self.store, self.other = ShelveStore(str(folder)), ShelveStore(str(folder))
        self.data: SharedDict[Any, Any] = SharedDict("D", self.store, sync="manual")
        self.theirs: SharedDict[Any, Any] = SharedDict("D", self.other)
        self.theirs.update(a=1, b=2)

    def beside_the_next_load(self, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> list[Any]:
        """Let another thread do something between the answer to the next load and its being kept."""
        real, answers = self.store.fetch, []

        def fetch(name: str, keys: Any = None) -> Any:
            answer = real(name, keys)
            if not answers:
                answers.append(None)
                thread = threading.Thread(target=lambda: answers.append(call()))
                thread.start()
                thread.join(DEADLINE)
            return answer

        monkeypatch.setattr(self.store, "fetch", fetch)
        return answers


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path / "store")


def fail(*_: Any) -> Any:
    raise StoreUnavailableError("out of reach")


def test_a_sync_that_fails_halfway_leaves_nothing_empty(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(workers.data) == 2
    workers.theirs["c"] = 3
    with monkeypatch.context() as patch:
        patch.setattr(workers.store, "fetch", fail)
        with pytest.raises(StoreUnavailableError):
            workers.data.sync()
        assert workers.data.copy() == {"a": 1, "b": 2}
    workers.data.sync()
    assert workers.data.copy() == {"a": 1, "b": 2, "c": 3}
    assert "a" in workers.data


def test_another_thread_never_sees_a_sync_that_is_half_done(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(workers.data) == 2
    workers.theirs["c"] = 3
    answers = workers.beside_the_next_load(monkeypatch, workers.data.copy)
    workers.data.sync()
    assert answers == [None, {"a": 1, "b": 2}]
    assert workers.data.copy() == {"a": 1, "b": 2, "c": 3}


def test_a_clear_that_fails_leaves_nothing_empty(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(workers.data) == 2
    with monkeypatch.context() as patch:
        patch.setattr(workers.store, "drop", fail)
        with pytest.raises(StoreUnavailableError):
            workers.data.clear()
    assert workers.data.copy() == {"a": 1, "b": 2}
    workers.data.clear()
    assert workers.data.copy() == workers.theirs.copy() == {}


def test_what_this_worker_writes_during_the_first_load_is_there(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.beside_the_next_load(monkeypatch, lambda: workers.data.update(new=1))
    assert len(workers.data) == 3
    assert "new" in workers.data
    assert workers.data["new"] == 1


def test_what_this_worker_removes_during_a_sync_is_gone(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(workers.data) == 2
    workers.theirs["c"] = 3
    workers.beside_the_next_load(monkeypatch, lambda: workers.data.pop("a"))
    workers.data.sync()
    assert workers.data.copy() == {"b": 2, "c": 3}


def test_after_a_new_epoch_all_is_loaded_again(workers: Workers) -> None:
    assert len(workers.data) == 2
    workers.store._header.epoch = "f" * 16
    workers.data["z"] = 1
    assert workers.data.copy() == {"a": 1, "b": 2, "z": 1}


def test_a_write_whose_value_cannot_be_read_at_once_has_been_made(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(workers.data) == 2
    with monkeypatch.context() as patch:
        patch.setattr(workers.store, "fetch", fail)
        assert workers.data.increment("a") == 2
        workers.data["c"] = 3
    assert workers.data.copy() == workers.theirs.copy() == {"a": 2, "b": 2, "c": 3}


def test_after_a_transaction_every_name_knows_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State()
    state.use_store("shelve", path=str(tmp_path / "store"))
    first, second = state.dict("M", sync="manual"), state.dict("N", sync="manual")
    for data in (first, second):
        data["a"] = 1
        assert len(data) == 1
    real = state.store.commit

    def commit(*arguments: Any) -> Any:
        revision = real(*arguments)
        monkeypatch.setattr(state.store, "fetch", fail)
        return revision

    monkeypatch.setattr(state.store, "commit", commit)
    with state.transaction():
        first.update(a=2, new=1)
        second["a"] = 2
    monkeypatch.undo()
    assert (first.copy(), second.copy()) == ({"a": 2, "new": 1}, {"a": 2})
    state.close()


# --- manual mode: what is held is of one revision -----------------------------------------------------


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
        thread.join(DEADLINE)
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


# --- a request in which other workers go on ---------------------------------------------------------


@pytest.fixture
def reader_and_writer() -> Iterator[tuple[SharedDict[Any, Any], SharedDict[Any, Any]]]:
    """A dict in a request that doesn't hold the order of its keys, and the same dict elsewhere."""
    state, other = make_workers()
    here, there = state.dict("DATA"), other.dict("DATA")
    there.update(old=1, gone=1)
    assert here["old"] == 1
    there["another"] = 1
    with state.request():
        yield here, there


def test_who_has_seen_a_key_in_the_list_of_keys_can_read_it(reader_and_writer: Any) -> None:
    here, there = reader_and_writer
    assert here.get("new") is None
    there["new"] = 1
    assert {key: here[key] for key in here} == {"old": 1, "gone": 1, "another": 1, "new": 1}
    assert "new" in here


@pytest.mark.parametrize("look", [SharedDict.copy, list, len], ids=["copy", "list", "len"])
def test_who_has_seen_that_a_key_is_gone_does_not_read_it_any_more(
    reader_and_writer: Any, look: Callable[[Any], Any]
) -> None:
    here, there = reader_and_writer
    assert here["gone"] == 1
    del there["gone"]
    found = look(here)
    assert (found if look is len else len(found)) == 2
    assert here.get("gone") is None
    assert "gone" not in here


@pytest.mark.parametrize("remove", [SharedDict.__delitem__, SharedDict.pop], ids=["del", "pop"])
def test_who_could_not_remove_a_key_does_not_read_it_afterwards(
    reader_and_writer: Any, remove: Callable[[Any, str], Any]
) -> None:
    here, there = reader_and_writer
    assert here["gone"] == 1
    del there["gone"]
    with pytest.raises(KeyError):
        remove(here, "gone")
    assert here.get("gone") is None
    assert "gone" not in here


@pytest.mark.parametrize("remove", [SharedDict.__delitem__, SharedDict.pop], ids=["del", "pop"])
def test_in_manual_mode_a_key_that_could_not_be_removed_is_gone_from_the_list_of_keys(
    workers: Workers, remove: Callable[[Any, str], Any]
) -> None:
    assert len(workers.data) == 2
    del workers.theirs["a"]
    with pytest.raises(KeyError):
        remove(workers.data, "a")
    assert list(workers.data) == ["b"]
    assert workers.data.copy() == {"b": 2}
    assert "a" not in workers.data


def test_in_manual_mode_a_write_that_is_refused_loads_nothing(workers: Workers) -> None:
    workers.theirs["text"] = "x"
    assert len(workers.data) == 3
    workers.theirs["c"] = 3
    with pytest.raises(TypeError):
        workers.data.increment("text")
    assert "c" not in workers.data
    workers.data.sync()
    assert workers.data["c"] == 3


# --- writes whose answer is not waited for ----------------------------------------------------------


def in_a_transaction(state: State, data: SharedDict[Any, Any]) -> None:
    with state.transaction():
        data.update(a=2, new=1)


WRITES: dict[str, tuple[str, Callable[[State, SharedDict[Any, Any]], Any]]] = {
    "set": ("commit", lambda state, data: data.update(a=2, new=1)),
    "delete": ("commit", lambda state, data: data.pop("a")),
    "increment": ("increment", lambda state, data: data.increment("a")),
    "popitem": ("commit", lambda state, data: data.popitem()),
    "clear": ("drop", lambda state, data: data.clear()),
    "transaction": ("commit", in_a_transaction),
    "nested": ("commit", lambda state, data: data["rows"].append(3)),
}


@pytest.mark.parametrize("mode", ["manual", "request"])
@pytest.mark.parametrize(("method", "write"), WRITES.values(), ids=WRITES)
def test_a_write_that_was_interrupted_after_it_was_made_is_seen_by_who_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, method: str, write: Any
) -> None:
    path = str(tmp_path / "store")
    state, other = State(), State()
    for each in (state, other):
        each.use_store("shelve", path=path)
    data, theirs = state.dict("D", sync=mode), other.dict("D", sync="read")
    theirs.update(a=1, rows=[1, 2], b=1)
    with state.request():
        assert data.copy() == theirs.copy()
        assert data["a"] == 1
        real = getattr(state.store, method)

        def interrupted(*arguments: Any) -> None:
            real(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(state.store, method, interrupted)
            with pytest.raises(KeyboardInterrupt):
                write(state, data)
        assert {key: data.get(key) for key in ("a", "b", "new")} == {
            key: theirs.get(key) for key in ("a", "b", "new")
        }
        assert data.copy() == theirs.copy()
    state.close()
    other.close()


def test_an_interruption_of_the_read_after_a_write_is_made_up_for(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    assert len(workers.data) == 2
    with monkeypatch.context() as patch:
        patch.setattr(workers.store, "fetch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workers.data["c"] = 3
    assert workers.data.copy() == workers.theirs.copy() == {"a": 1, "b": 2, "c": 3}
