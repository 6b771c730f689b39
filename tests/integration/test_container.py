"""gunicorn as the first process of a container: what it leaves is killed, strange children become its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.harness import serving
from tests.support.processes import children, has_ended, is_alive, supervisors, the_server, wait_for

#: a time of grace that no container is given
LONG = 600
with_and_without_preload = pytest.mark.parametrize("preload", [False, True], ids=["load", "preload"])


def zombies_of(pid: int) -> list[int]:
    """The children that a process has not waited for."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if not is_alive(int(child))]


@with_and_without_preload
def test_with_the_hooks_the_server_has_ended_before_its_container(serve, container, preload):
    arguments = {"workers": 2, "hooks": True, "preload": preload, "options": {"grace": LONG}}
    with serve(**arguments, launcher=container, ends=False) as server:
        server.do(["hit", 3], ["set", "a", [1]])
        store = server.store
        server.stop()
        # At once: nothing is left that could end it later.
        assert has_ended(store), sorted(path.name for path in store.iterdir())
        assert server.process.returncode == 0
        assert "the last client is gone" in (store / "supervisor.log").read_text().splitlines()[-1]
        assert "ready to exit" in (store / "redis.log").read_text()
    with serve(**arguments, launcher=container, ends=False) as server:
        assert server.do(["hits"]) == 3
        assert server.do(["get", "a"]) == [1]


def test_without_the_hooks_what_is_killed_with_its_container_leaves_its_data(serve, container):
    for count in range(2):
        with serve(workers=2, options={"grace": LONG}, launcher=container, ends=False) as server:
            assert server.do(["hit", 1], ["hits"]) == count + 1


def test_a_server_that_another_container_uses_is_left_to_it(serve, container, tmp_path):
    with serve(workers=1, hooks=True) as other:
        other.do(["hit", 1])
        pid = the_server(other.store)
        folder = tmp_path / "container"
        folder.mkdir()
        options = {"workers": 1, "hooks": True, "store": other.store, "ends": False}
        with serving(folder, **options, launcher=container) as server:
            assert server.do(["hit", 1], ["hits"]) == 2
        assert "has clients" in server.log()
        assert the_server(other.store) == pid
        assert other.do(["hits"]) == 2


def test_a_supervisor_that_the_first_process_reaps_is_no_worker_of_it(serve, container):
    with serve(workers=2, hooks=True, launcher=container, ends=False) as server:
        server.do(["hit", 1])
        master, workers = server.master(), server.workers()
        (first,) = supervisors(server.store)
        assert first in children(master)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{first}").exists(), "somebody who waits for the supervisor")
        assert server.do(["hit", 1], ["hits"]) == 2
        assert supervisors(server.store) != [first]
        assert server.workers() == workers
        wait_for(lambda: not zombies_of(master), "the end of all that has ended")
