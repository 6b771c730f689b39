"""The demo under gunicorn with four workers, as a visitor's script asks it."""

from __future__ import annotations

import json
from collections import Counter

from demo.screenshot import ask, send_hits

HITS = 200


def test_200_requests_raise_the_shared_counter_by_exactly_200_and_no_plain_one(served_demo: str) -> None:
    answers = send_hits(served_demo, HITS)
    assert sorted(answer["hits"] for answer in answers) == list(range(1, HITS + 1))
    answered = Counter(answer["pid"] for answer in answers)
    assert len(answered) > 1
    last_plain = {pid: max(a["plain_hits"] for a in answers if a["pid"] == pid) for pid in answered}
    assert last_plain == answered
    assert max(last_plain.values()) < HITS


def test_every_worker_shows_the_change_that_one_of_them_made(served_demo: str) -> None:
    before = json.loads(ask(f"{served_demo}/api/state"))["theme"]
    ask(f"{served_demo}/look", method="POST", form={"theme": "light"})
    pages = [json.loads(ask(f"{served_demo}/api/state")) for _ in range(40)]
    assert before == "dark"
    assert {page["theme"] for page in pages} == {"light"}
