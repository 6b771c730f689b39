"""Processes that start at the same moment on a directory where nothing is."""

from __future__ import annotations

import pytest

from tests.support import PATIENCE
from tests.support.actors import open_state
from tests.support.harness import Crowd
from tests.support.processes import end_now, has_ended, servers, starts, stays, supervisors, wait_for

#: longer than the slowest of eight processes takes to come
GRACE = 10


def assert_there_is_one(path) -> None:
    """One server, one supervisor, and there were never others."""
    assert (len(servers(path)), len(supervisors(path)), starts(path)) == (1, 1, 1)


@pytest.mark.parametrize("path_round", range(10))
def test_eight_processes_that_start_together_get_one_server_and_one_dataset(tmp_path, path_round):
    path = tmp_path / "store"
    with Crowd("newcomer", 8, path=str(path), grace=GRACE) as crowd:
        crowd.start()
        answers = crowd.hear()
        assert_there_is_one(path)
        crowd.say()
        assert crowd.join() == [sorted(map(str, range(8)))] * 8
    # An epoch is made for each run_id of a server.
    assert len({epoch for _, epoch in answers}) == 1
    end_now(path)

    state = open_state(str(path))
    try:
        assert state.counter("COUNT").value == 8 * 20
        data = dict(state.dict("DATA"))
        assert sorted(number for numbers in data.values() for number in numbers) == list(range(1, 161))
    finally:
        state.close()
    end_now(path)


@pytest.mark.parametrize("path_round", range(3))
def test_initial_is_committed_by_one_of_eight_processes_that_start_together(tmp_path, path_round):
    path = tmp_path / "store"
    with Crowd("seeder", 8, path=str(path), grace=GRACE) as crowd:
        crowd.start()
        answers = crowd.hear()
        assert_there_is_one(path)
        crowd.say()
        contents = crowd.join()
    winners = {by for by, _ in answers}
    assert len(winners) == 1
    assert answers[winners.copy().pop()][1], "the initial of the one who committed was never called"
    expected = {"by": winners.pop(), "a": 100 + 160, **{f"own {number}": True for number in range(8)}}
    assert contents == [[expected, 1000 + 160]] * 8
    end_now(path)


def test_a_process_whose_threads_came_first_together_holds_one_lease(tmp_path):
    path = tmp_path / "store"
    with Crowd("threads_at_first_use", 1, path=str(path), threads=16) as crowd:
        crowd.start()
        assert crowd.hear() == [16]
        # The process lives on, without a lease.
        wait_for(lambda: has_ended(path), "the end of the server after close()")
        crowd.say()
        crowd.join()


def test_a_starter_that_is_killed_before_its_supervisor_is_there_keeps_nobody_waiting(tmp_path):
    path, gate = tmp_path / "store", tmp_path / "gate"
    gate.touch()
    with Crowd("killed_starter", 1, path=str(path), gate=str(gate)) as first:
        first.start()
        first.processes[0].wait(PATIENCE)
    with Crowd("next_starter", 1, path=str(path), gate=str(gate)) as second:
        second.start()
        stays(gate.exists, 1)
        gate.unlink(missing_ok=True)
        assert second.join() == [1]
    assert starts(path) == 1
    end_now(path)
