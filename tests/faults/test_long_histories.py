"""The checkers say of histories what trying everything says, and do so in time for long ones."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.operations import add, made

from .checkers import (
    Operation,
    check_counters,
    check_freshness,
    check_registers,
)
from .search import CounterModel, Model, RegisterModel, search

#: nobody waits for a verdict on a minute of history for longer than this
SECONDS_FOR_THOUSANDS = 20.0


# --- the search against one that tries everything -------------------------------------------------


def is_explained(history: list[Operation], model: Model) -> bool:
    """Whether any order of any choice of what was not answered explains a short history."""
    answered = [operation for operation in history if operation.is_answered]
    unanswered = [operation for operation in history if not operation.is_answered]
    for count in range(len(unanswered) + 1):
        for happened in itertools.combinations(unanswered, count):
            if any(explains(order, model) for order in itertools.permutations([*answered, *happened])):
                return True
    return False


def explains(order: tuple[Operation, ...], model: Model) -> bool:
    """Whether operations that happen in this order are answered as they were, at a time when they ran."""
    now, state = -inf, model.initial
    for operation in order:
        now = max(now, operation.start)
        if now > operation.end:
            return False
        if operation.is_answered:
            fits, state = model.step(state, operation)
            if not fits:
                return False
        elif operation.kind == "add":
            state += operation.argument
        elif operation.kind == "write":
            state = operation.argument
        elif operation.kind == "cas" and state == operation.argument[0]:
            state = operation.argument[1]
    return True


@st.composite
def register_histories(draw: Callable[..., Any]) -> list[Operation]:
    history = []
    for number in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, 12))
        end = draw(st.one_of(st.just(inf), st.integers(start + 1, 14)))
        kind = draw(st.sampled_from(["read", "write", "cas"]))
        seen = draw(st.sampled_from([None, 0, 1, 2, 3]))
        argument = {"read": None, "write": number, "cas": (seen, number)}[kind]
        answer = seen if kind == "read" else draw(st.booleans())
        history.append(made(kind, start, end, argument, None if end == inf else answer))
    return history


@st.composite
def counter_histories(draw: Callable[..., Any]) -> list[Operation]:
    history = []
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, 8))
        end = draw(st.one_of(st.just(inf), st.integers(start + 1, 10)))
        kind, answer = draw(st.sampled_from(["read", "add"])), draw(st.integers(0, 4))
        history.append(made(kind, start, end, 1, None if end == inf else answer))
    return history


@settings(max_examples=300)
@given(register_histories())
def test_the_search_says_of_registers_what_trying_everything_says(history: list[Operation]) -> None:
    assert search(history, RegisterModel()).is_good == is_explained(history, RegisterModel())


@settings(max_examples=300)
@given(counter_histories())
def test_the_search_says_of_counters_what_trying_everything_says(history: list[Operation]) -> None:
    assert search(history, CounterModel()).is_good == is_explained(history, CounterModel())


# --- long histories -------------------------------------------------------------------------------


def played(
    operations: int, clients: int, seed: int, paused: float = 0.02, lost: float = 0.01
) -> list[Operation]:
    """What clients see of a register that keeps its promise, some of them paused, some never answered."""
    rng = random.Random(seed)
    history: list[Operation] = []
    free = [0.0] * clients
    moments = []
    for number in range(operations):
        client = min(range(clients), key=free.__getitem__)
        start = free[client] + rng.random()
        length = 200 * rng.random() if rng.random() < paused else rng.random()
        free[client] = start + length
        moments.append((start + length * rng.random(), start, start + length, number))
    state = None
    for _, start, end, number in sorted(moments):
        kind = rng.choice(["read", "read", "write", "cas"])
        is_lost = rng.random() < lost
        argument, answer = None, None
        if kind == "read":
            answer = state
        elif kind == "write":
            argument = state = number if not is_lost or rng.random() < 0.5 else state
            argument = number
        else:
            expected = state if rng.random() < 0.7 else "something else"
            argument, answer = (expected, number), expected == state
            state = number if answer else state
        history.append(made(kind, start, inf if is_lost else end, argument, None if is_lost else answer))
    return history


@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_operations_of_one_key_are_judged_in_seconds(seed: int) -> None:
    history = played(5000, 16, seed)
    began = time.process_time()
    findings = check_registers(history)
    assert (findings.violations, findings.undecided) == ([], [])
    assert time.process_time() - began < SECONDS_FOR_THOUSANDS


@pytest.mark.parametrize("seed", range(3))
def test_one_stale_answer_among_thousands_is_found(seed: int) -> None:
    history = played(3000, 16, seed)
    late = [one for one in history if one.start > 0.9 * max(other.start for other in history)]
    victim = next(one for one in late if one.kind == "read" and one.is_answered)
    early = next(one.argument for one in history if one.kind == "write" and one.is_answered)
    history[history.index(victim)] = made("read", victim.start, victim.end, answer=early)
    began = time.process_time()
    assert check_registers(history).violations
    assert time.process_time() - began < SECONDS_FOR_THOUSANDS


def test_ten_thousand_additions_are_judged_in_seconds() -> None:
    history = [add(n, n + 20, n + 1) for n in range(10_000)]
    history[5000] = add(5000, inf, None)
    began = time.process_time()
    assert not check_counters(history).violations
    assert not check_freshness(history)
    assert time.process_time() - began < SECONDS_FOR_THOUSANDS
