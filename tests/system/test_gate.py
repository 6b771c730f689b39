"""The gate that every write goes through: closed, left, forked, interrupted."""

from __future__ import annotations

import threading

import pytest

from flask_globalstate import StoreUnavailableError
from flask_globalstate.system.gate import Gate
from tests.support import PATIENCE
from tests.support.gates import somebody_inside


def test_a_closed_gate_keeps_writers_out_and_lets_those_inside_leave() -> None:
    gate, steps = Gate(), []
    inside, leave = threading.Event(), threading.Event()

    def writer() -> None:
        with gate, gate:
            inside.set()
            leave.wait(PATIENCE)
            with gate:
                steps.append("left")

    def late() -> None:
        with gate:
            steps.append("late")

    first = threading.Thread(target=writer)
    first.start()
    assert inside.wait(PATIENCE)
    closer = threading.Thread(target=lambda: (gate.close(), steps.append("closed")))
    closer.start()
    while not gate._is_closed:
        pass
    second = threading.Thread(target=late)
    second.start()
    leave.set()
    closer.join(PATIENCE)
    assert steps == ["left", "closed"]
    gate.open()
    for thread in (first, second):
        thread.join(PATIENCE)
    assert steps == ["left", "closed", "late"]


def test_a_writer_that_does_not_leave_leaves_the_gate_open() -> None:
    gate = Gate(timeout=0.05)
    with somebody_inside(gate):
        with pytest.raises(StoreUnavailableError, match="has been writing"):
            gate.close()
        with gate:
            pass


def test_who_is_inside_of_the_gate_may_close_it_and_enter_again() -> None:
    gate = Gate(timeout=0.05)
    with gate:
        gate.close()
        with gate:
            pass
        gate.open()


def test_a_fork_from_inside_the_gate_leaves_it_in_the_child() -> None:
    gate = Gate(timeout=1)
    with gate:
        gate.after_fork()
        with gate:
            pass
    gate.close()
    gate.open()


def test_a_thread_of_the_parent_is_not_inside_of_the_gate_of_a_child() -> None:
    gate = Gate(timeout=0.05)
    with somebody_inside(gate):
        gate.after_fork()
        gate.close()
        gate.open()


def test_a_gate_is_open_after_a_time_limit_has_struck_who_closed_it() -> None:
    class TimeLimit(BaseException):
        """What a signal handler raises."""

    gate = Gate(5)
    gate._changed.wait = lambda *_: (_ for _ in ()).throw(TimeLimit())  # type: ignore[method-assign]
    with somebody_inside(gate), pytest.raises(TimeLimit):
        gate.close()
    with gate:
        pass
