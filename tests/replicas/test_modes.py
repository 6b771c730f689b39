"""`manual` mode: what was loaded stays right, whatever fails or happens beside it. `request` mode: reads that
never go back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import SharedDict, StoreUnavailableError
from flask_globalstate.state.state import State
from flask_globalstate.stores.shelve import ShelveStore
from tests.support import PATIENCE
from tests.support.workers import make_workers


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
                thread.join(PATIENCE)
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
