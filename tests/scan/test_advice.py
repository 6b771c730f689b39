"""The advice on a global: a program that follows it does as before, over several processes."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate.scan.advice import Advice, advise
from tests.support.sources import command, scanned, write


class Case:
    """A program with one global, ``X``, and the same after the advice.

    :param made: how the module makes it.
    :param body: of the function that changes it.
    :param read: what a reader reads.
    :param code: what is to be written where it is made.
    :param body_after: the body as the notes of the advice say.
    :param read_after: likewise.
    :param shared: how ``share_globals`` is told of it.
    """

    def __init__(
        self,
        made: str,
        body: str,
        read: str,
        code: str,
        *notes: str,
        body_after: str = "",
        read_after: str = "",
        where: str = "",
        shared: str = '"X"',
    ) -> None:
        self.made, self.body, self.read = made, body, read
        self.code, self.notes, self.where, self.shared = code, list(notes), where, shared
        self.body_after, self.read_after = body_after or body, read_after or read

    def source(self, made: str, body: str, read: str) -> str:
        return (
            f"{made}\n\ndef change(x):\n    global X\n{textwrap.indent(body, '    ')}\n\n"
            f"def read():\n    return {read}\n"
        )

    @property
    def plain(self) -> str:
        return self.source(self.made, self.body, self.read)

    @property
    def answer(self) -> str:
        """What one process reads after two changes."""
        module: dict[str, Any] = {}
        exec(self.plain, module)
        module["change"]("a")
        module["change"]("b")
        return str(module["read"]())

    @property
    def advised(self) -> str:
        """The program with the new line where the advice says."""
        lines = self.made.split("\n")
        if self.where == "at the top of the module":
            lines.insert(0, self.code)
        elif self.where:
            lines.insert(int(self.where.removeprefix("below line ")), self.code)
        else:
            lines = [self.code if line.startswith("X") else line for line in lines]
        return "from states import state_of\nstate = state_of(__name__)\n" + self.source(
            "\n".join(lines), self.body_after, self.read_after
        )


USED = "X.value where it is used"


EDITED = ("`with X.edit() as x:` where it is changed", "X.value where it is read")


CASES = {
    "dict": Case("X = {}", "X[x] = 1", "dict(X)", 'X = state.dict("X")'),
    "dict with content": Case(
        "X = {'c': 2}", "X[x] = 1", "dict(X)", "X = state.dict(\"X\", initial={'c': 2})"
    ),
    "nested": Case(
        "X = {}", "X.setdefault('all', []).append(x)\nX['all'][0] += '!'", "dict(X)", 'X = state.dict("X")'
    ),
    "filled at import": Case(
        "X = {}\nX['c'] = 2\nfor i in range(2):\n    X[i] = i",
        "X[x] = 1",
        "dict(X)",
        'X = state.dict("X", initial=X)',
        where="below line 4",
    ),
    "on many lines": Case(
        "X = {\n    'c': 2,\n}",
        "X[x] = 1",
        "dict(X)",
        'X = state.dict("X", initial=X)',
        where="below line 3",
    ),
    "counted items": Case(
        "X = {'n': 0}",
        "X['n'] += 1",
        "X['n']",
        "X = state.dict(\"X\", initial={'n': 0})",
        "X.increment('n') for X['n'] += 1",
        body_after="X.increment('n')",
    ),
    "items counted down": Case(
        "X = {'n': 9}",
        "X['n'] -= 2",
        "X['n']",
        "X = state.dict(\"X\", initial={'n': 9})",
        "X.increment('n', -2) for X['n'] -= 2",
        body_after="X.increment('n', -2)",
    ),
    "dict bound again": Case(
        "X = {}",
        "X = {}\nX[x] = 1",
        "dict(X)",
        'X = state.dict("X")',
        "X.clear() where it is bound again",
        body_after="X.clear()\nX[x] = 1",
    ),
    "defaultdict": Case(
        "from collections import defaultdict\nX = defaultdict(list)",
        "X['all'].append(x)",
        "dict(X)",
        'X = state.dict("X")',
        "X.setdefault(key, []) where X[key] makes a missing one",
        body_after="X.setdefault('all', []).append(x)",
    ),
    "defaultdict of int": Case(
        "from collections import defaultdict\nX = defaultdict(int)",
        "X[x] += 1",
        "dict(X)",
        'X = state.dict("X")',
        "X.increment(x) for X[x] += 1",
        body_after="X.increment(x)",
    ),
    "OrderedDict": Case(
        "from collections import OrderedDict\nX = OrderedDict()",
        "X[x] = 1\nX.move_to_end(x)",
        "dict(X)",
        'X = state.value("X", initial=OrderedDict())',
        *EDITED,
        body_after="with X.edit() as y:\n    y[x] = 1\n    y.move_to_end(x)",
        read_after="dict(X.value)",
    ),
    "Counter of items": Case(
        "from collections import Counter\nX = Counter()",
        "X[x] += 1",
        "dict(X)",
        'X = state.dict("X")',
        "X.increment(x) for X[x] += 1",
        body_after="X.increment(x)",
    ),
    "Counter": Case(
        "from collections import Counter\nX = Counter()",
        "X.update([x, x])",
        "dict(X)",
        'X = state.value("X", initial=Counter())',
        *EDITED,
        body_after="with X.edit() as y:\n    y.update([x, x])",
        read_after="dict(X.value)",
    ),
    "list": Case("X = []", "X.append(x)\nX.extend('yz')\nX.pop()", "list(X)", 'X = state.list("X")'),
    "list cut": Case(
        "X = [1]",
        "X.append(x)\nX = X[-2:]",
        "list(X)",
        'X = state.value("X", initial=[1])',
        USED,
        body_after="X.value.append(x)\nX.value = X.value[-2:]",
        read_after="list(X.value)",
    ),
    "heap": Case(
        "import heapq\nX = []",
        "heapq.heappush(X, x)",
        "list(X)",
        'X = state.value("X", initial=[])',
        *EDITED,
        body_after="with X.edit() as y:\n    heapq.heappush(y, x)",
        read_after="list(X.value)",
        shared="",
    ),
    "set": Case("X = set()", "X.add(x)\nX |= {1}", "sorted(map(str, X))", 'X = state.set("X")'),
    "deque": Case(
        "from collections import deque\nX = deque(maxlen=1)",
        "X.appendleft(x)",
        "list(X)",
        'X = state.value("X", initial=deque(maxlen=1))',
        *EDITED,
        body_after="with X.edit() as y:\n    y.appendleft(x)",
        read_after="list(X.value)",
    ),
    "counter": Case("X = 0", "X += 1", "int(X)", 'X = state.counter("X")', shared="X=SharedCounter"),
    "counter by a sum": Case(
        "X = 5",
        "X = X + 2",
        "int(X)",
        'X = state.counter("X", initial=5)',
        "X += 2 for X = X + 2",
        body_after="X += 2",
        shared="X=SharedCounter",
    ),
    "counter set back": Case(
        "X = 0",
        "X += 3\nif X > 4:\n    X = 0",
        "int(X)",
        'X = state.counter("X")',
        "X.set(0) for X = 0",
        body_after="X += 3\nif X > 4:\n    X.set(0)",
        shared="X=SharedCounter",
    ),
    "ids": Case(
        "import itertools\nX = itertools.count(10, 5)\nLAST = []",
        "LAST[:] = [next(X)]",
        "list(LAST)",
        'X = state.counter("X", initial=5)',
        "X.increment(5) for next(X)",
        body_after="LAST[:] = [X.increment(5)]",
        shared="",
    ),
    "int that is no counter": Case(
        "X = 1",
        "X *= 3",
        "X",
        'X = state.value("X", initial=1)',
        USED,
        body_after="X.value *= 3",
        read_after="X.value",
    ),
    "float": Case(
        "X = 0.0",
        "X += 0.5",
        "X",
        'X = state.value("X", initial=0.0)',
        USED,
        body_after="X.value += 0.5",
        read_after="X.value",
    ),
    "str": Case(
        "X = 'dark'",
        "X = x",
        "X",
        "X = state.value(\"X\", initial='dark')",
        USED,
        body_after="X.value = x",
        read_after="X.value",
    ),
    "None": Case(
        "X = None",
        "X = {x: 1}\nX[1] = 2",
        "X",
        'X = state.value("X")',
        USED,
        body_after="X.value = {x: 1}\nX.value[1] = 2",
        read_after="X.value",
    ),
    "made by functions": Case(
        "",
        "X = x",
        "X",
        'X = state.value("X")',
        USED,
        body_after="X.value = x",
        read_after="X.value",
        where="at the top of the module",
        shared="",
    ),
}


#: what is told of a case to the process that runs it, by the name of its module
MODULES = {f"m{number}": case for number, case in enumerate(CASES.values())}


STATES = """\
from flask_globalstate import GlobalState
def state_of(name):
    return GlobalState.from_config({"STORE_BACKEND": "%s", "STORE_PATH": "data-" + name})
"""


RUN = """\
import contextlib, importlib, json, sys, traceback
from flask_globalstate import SharedCounter
from states import state_of
answers = {}
for name, shared in json.loads(sys.argv[2]).items():
    try:
        module = importlib.import_module(name)
        state = state_of(name) if shared else None
        if shared:
            eval(f"state.share_globals({name!r}, {shared})")
        for x in sys.argv[1]:
            with state.request() if state else contextlib.nullcontext():
                module.change(x)
        answers[name] = [str(module.read()), type(module.X).__name__]
    except Exception:
        answers[name] = [traceback.format_exc(), ""]
print(json.dumps(answers))
"""


#: what each of one or two processes changes, one after the other
RUNS = {"memory": ["ab"], "shelve": ["a", "b"]}


def advice_on(folder: Path, case: Case) -> Advice:
    """What is said of the only global of a program."""
    found = [one for one in scanned(folder, case.plain).sure if one.thing.name == "X"]
    assert len(found) == 1
    return advise(found[0], "X")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_advice_on_a_global(case: Case, tmp_path: Path) -> None:
    assert advice_on(tmp_path, case) == Advice(case.code, case.where, case.notes, case.shared)


def answers(
    folder: Path, store: str, sources: dict[str, str], shared: dict[str, str]
) -> dict[str, list[str]]:
    """What is read at last in each module, and the type of its global."""
    write(folder, {f"{name}.py": source for name, source in sources.items()} | {"states.py": STATES % store})
    for changes in RUNS[store]:
        told = command(folder, "-W", "error", "-c", RUN, changes, json.dumps(shared))
        assert told.returncode == 0, told.stderr
    found: dict[str, list[str]] = json.loads(told.stdout)
    return found


@pytest.fixture(scope="module", params=RUNS)
def advised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The answers of the programs that follow the advice."""
    sources = {name: case.advised for name, case in MODULES.items()}
    return answers(tmp_path_factory.mktemp("advised"), request.param, sources, dict.fromkeys(MODULES, ""))


@pytest.fixture(scope="module", params=RUNS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The answers of the programs whose global is shared from outside."""
    arguments = {name: case.shared for name, case in MODULES.items() if case.shared}
    sources = {name: MODULES[name].plain for name in arguments}
    return answers(tmp_path_factory.mktemp("shared"), request.param, sources, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES, ids=CASES)
def test_a_program_that_follows_the_advice_does_as_before_over_several_processes(
    name: str, advised: dict[str, list[str]]
) -> None:
    answer, kind = advised[name]
    assert answer == MODULES[name].answer, MODULES[name].advised
    assert kind.startswith("Shared")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if case.shared])
def test_a_program_that_is_shared_from_outside_does_as_before_over_several_processes(
    name: str, shared: dict[str, list[str]]
) -> None:
    assert shared[name][0] == MODULES[name].answer, MODULES[name].plain
