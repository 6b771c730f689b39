"""The checkers reject what breaks a promise, accept what keeps it, and do both for long histories."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from tests.faults.operations import add, made

from .checkers import (
    Operation,
    check_appends,
    check_bank,
    check_counters,
    check_freshness,
    check_registers,
)


def read(start: float, end: float, answer: Any, **more: Any) -> Operation:
    return made("read", start, end, answer=answer, **more)


def write(start: float, end: float, value: Any) -> Operation:
    return made("write", start, end, value)


def cas(start: float, end: float, expected: Any, new: Any, answer: bool | None) -> Operation:
    return made("cas", start, end, (expected, new), answer)


def lists(start: float, end: float, *ids: str) -> Operation:
    return made("list", start, end, answer=ids)


def append(start: float, end: float, one: str) -> Operation:
    return made("append", start, end, one)


def transfer(start: float, end: float, count: int | None) -> Operation:
    return made("transfer", start, end, answer=count)


def total(start: float, end: float, amount: int, count: int) -> Operation:
    return made("total", start, end, answer=(amount, count))


# --- registers ------------------------------------------------------------------------------------


GOOD_REGISTERS = {
    "nothing": [],
    "absent, then written": [read(0, 1, None), write(2, 3, "a"), read(4, 5, "a")],
    "concurrent with a write, either value": [
        write(0, 1, "a"),
        write(2, 9, "b"),
        read(3, 4, "a"),
        read(5, 6, "b"),
    ],
    "two writes at once, seen in one order": [
        write(0, 9, "a"),
        write(0, 9, "b"),
        read(1, 2, "b"),
        read(3, 4, "a"),
    ],
    "an unanswered write that never happened": [write(0, 1, "a"), write(2, inf, "b"), read(3, 99, "a")],
    "an unanswered write that happens late": [
        write(0, 1, "a"),
        write(2, inf, "b"),
        read(3, 4, "a"),
        write(5, 6, "c"),
        read(7, 8, "c"),
        read(9, 10, "b"),
    ],
    "an unanswered read": [write(0, 1, "a"), read(2, inf, None)],
    "compare and set, yes and no": [
        write(0, 1, "a"),
        cas(2, 3, "a", "b", True),
        cas(4, 5, "a", "c", False),
        read(6, 7, "b"),
    ],
    "of two at once only one is set": [
        write(0, 1, "a"),
        cas(2, 9, "a", "b", True),
        cas(2, 9, "a", "c", False),
        read(10, 11, "b"),
    ],
    "unanswered ones in a chain": [
        cas(0, inf, None, "a", None),
        cas(1, inf, "a", "b", None),
        read(2, 3, "b"),
    ],
    "refused because of an unanswered write": [
        write(0, 1, "a"),
        write(2, inf, "b"),
        cas(3, 4, "a", "c", False),
        read(5, 6, "b"),
    ],
    "a paused write that happens at its end": [
        write(0, 100, "slow"),
        *[one for n in range(1, 90, 3) for one in (write(n, n + 1, n), read(n + 1.5, n + 2, n))],
        read(95, 96, "slow"),
    ],
}


BAD_REGISTERS = {
    "stale": [write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")],
    "lost": [write(0, 1, "a"), read(2, 3, None)],
    "invented": [write(0, 1, "a"), read(2, 3, "z")],
    "from the future": [read(0, 1, "a"), write(2, 3, "a")],
    "back in time": [write(0, 1, "a"), write(2, 9, "b"), read(3, 4, "b"), read(5, 6, "a")],
    "seen in two orders": [
        write(0, 9, "a"),
        write(0, 9, "b"),
        read(10, 11, "a"),
        read(12, 13, "b"),
    ],
    "an unanswered write that is undone": [
        write(0, 1, "a"),
        write(2, inf, "b"),
        read(3, 4, "b"),
        read(5, 6, "a"),
    ],
    "an unanswered write before its start": [read(0, 1, "b"), write(2, inf, "b")],
    "two are set from one value": [
        write(0, 1, "a"),
        cas(2, 9, "a", "b", True),
        cas(2, 9, "a", "c", True),
    ],
    "refused without a reason": [write(0, 1, "a"), cas(2, 3, "a", "b", False)],
    "set from what was not there": [write(0, 1, "a"), cas(2, 3, "b", "c", True)],
    "a paused write that happens twice": [
        write(0, 100, "slow"),
        read(1, 2, "slow"),
        write(3, 4, "a"),
        read(5, 6, "a"),
        read(7, 8, "slow"),
    ],
}


@pytest.mark.parametrize("history", GOOD_REGISTERS.values(), ids=GOOD_REGISTERS)
def test_a_register_that_keeps_its_promise_is_accepted(history: list[Operation]) -> None:
    findings = check_registers(history)
    assert (findings.violations, findings.undecided) == ([], [])


@pytest.mark.parametrize("history", BAD_REGISTERS.values(), ids=BAD_REGISTERS)
def test_a_register_that_breaks_its_promise_is_rejected(history: list[Operation]) -> None:
    assert check_registers(history).violations


def test_keys_are_judged_each_by_itself() -> None:
    history = [made("write", 0, 1, "a", key="x"), made("read", 2, 3, answer=None, key="y")]
    assert not check_registers(history).violations
    assert check_registers([*history, made("read", 4, 5, answer=None, key="x")]).violations


# --- counters -------------------------------------------------------------------------------------


GOOD_COUNTERS = {
    "one after the other": [add(0, 1, 1), read(2, 3, 1), add(4, 5, 2)],
    "at once, in the other order": [add(0, 9, 2), add(0, 9, 1), read(10, 11, 2)],
    "unanswered, happened": [add(0, 1, 1), add(2, inf, None), read(3, 4, 1), add(5, 6, 3)],
    "unanswered, did not happen": [add(0, 1, 1), add(2, inf, None), add(3, 4, 2), read(5, 6, 2)],
    "two unanswered, one happened": [add(0, inf, None), add(0, inf, None), add(1, 2, 2), read(3, 4, 2)],
}


BAD_COUNTERS = {
    "lost": [add(0, 1, 1), add(2, 3, 1)],
    "twice": [add(0, 1, 1), read(2, 3, 2)],
    "back in time": [add(0, 1, 1), add(2, 9, 2), read(3, 4, 2), read(5, 6, 1)],
    "against the order of time": [add(0, 1, 2), add(2, 3, 1)],
    "more than all unanswered ones": [add(0, inf, None), add(1, 2, 3)],
    "an unanswered one before its start": [add(0, 1, 2), add(2, inf, None)],
}


@pytest.mark.parametrize("history", GOOD_COUNTERS.values(), ids=GOOD_COUNTERS)
def test_a_counter_that_keeps_its_promise_is_accepted(history: list[Operation]) -> None:
    findings = check_counters(history)
    assert (findings.violations, findings.undecided) == ([], [])


@pytest.mark.parametrize("history", BAD_COUNTERS.values(), ids=BAD_COUNTERS)
def test_a_counter_that_breaks_its_promise_is_rejected(history: list[Operation]) -> None:
    assert check_counters(history).violations


# --- freshness ------------------------------------------------------------------------------------


GOOD_FRESHNESS = {
    "fresh": [add(0, 1, 1), read(2, 3, 1)],
    "as of the start of the request": [read(0, 9, 0, request=1), add(1, 2, 1), add(3, 4, 2)],
    "one unanswered": [add(0, inf, None), read(1, 2, 0), read(3, 4, 1)],
    "threads of one worker that overlap": [
        add(0, 1, 1),
        add(2, 3, 2),
        read(1.5, 9, 1, worker=7, began=2),
        read(4, 8, 2, worker=7),
    ],
    "own writes": [add(0, 9, 1, request=1, step=1, began=1), read(0, 9, 1, request=1, step=2, began=9)],
}


BAD_FRESHNESS = {
    "stale": [add(0, 1, 1), read(2, 3, 0)],
    "staler than what somebody has seen": [add(0, inf, None), read(1, 2, 1), read(3, 4, 0)],
    "back in time in one worker": [
        add(2, 3, 1),
        read(0, 5, 1, worker=7, began=4),
        read(1, 8, 0, worker=7, began=6),
    ],
    "back in time in one client": [
        add(2, 3, 1),
        read(0, 5, 1, session="c", began=4),
        read(1, 8, 0, session="c", began=6),
    ],
    "older than an own write in the request": [
        add(0, 3, 1, request=1, began=2),
        read(0, 5, 0, request=1, began=4),
    ],
    "the same sum twice": [add(0, 9, 1), add(0, 9, 1)],
    "invented": [add(0, 1, 1), read(2, 3, 2)],
    "from the future": [read(0, 1, 1), add(2, 3, 1)],
}


@pytest.mark.parametrize("history", GOOD_FRESHNESS.values(), ids=GOOD_FRESHNESS)
def test_fresh_answers_are_accepted(history: list[Operation]) -> None:
    assert check_freshness(history) == []


@pytest.mark.parametrize("history", BAD_FRESHNESS.values(), ids=BAD_FRESHNESS)
def test_answers_that_are_stale_or_go_back_are_rejected(history: list[Operation]) -> None:
    assert check_freshness(history)


# --- appends --------------------------------------------------------------------------------------


GOOD_APPENDS = {
    "both, in either order": [append(0, 9, "a"), append(0, 9, "b"), lists(10, 11, "b", "a")],
    "while it grows": [append(0, 1, "a"), lists(2, 9, "a"), append(3, 4, "b"), lists(5, 6, "a", "b")],
    "unanswered, there": [append(0, inf, "a"), lists(1, 2, "a")],
    "unanswered, late": [append(0, inf, "a"), append(1, 2, "b"), lists(3, 4, "b"), lists(5, 6, "b", "a")],
    "unanswered, never": [append(0, inf, "a"), lists(1, 2)],
}


BAD_APPENDS = {
    "lost": [append(0, 1, "a"), append(2, 3, "b"), lists(4, 5, "b")],
    "lost for a while": [append(0, 1, "a"), lists(2, 3), lists(4, 5, "a")],
    "twice": [append(0, 1, "a"), lists(2, 3, "a", "a")],
    "unanswered, twice": [append(0, inf, "a"), lists(2, 3, "a", "a")],
    "invented": [append(0, 1, "a"), lists(2, 3, "a", "z")],
    "from the future": [lists(0, 1, "a"), append(2, 3, "a")],
    "two orders": [append(0, 9, "a"), append(0, 9, "b"), lists(10, 11, "a", "b"), lists(12, 13, "b", "a")],
}


@pytest.mark.parametrize("history", GOOD_APPENDS.values(), ids=GOOD_APPENDS)
def test_lists_in_which_every_acknowledged_id_is_once_are_accepted(history: list[Operation]) -> None:
    assert check_appends(history) == []


@pytest.mark.parametrize("history", BAD_APPENDS.values(), ids=BAD_APPENDS)
def test_lists_that_lost_or_doubled_or_invented_are_rejected(history: list[Operation]) -> None:
    assert check_appends(history)


# --- the bank -------------------------------------------------------------------------------------


GOOD_BANK = {
    "quiet": [total(0, 1, 100, 0)],
    "while transfers are made": [transfer(0, 5, 1), total(1, 2, 100, 0), total(3, 4, 100, 1)],
    "unanswered": [transfer(0, inf, None), total(1, 2, 100, 0), transfer(3, 4, 2), total(5, 6, 100, 2)],
}


BAD_BANK = {
    "half a transfer": [transfer(0, 5, 1), total(1, 2, 90, 0)],
    "a transfer is lost": [transfer(0, 1, 1), total(2, 3, 100, 0)],
    "one writes over the other": [transfer(0, 5, 1), transfer(0, 5, 1), total(6, 7, 100, 1)],
    "one is made twice": [transfer(0, 1, 1), total(2, 3, 100, 2)],
}


@pytest.mark.parametrize("history", GOOD_BANK.values(), ids=GOOD_BANK)
def test_a_bank_of_which_everybody_sees_the_total_is_accepted(history: list[Operation]) -> None:
    assert check_bank(history, 100) == []


@pytest.mark.parametrize("history", BAD_BANK.values(), ids=BAD_BANK)
def test_a_bank_that_makes_or_loses_money_is_rejected(history: list[Operation]) -> None:
    assert check_bank(history, 100)
