"""The application that faults are tried on; a request is a list of steps, each of which is timed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, jsonify, request
from werkzeug.exceptions import InternalServerError

from flask_globalstate import ConflictError, GlobalState, GlobalStateError

from . import legacy, ways
from .client import ACCOUNTS, EACH
from .pauses import pause_stores

logging.basicConfig(format="%(process)d %(levelname)s %(name)s %(message)s")

RETRIES = 50

if os.environ.get("FAULTS_BROKEN"):
    from .broken import BROKEN

    BROKEN[os.environ["FAULTS_BROKEN"]]()

if os.environ.get("FAULTS_PAUSES"):
    pause_stores()

app = Flask(__name__)
state = GlobalState(app)
REGISTERS = {"read": state.dict("REGISTERS", sync="read"), "request": state.dict("FRESH_REGISTERS")}
COUNTERS = {
    "read": state.dict("COUNTERS", sync="read"),
    "request": state.dict("FRESH_COUNTERS"),
    "manual": state.dict("MANUAL_COUNTERS", sync="manual"),
}
LISTS = state.dict("LISTS")
BANK = state.dict("BANK", initial={**{str(n): EACH for n in range(ACCOUNTS)}, "transfers": 0})
#: the same in two names: the accounts with an even number, and the odd ones
EVEN = state.dict("EVEN", initial={**{str(n): EACH for n in range(0, ACCOUNTS, 2)}, "transfers": 0})
ODD = state.dict("ODD", initial={str(n): EACH for n in range(1, ACCOUNTS, 2)})


def append(key: str, one: str) -> None:
    """Append to a list inside of a dict inside of a shared dict."""
    if key not in LISTS:
        LISTS.setdefault(key, {"ids": []})
    LISTS[key]["ids"].append(one)


def ids(key: str) -> list[str]:
    """The ids that were appended."""
    return list(LISTS[key]["ids"]) if key in LISTS else []


def accounts(bank: str, account: str) -> Any:
    """The name in which an account is."""
    return BANK if bank == "one" else (ODD if int(account) % 2 else EVEN)


@state.transactional(retries=RETRIES)
def transfer(bank: str, source: str, target: str, amount: int) -> int:
    """Move money; how many transfers there were."""
    accounts(bank, source)[source] -= amount
    accounts(bank, target)[target] += amount
    counted = accounts(bank, "0")
    counted["transfers"] += 1
    return int(counted["transfers"])


@state.transactional(retries=RETRIES)
def total_in_transaction(bank: str) -> list[int]:
    """The sum of all accounts, and how many transfers there were."""
    total = sum(accounts(bank, str(n))[str(n)] for n in range(ACCOUNTS))
    return [total, accounts(bank, "0")["transfers"]]


def total_in_snapshot(bank: str) -> list[int]:
    """The same from one copy."""
    assert bank == "one", "a snapshot is of one name"
    found = BANK.copy()
    transfers = found.pop("transfers")
    return [sum(found.values()), transfers]


def within(mode: str, key: str) -> list[int | None]:
    """See a counter, let a request within this one count it, and count it too; what both have written."""
    number = COUNTERS[mode].get(key, 0)
    answer = app.test_client().post("/", json=[["bump", mode, "get", key, 0]]).get_json()
    if "steps" not in answer:
        raise RuntimeError(f"the request within was answered {answer['error']}")
    inner: int | None = answer["steps"][0][2]
    try:
        COUNTERS[mode][key] = number + 1
    except ConflictError:
        if mode == "manual":
            COUNTERS[mode].sync()
        return [inner, None]
    return [inner, number + 1]


STEPS: dict[str, Callable[..., Any]] = {
    "read": lambda mode, key: REGISTERS[mode].get(key),
    "write": lambda mode, key, value: REGISTERS[mode].update({key: value}),
    "within": within,
    "cas": lambda mode, key, expected, new: set_if(REGISTERS[mode], key, expected, new),
    "append": append,
    "list": ids,
    "transfer": transfer,
    "total": total_in_transaction,
    "snapshot": total_in_snapshot,
    **ways.Ways(state, COUNTERS).steps,
}
if os.environ.get("FAULTS_MODULE"):
    STEPS |= ways.share_module(state, legacy)


def set_if(register: Any, key: str, expected: Any, new: Any) -> bool:
    """Compare and set; a key that is absent is compared as an assignment that expects nothing."""
    return bool(register.compare_and_set(key, expected, new))


def run(steps: Iterable[list[Any]]) -> list[list[Any]]:
    """What came of each step."""
    return ways.run(STEPS, steps, time.monotonic_ns)


@app.post("/")
def do() -> Any:
    """Make steps in whichever worker takes the request."""
    return jsonify(pid=os.getpid(), begun=request.environ["faults.begun"], steps=run(request.get_json()))


@app.errorhandler(GlobalStateError)
def say(error: GlobalStateError) -> Any:
    """An error outside of the steps: of the sync before the request, or of its end."""
    app.logger.warning("%s", error)
    return jsonify(error=f"{type(error).__name__}: {error}"), 503


@app.errorhandler(InternalServerError)
def say_at_the_end(error: InternalServerError) -> Any:
    """An error of what is done after the view, such as publishing the globals of a module."""
    cause = error.original_exception
    return say(cause) if isinstance(cause, GlobalStateError) else error


class Timed:
    """Notes when a request came, before any of our hooks."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["faults.begun"] = time.monotonic_ns()
        return self._application(environ, start_response)


app.wsgi_app = Timed(app.wsgi_app)  # type: ignore[method-assign]
