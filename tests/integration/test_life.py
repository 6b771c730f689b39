"""One server, from the first client to the last: cold starts, upgrades, replaced workers, kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import PATIENCE
from tests.support.actors import open_state
from tests.support.harness import Crowd, Server
from tests.support.life import LONG, one_server_throughout, temporaries
from tests.support.processes import (
    children,
    end_now,
    has_ended,
    is_alive,
    processes_in,
    servers,
    starts,
    supervisors,
    the_server,
    wait_for,
)


def one_of_each(path: Path) -> tuple[int, int]:
    """How many servers and supervisors a STORE_PATH has."""
    return len(servers(path)), len(supervisors(path))


# --- generations of processes -------------------------------------------------------------------


class Generations(Crowd):
    """A process that forks any number of clients, which begin at the same moment."""

    def __init__(self) -> None:
        super().__init__("generations", 1)
        self.start()

    def be_born(self, path: Path, count: int, *, grace: float, at: float) -> None:
        """Fork clients that begin at a moment of the monotonic clock."""
        (process,) = self.processes
        assert process.stdin is not None
        order = {"path": str(path), "count": count, "grace": grace, "at": at}
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()


def test_64_processes_that_start_together_get_one_server_and_one_dataset(tmp_path):
    with Generations() as crowd:
        for number in range(20):
            path = tmp_path / f"store{number}"
            at = time.monotonic()
            crowd.be_born(path, 64, grace=LONG, at=at)
            assert crowd.hear() == [64]
            assert one_of_each(path) == (1, 1)
            assert starts(path) == 1
            state = open_state(str(path))
            try:
                assert state.counter("COUNT").value == 64
                assert set(state.dict("DATA")) == {f"{at} {child}" for child in range(64)}
            finally:
                state.close()
            crowd.say()
            assert crowd.hear() == [[0] * 64]
            assert starts(path) == 1
            end_now(path)


def test_clients_that_come_while_the_last_one_leaves_find_one_server_and_all_data(tmp_path):
    path, rounds, count = tmp_path / "store", 20, 8
    with Generations() as crowd, contextlib.ExitStack() as last:
        written: set[str] = set()
        for number in range(rounds):
            # The server ends a quarter to half a second after its last client has left: the new ones
            # come before, in the middle of it, and after.
            at = time.monotonic() + 0.05 + number * 0.7 / rounds
            crowd.be_born(path, count, grace=0.05, at=at)
            last.close()
            assert crowd.hear() == [count]
            written |= {f"{at} {child}" for child in range(count)}
            assert one_of_each(path) == (1, 1)
            # Of two servers one would have the wrong data.
            state = open_state(str(path), grace=0.05)
            last.callback(state.close)
            assert state.counter("COUNT").value == (number + 1) * count
            assert set(state.dict("DATA")) == written
            crowd.say()
            assert crowd.hear() == [[0] * count]
            assert one_of_each(path) == (1, 1)
        assert 1 < starts(path) <= rounds
    wait_for(lambda: has_ended(path), "the end of the server")
    assert not temporaries(path)


# --- gunicorn -----------------------------------------------------------------------------------


def new_master(server: Server) -> int | None:
    """The master that SIGUSR2 has made, once it has both its workers."""
    masters = [pid for pid in children(server.process.pid) if len(children(pid)) == 2]
    return masters[0] if masters else None


#: As pip's script, which ``python -m gunicorn`` in the same folder runs. SIGUSR2 starts the same file
#: again; if that were the package's own, the package's folder would be on the path, with its ``http``.
SCRIPT = """
import os
import sys

sys.path[:] = [folder for folder in sys.path if folder not in ("", os.path.dirname(__file__))]
from gunicorn.app.wsgiapp import run

run()
"""


@pytest.mark.parametrize("hooks", [False, True], ids=["bare", "hooks"])
def test_an_upgrade_by_sigusr2_leaves_server_and_data(serve, tmp_path, hooks):
    (tmp_path / "gunicorn.py").write_text(SCRIPT)
    # With the hooks no time of grace is needed.
    options = {"grace": 0 if hooks else LONG}
    with serve(workers=2, hooks=hooks, options=options, ends=False) as server:
        store, master = server.store, None
        for worker in server.hold_every_worker("none").values():
            worker.do(["hit", 1], ["set", "a", "kept"])
        try:
            with one_server_throughout(store):
                old = server.workers()
                server.signal(signal.SIGUSR2)
                master = wait_for(lambda: new_master(server), "a new master with workers")
                # Both generations serve.
                assert [server.do(["hit", 1], ["get", "a"]) for _ in range(10)] == ["kept"] * 10
                server.signal(signal.SIGQUIT)
                server.process.wait(PATIENCE)
                wait_for(lambda: not any(map(is_alive, old)), "the end of the old workers")
                assert [server.do(["hit", 1], ["get", "a"]) for _ in range(10)] == ["kept"] * 10
                assert server.do(["hits"]) == 22
                assert is_alive(master)
        finally:
            if master is not None and is_alive(master):
                os.kill(master, signal.SIGTERM)
                wait_for(lambda: not is_alive(master), "the end of the new master")
    if not hooks:
        end_now(store)
    wait_for(lambda: has_ended(store), "the end of the store")
    assert not temporaries(store)


def test_workers_that_are_replaced_under_load_leave_server_and_data(serve):
    # With the hooks no time of grace is needed.
    requests, options = 240, {"grace": 0}
    arguments = ("--max-requests", "10")
    with serve(workers=3, hooks=True, options=options, arguments=arguments) as server:
        server.do(["set", "a", "kept"])
        with one_server_throughout(server.store), ThreadPoolExecutor(4) as pool:
            work = [pool.submit(server.do, ["hit", 1], ["get", "a"]) for _ in range(requests)]
            for done in (requests // 3, 2 * requests // 3):
                wait_for(lambda done=done: sum(w.done() for w in work) >= done, "requests")
                server.signal(signal.SIGHUP)
            assert [w.result(PATIENCE) for w in work] == ["kept"] * requests
        assert server.do(["hits"]) == requests
        assert server.log().count("Autorestarting worker") > 5
        store = server.store
    assert not temporaries(store)


def test_nothing_but_data_is_left_of_a_killed_gunicorn_after_the_default_time_of_grace(serve):
    with serve(workers=3, hooks=True, options={}, ends=False) as server:
        log = server.store / "data" / "appendonly.aof"
        held = server.hold_every_worker("a").values()
        for worker in held:
            worker.send(["set", "a", "kept"], ["hit", 200], ["hit_and_increment", 1_000_000])
        wait_for(lambda: log.stat().st_size > 1_000_000, "writes")
        pid = the_server(server.store)
        server.kill()
        for worker in held:
            worker.close()
        assert servers(server.store) == [pid], "the server did not wait for its clients to come back"
        wait_for(lambda: has_ended(server.store), "the end of the store", 20)
        assert not processes_in(server.store.parent)
        assert not temporaries(server.store)
        assert [file for file in server.store.rglob("*") if file.is_socket()] == []
    with serve(workers=1) as server:
        assert server.do(["get", "a"]) == "kept"
        # Each HITS += 1 is followed by one of DATA["n"], by each of three workers.
        assert 0 <= server.do(["hits"]) - 600 - server.do(["get", "n"]) <= 3
