"""An exception of a signal handler may come at any line and any call: nothing is silent after it.

Ctrl-C in a notebook, a time limit of Celery or RQ, a handler of gunicorn: the exception comes where the code
happens to be. Here it comes at each line and call of the package and of `contextlib` in turn, and what held
it, the traceback, is kept as a notebook keeps it.
"""

from __future__ import annotations

import gc
import linecache
import re
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dis import opname
from types import FrameType
from typing import Any

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.replicas.requests import current_transactions, request_here, running_requests
from flask_globalstate.system.holding import Hold
from tests.support import PATIENCE
from tests.support.workers import elsewhere, make_workers

pytestmark = pytest.mark.slow
MODULES = ("flask_globalstate", "contextlib")


class Interrupt(BaseException):
    """What a signal handler raises."""


def is_end_of_a_locked_block(frame: FrameType) -> bool:
    """Whether what comes next is to let go of a lock: the interpreter lets no signal handler run before it.

    It does that when a function is called, when one has answered, and when a loop begins again. A trace
    function is called there all the same, since the line of the ``with`` comes again.
    """
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    code, at = frame.f_code.co_code, frame.f_lasti
    steps = [name for name in (opname[step] for step in code[at : at + 10 : 2]) if name != "SWAP"]
    leaves = steps[:3] == ["LOAD_CONST"] * 3 or steps[0] in ("PUSH_EXC_INFO", "WITH_EXCEPT_START")
    return leaves and re.search(r"with .*\b_?(guard|lock|objects)\b", line) is not None


class At:
    """Raises at the line or call of that number, once.

    :ivar has_raised: whether there was one.
    """

    def __init__(self, number: int) -> None:
        self._left = number
        self.has_raised = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in MODULES:
            return None
        if event == "call" or (event == "line" and not is_end_of_a_locked_block(frame)):
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                self.has_raised = True
                raise Interrupt
        return self


def interrupted(action: Callable[[], Any], number: int) -> tuple[bool, Interrupt | None]:
    """Whether an action has so many lines and calls, and what it was interrupted by there.

    Python itself swallows what is raised in a finalizer.
    """
    before, at = sys.gettrace(), At(number)
    sys.settrace(at)
    try:
        action()
    except Interrupt as error:
        return True, error
    finally:
        sys.settrace(before)
    return at.has_raised, None


def write(state: GlobalState, data: Any) -> None:
    data["k"] = data["k"] + 1


def write_several(state: GlobalState, data: Any) -> None:
    data.update(k=5, j=5)


def transaction(state: GlobalState, data: Any) -> None:
    with state.transaction():
        data["k"], data["j"] = data["k"] + 1, data["j"] + 1


def transaction_of_a_stack(state: GlobalState, data: Any) -> None:
    with ExitStack() as stack:
        stack.enter_context(state.transaction())
        data["k"], data["j"] = data["k"] + 1, data["j"] + 1


def transactional(state: GlobalState, data: Any) -> None:
    @state.transactional
    def add() -> None:
        data["k"], data["j"] = data["k"] + 1, data["j"] + 1

    add()


def request(state: GlobalState, data: Any) -> None:
    with state.request():
        data["k"] = data["k"] + 1
        assert data.copy()["j"] >= 0


def edit(state: GlobalState, data: Any) -> None:
    with data.edit("l") as rows:
        rows.append(1)


def nested(state: GlobalState, data: Any) -> None:
    data["l"].append(1)
    data["d"]["n"] += 1


def read(state: GlobalState, data: Any) -> None:
    data.sync()
    data.copy()
    len(data)
    data.get("k")
    data.get("absent")


ACTIONS = [
    write,
    write_several,
    transaction,
    transaction_of_a_stack,
    transactional,
    request,
    edit,
    nested,
    read,
    lambda state, data: data.increment("k"),
    lambda state, data: data.pop("j", None),
    lambda state, data: data.popitem(),
    lambda state, data: data.clear(),
    lambda state, data: state.sync(),
]


def is_open(state: GlobalState) -> bool:
    """Whether another thread can close the gate, and change what is inside of a value: nothing is held."""
    failed: list[BaseException] = []

    def close() -> None:
        try:
            state._gate.close()
            state._gate.open()
            data = state.dict("DATA")
            data["l"] = []
            data["l"].append(1)
        except BaseException as error:
            failed.append(error)

    state._gate._timeout = 0.2
    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not failed and not thread.is_alive()


class Unfinished(Hold[None]):
    """Of which the end is cut short."""

    def enter(self) -> None:
        """Nothing is held."""

    def leave(self, error: BaseException | None) -> None:
        """Nothing is done."""


def test_a_statement_that_was_left_is_over_though_its_end_was_cut_short() -> None:
    hold = Unfinished()
    looked_up = hold.__exit__  # As a with statement does it before it calls __enter__.
    hold.__enter__()
    assert not hold.is_left()
    del looked_up
    assert hold.is_left()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
@pytest.mark.parametrize(("mode", "step"), [("request", 1), ("manual", 7)])
def test_after_an_interrupt_at_any_line_nothing_is_silent(
    action: Callable[..., Any], mode: str, step: int
) -> None:
    """Both workers read the same, later writes are committed, and nothing is left up.

    :param step: one of so many lines and calls is tried; what the modes differ in is a small part.
    """
    if action is transaction_of_a_stack:
        step *= 11  # Garbage is collected after each.
    state, other = make_workers(2, sync=mode)
    data, theirs = state.dict("DATA"), other.dict("DATA")
    for number in range(1, 5000, step):
        data.update(k=1, j=1, l=[], d={"n": 0})
        assert data.copy()["k"] == 1
        was_interrupted, kept = interrupted(lambda: action(state, data), number)
        if action is transaction_of_a_stack:
            kept = None  # Variables of contextlib refer to the transaction, and to each other.
            gc.collect(1)
        assert request_here() is None
        assert not any(not one.is_over for one in current_transactions.get())
        assert running_requests() == []
        check_both(state, data, theirs, number)
        del kept
        if not was_interrupted:
            break
    assert number > 20
    assert is_open(state)


def check_both(state: GlobalState, data: Any, theirs: Any, number: int) -> None:
    def all_of_theirs() -> Any:
        theirs.sync()
        return theirs.copy()

    expected = elsewhere(all_of_theirs)
    if "Manual" in type(data._replica).__name__:
        data.sync()  # What was interrupted need not be loaded.
    assert {key: data[key] for key in data} == data.copy() == expected
    data["after"] = number
    assert elsewhere(all_of_theirs)["after"] == data["after"] == number
    assert data._replica.freshness.is_unchanged(data._replica)
    assert data._replica.row == data._replica.remembered, "no read is a hit any more"
    assert data._replica.freshness._transactions == set()
