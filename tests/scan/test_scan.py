"""``python -m flask_globalstate scan``: what it finds in source that is never run, and what it says of it."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate.scan import Report, scan
from flask_globalstate.scan.advice import Advice, advise
from flask_globalstate.scan.changes import METHODS
from tests.support import ROOT

GLOBALS = """\
import bisect, heapq, itertools, random

DATA = {}
LOG = []
TAGS = set()
HITS = 0
THEME = "dark"
LAST = None
COUNT = itertools.count()
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    """The folder, with these files in it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def scanned(folder: Path, text: str) -> Report:
    """What is found in one module, ``m.py``."""
    return scan([write(folder, {"m.py": text})])


def with_function(body: str, before: str = "") -> str:
    """The globals, and a function of this body."""
    return GLOBALS + before + "\ndef function(x):\n" + textwrap.indent(body, "    ")


def sure(report: Report) -> set[str]:
    """The names of the globals that are changed."""
    return {one.thing.name for one in report.sure}


def perhaps(report: Report) -> set[str]:
    """The names of those that may be."""
    return {one.thing.name for one in report.perhaps}


def private(report: Report) -> list[str]:
    """What else is private to each worker."""
    return [one.subject for one in report.private]


def places(report: Report) -> dict[str, list[str]]:
    """Where each global is changed: ``module.NAME`` to ``module:line``."""
    return {
        f"{one.thing.module.name}.{one.thing.name}": [f"{use.module.name}:{use.line}" for use in one.uses]
        for one in report.sure
    }


# --- what is a change -------------------------------------------------------------------------------

CHANGES = [
    ("DATA[x] = 1", "DATA"),
    ("DATA[x]: int = 1", "DATA"),
    ("DATA[1] = LOG[1] = x", "DATA LOG"),
    ("DATA[1], (LOG[1], *TAGS[1:]) = x", "DATA LOG TAGS"),
    ("del DATA[x]", "DATA"),
    ("del DATA[1], LOG[:]", "DATA LOG"),
    ("DATA[x] += 1", "DATA"),
    ("DATA[x] |= 1", "DATA"),
    ("LOG[:] = []", "LOG"),
    ("DATA['a']['b'] = 1", "DATA"),
    ("DATA['a'][0]['b'].append(1)", "DATA"),
    ("DATA.get(x).append(1)", "DATA"),
    ("DATA.setdefault(x, []).append(1)", "DATA"),
    ("return DATA.setdefault(x, [])", "DATA"),
    ("LOG.__setitem__(0, 1)", "LOG"),
    ("for DATA[x] in x: pass", "DATA"),
    ("for a, DATA[x] in x: pass", "DATA"),
    ("[0 for LOG[0] in x]", "LOG"),
    ("with open(x) as DATA[x]: pass", "DATA"),
    ("with open(x) as (a, DATA[x]): pass", "DATA"),
    ("[DATA.pop(key) for key in x]", "DATA"),
    ("print(f'{DATA.pop(x)}')", "DATA"),
    ("yield DATA.pop(x)", "DATA"),
    ("return x and LOG.pop()", "LOG"),
    ("next(COUNT)", "COUNT"),
    ("heapq.heappush(LOG, x)", "LOG"),
    ("bisect.insort(LOG, x)", "LOG"),
    ("random.shuffle(LOG)", "LOG"),
    ("from heapq import heappop as take\ntake(LOG)", "LOG"),
    # bound again
    ("global HITS\nHITS = 1", "HITS"),
    ("global HITS\nHITS += 1", "HITS"),
    ("global HITS\nHITS: int = 1", "HITS"),
    ("global HITS\nif (HITS := 1): pass", "HITS"),
    ("global HITS\n[HITS := i for i in x]", "HITS"),
    ("global HITS, LAST\nHITS, (LAST, *rest) = x", "HITS LAST"),
    ("global LAST\nLAST = 'x'", "LAST"),
    ("global LAST\nLAST = {}", "LAST"),
    ("global LAST\nfor LAST in x: pass", "LAST"),
    ("global LAST\nwith x as LAST: pass", "LAST"),
    ("global LAST\ntry: pass\nexcept OSError as LAST: pass", "LAST"),
    ("global LAST\nmatch x:\n    case {'a': LAST}: pass", "LAST"),
    ("global LAST\nmatch x:\n    case [_, *LAST]: pass", "LAST"),
    ("global DATA\nDATA |= x", "DATA"),
    ("global DATA\ndel DATA", "DATA"),
    ("global NEW\nNEW = 1", "NEW"),
    # under another name
    ("one = DATA\none[x] = 1", "DATA"),
    ("one = other = DATA\none[x] = 1", "DATA"),
    ("one: dict = DATA['a']\none['b'] = 1", "DATA"),
    ("one = DATA['a']\ntwo = one['b']\ntwo.append(1)", "DATA"),
    ("if one := DATA.get(x): one.append(1)", "DATA"),
    ("for one in LOG: one.append(1)", "LOG"),
    ("for one in DATA.values(): one['a'] = 1", "DATA"),
    ("for key, one in DATA.items(): one['a'] = 1", "DATA"),
    ("for one in list(DATA.values()): one.clear()", "DATA"),
    ("for i, one in enumerate(LOG): one['a'] = i", "LOG"),
    ("for i, (key, one) in enumerate(DATA.items()): one['a'] = i", "DATA"),
    ("[one.clear() for one in DATA.values()]", "DATA"),
    # where it stands
    ("def inner():\n    def innermost(): LOG.append(x)", "LOG"),
    ("async def inner():\n    async for i in x: LOG.append(i)", "LOG"),
    ("return lambda: LOG.append(x)", "LOG"),
    ("return sorted(x, key=lambda i: LOG.append(i))", "LOG"),
    ("class Inner:\n    LOG.append(x)", "LOG"),
    ("class Inner:\n    LOG = []\n    def method(self): LOG.append(x)", "LOG"),
    ("def inner(y=LOG.append(x)): pass", "LOG"),
    ("@DATA.setdefault(x, x)\ndef inner(): pass", "DATA"),
    ("if x:\n    try:\n        pass\n    finally:\n        LOG.append(x)", "LOG"),
    ("def inner():\n    LOG = []\nLOG.append(x)", "LOG"),
    ("[LOG for LOG in x]\nLOG.append(x)", "LOG"),
    ("[LOG for LOG in LOG.pop()]", "LOG"),
]


@pytest.mark.parametrize(("body", "names"), CHANGES)
def test_a_change_by_a_function_is_found(body: str, names: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, with_function(body))
    assert sure(report) == set(names.split())
    assert not report.perhaps


@pytest.mark.parametrize(
    ("kind", "method"), [(kind, method) for kind, methods in METHODS.items() for method in sorted(methods)]
)
def test_every_method_that_changes_a_container_is_found(kind: str, method: str, tmp_path: Path) -> None:
    # A global that can be filled at the top only: an empty one is suspicious anyway.
    text = f"""\
        from collections import Counter, OrderedDict, defaultdict, deque
        X = {kind}([1])
        def function(): X.{method}(1)
        """
    assert sure(scanned(tmp_path, text)) == {"X"}


#: the methods that only read
READING = {
    "copy",
    "count",
    "default_factory",
    "difference",
    "elements",
    "fromkeys",
    "get",
    "index",
    "intersection",
    "isdisjoint",
}
READING |= {
    "issubset",
    "issuperset",
    "items",
    "keys",
    "maxlen",
    "most_common",
    "symmetric_difference",
    "total",
    "union",
    "values",
}


@pytest.mark.parametrize("kind", [dict, list, set, deque, defaultdict, OrderedDict, Counter])
def test_the_methods_are_those_of_the_types_themselves(kind: type[Any]) -> None:
    # A new Python's new method is noticed here.
    assert {name for name in dir(kind) if name[0] != "_"} - READING == METHODS[kind.__name__]


NO_CHANGES = [
    "return DATA[x], DATA.get(x), len(DATA), LOG[1:], sorted(LOG), THEME, TAGS | x",
    "for key in DATA: print(key, DATA[key])",
    "DATA.copy()[x] = 1",
    "LOG[1:].append(x)",
    "list(LOG).append(x)",
    "dict(DATA)[x] = 1",
    # a local name of the same sound
    "DATA = {}\nDATA[x] = 1",
    "DATA[x] = 1\nDATA = {}",
    "HITS = 1\nHITS += 1",
    "DATA: dict = {}\nDATA[x] = 1",
    "for LOG in x: LOG.append(1)",
    "with x as LOG: LOG.append(1)",
    "try: pass\nexcept OSError as LOG: LOG.append(1)",
    "match x:\n    case [LOG]: LOG.append(1)",
    "import DATA\nDATA[x] = 1",
    "from x import DATA\nDATA[x] = 1",
    "def DATA(): pass\nDATA[x] = 1",
    "class DATA: pass\nDATA[x] = 1",
    "if (LOG := x): LOG.append(1)",
    "[LOG.append(1) for LOG in x]",
    "{LOG.pop(): LOG for LOG in x if LOG.clear()}",
    "[key for key in x]",
    "(lambda LOG: LOG.append(1))(x)",
    "def inner(LOG): LOG.append(1)",
    "def inner(*LOG): LOG[0] = 1",
    "def inner(**DATA): DATA[x] = 1",
    "def inner(a, /, b, *, DATA): DATA[x] = 1",
    "DATA = {}\ndef inner(): DATA[x] = 1",
    "HITS = 0\ndef inner():\n    nonlocal HITS\n    HITS += 1",
    "class Inner:\n    DATA = {}\n    DATA[1] = 2",
    "one = DATA\none = {}\none[x] = 1",
    "for one in x: one.append(1)\nfor one in LOG: print(one)",
    "[(LOG := i) for i in x]\nLOG.append(x)",
    # what can't change an object of its kind
    "HITS.append(x)",
    "THEME.update(x)",
    "LOG.add(x)",
    "global HITS\nreturn HITS",
    "x[DATA] = LOG",
]


@pytest.mark.parametrize("body", NO_CHANGES)
def test_what_changes_no_global_is_not_reported(body: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, with_function(body))
    assert (sure(report), perhaps(report), private(report)) == (set(), set(), [])


def test_what_is_done_while_a_module_is_imported_is_not_reported(tmp_path: Path) -> None:
    text = """\
        DATA = {}
        for i in range(3):
            DATA[i] = 1
        DATA.update(a=1)
        DATA |= {k: v for k, v in DATA.items()}
        class Class:
            DATA["b"] = 2
        if DATA:
            with open("x") as file:
                del DATA[1]
        """
    report = scanned(tmp_path, text)
    assert (sure(report), perhaps(report), private(report)) == (set(), set(), [])


def test_a_function_is_one_wherever_it_is_defined(tmp_path: Path) -> None:
    text = """\
        LOG = []
        class Class:
            class Inner:
                def method(self): LOG.append(1)
            @property
            def three(self): LOG.append(2)
        later = lambda: LOG.append(3)
        def decorator(function):
            def wrapper(): LOG.append(4)
            return wrapper
        @decorator
        def decorated(): LOG.append(5)
        """
    report = scanned(tmp_path, text)
    assert [(use.line, use.scope.label) for use in report.sure[0].uses] == [
        (4, "Class.Inner.method"),
        (6, "Class.three"),
        (7, "<lambda>"),
        (9, "decorator.wrapper"),
        (12, "decorated"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "def keep(function):\n    TABLE[function] = 1\n    return function\n@keep\ndef view(): pass",
        "def keep(name):\n    def inner(function): TABLE[name] = function\n    return inner\n"
        "@keep('a')\ndef view(): pass",
        "def keep(name): TABLE[name] = 1\nkeep('a')\nkeep('b')",
    ],
)
def test_what_seems_to_run_only_at_import_is_not_sure(text: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, "TABLE = {}\n" + text)
    assert (sure(report), perhaps(report)) == (set(), {"TABLE"})
    assert "only while modules are imported" in report.perhaps[0].reason
    again = scanned(tmp_path, "TABLE = {}\n" + text + "\ndef later(): keep('c')")
    assert (sure(again), perhaps(again)) == ({"TABLE"}, set())


# --- what it is given to ----------------------------------------------------------------------------

GIVERS = """
def add(items, x): items.append(x)
def put(first, /, *, into): into[first] = 1
def read(items): return items[0]
def rebind(items): items = []; items.append(1)
"""


@pytest.mark.parametrize(
    ("body", "is_sure"),
    [
        ("add(LOG, x)", True),
        ("add(x=x, items=LOG)", True),
        ("put(x, into=DATA)", True),
        ("add(DATA['a'], x)", True),
        ("return [add(LOG, i) for i in x]", True),
        ("read(LOG)", None),
        ("rebind(LOG)", None),
        ("add(x, FULL)", False),
        ("read(FULL)", False),
        ("unknown(FULL)", False),
        ("unknown(LOG)", None),
        ("x.method(LOG)", None),
        ("len(LOG)", False),
        ("print(DATA, *LOG)", False),
        ("import json\njson.dumps(DATA)", False),
        ("', '.join(LOG)", False),
        ("add(list(LOG), x)", False),
        ("add(*LOG)", False),
    ],
)
def test_a_global_that_is_given_to_a_function_that_changes_it(
    body: str, is_sure: bool | None, tmp_path: Path
) -> None:
    report = scanned(tmp_path, with_function(body, "FULL = [1]\n" + GIVERS))
    assert (len(report.sure), len(report.perhaps)) == (int(is_sure is True), int(is_sure is None))


def test_a_change_through_a_parameter_is_told_as_the_call(tmp_path: Path) -> None:
    report = scanned(tmp_path, with_function("add(LOG, x)", GIVERS))
    assert [use.text() for use in report.sure[0].uses] == ["add(LOG, ...)"]
    assert report.sure[0].uses[0].scope.label == "function"


# --- other modules ----------------------------------------------------------------------------------

DATA = "DATA = {}\nLOG = []\nHITS = 0\n"
#: the file that changes something, what it holds, and what that changes in ``data.py``
IMPORTS = [
    ("m.py", "from data import DATA\ndef f(): DATA[1] = 2", "DATA"),
    ("m.py", "from data import DATA as D, LOG as L\ndef f(): D[1] = L.pop()", "DATA LOG"),
    ("m.py", "import data\ndef f(): data.DATA[1] = 2", "DATA"),
    ("m.py", "import data as d\ndef f(): d.HITS += 1", "HITS"),
    ("m.py", "import data\ndef f(): data.HITS = 1", "HITS"),
    ("m.py", "def f():\n from data import DATA\n DATA[1] = 2", "DATA"),
    ("m.py", "def f():\n import data as d\n def g(): d.LOG.pop()", "LOG"),
    ("m.py", "from data import *\ndef f(): LOG.append(1)", "LOG"),
    ("m.py", "import data\nD = data\ndef f(): data.LOG.append(1)", "LOG"),
    ("m.py", "try:\n import data\nexcept ImportError: pass\ndef f(): data.LOG.append(1)", "LOG"),
    ("m.py", "from data import DATA\nDATA = {}\ndef f(): DATA[1] = 2", ""),
    ("m.py", "from other import DATA\ndef f(): DATA[1] = 2", ""),
    ("m.py", "import data\ndef f(data): data.LOG.append(1)", ""),
    ("m.py", "import data\ndata.LOG.append(1)", ""),
    ("m.py", "import data\ndef f(): return data.LOG.copy()", ""),
]


@pytest.mark.parametrize(("file", "text", "names"), IMPORTS)
def test_a_change_by_another_module_is_found(file: str, text: str, names: str, tmp_path: Path) -> None:
    report = scan([write(tmp_path, {"data.py": DATA, file: text})])
    found = {one.thing.name for one in report.sure if one.thing.module.name == "data"}
    assert found == set(names.split())
    assert {name.partition(".")[2] for name in places(report)} - found <= {"DATA"}


PACKAGE_IMPORTS = [
    ("shop/views.py", "from shop.data import DATA\ndef f(): DATA[1] = 2", "DATA"),
    ("shop/views.py", "import shop.data\ndef f(): shop.data.DATA[1] = 2", "DATA"),
    ("shop/views.py", "import shop.data as d\ndef f(): d.DATA[1] = 2", "DATA"),
    ("shop/views.py", "from shop import data\ndef f(): data.DATA[1] = 2", "DATA"),
    ("shop/views.py", "from .data import DATA\ndef f(): DATA[1] = 2", "DATA"),
    ("shop/views.py", "from . import data\ndef f(): data.DATA[1] = 2", "DATA"),
    ("shop/views.py", "from . import data as d\ndef f(): d.HITS += 1", "HITS"),
    ("shop/views.py", "from . import PASSED\ndef f(): PASSED.pop()", "LOG"),
    ("shop/views.py", "import shop\ndef f(): shop.PASSED.pop()", "LOG"),
    ("shop/api/v1.py", "from ..data import DATA\ndef f(): DATA[1] = 2", "DATA"),
    ("shop/api/v1.py", "from .. import data\ndef f(): data.DATA[1] = 2", "DATA"),
    ("shop/api/v1.py", "from ..data import *\ndef f(): DATA[1] = 2", "DATA"),
    ("shop/api/__init__.py", "from ..data import DATA\ndef f(): DATA[1] = 2", "DATA"),
    ("shop/__init__.py", "from .data import LOG as PASSED\ndef f(): PASSED.pop()", "LOG"),
    ("run.py", "from shop.data import DATA\ndef f(): DATA[1] = 2", "DATA"),
    ("run.py", "from shop import PASSED\ndef f(): PASSED.pop()", "LOG"),
    ("shop/views.py", "from data import DATA\ndef f(): DATA[1] = 2", ""),
    ("shop/views.py", "from ..data import DATA\ndef f(): DATA[1] = 2", ""),
]


@pytest.mark.parametrize(("file", "text", "names"), PACKAGE_IMPORTS)
def test_a_change_by_another_module_of_a_package_is_found(
    file: str, text: str, names: str, tmp_path: Path
) -> None:
    files = {
        "shop/__init__.py": "from .data import LOG as PASSED",
        "shop/data.py": DATA,
        "shop/api/__init__.py": "",
    }
    report = scan([write(tmp_path, files | {file: text})])
    line = text.count("\n") + 1
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert places(report) == {f"shop.data.{name}": [f"{module}:{line}"] for name in names.split()}


def test_globals_that_import_one_another_end(tmp_path: Path) -> None:
    files = {
        "a.py": "from b import *\nfrom b import X",
        "b.py": "from a import *\nfrom a import X\ndef f(): X[1] = Y[1] = 2",
    }
    assert scan([write(tmp_path, files)]).files == 2


def test_the_uses_of_all_modules_stand_together_its_own_first(tmp_path: Path) -> None:
    files = {"z.py": "X = []\ndef f(): X.pop()", "a.py": "import z\ndef g(): z.X.append(1)"}
    assert places(scan([write(tmp_path, files)])) == {"z.X": ["z:2", "a:2"]}


# --- kinds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "import threading\nX = threading.Lock()\ndef f():\n global X\n X = threading.Lock()",
        "import threading\nX = threading.local()\ndef f(): X.name = 1",
        "from contextvars import ContextVar\nX = ContextVar('X')\ndef f(): X.set(1)",
        "import logging\nX = logging.getLogger()\ndef f(): X.handlers.clear()",
        "from flask import Flask\nX = Flask('x')\ndef f(): X.config['A'] = 1",
        "from flask import g, session\ndef f(): g.x = session['x'] = 1",
        "import os\ndef f(): os.environ['A'] = 'b'",
        "import threading\nX = None\ndef f():\n global X\n X = threading.Thread()",
        "from flask_globalstate import GlobalState\nstate = GlobalState()\nX = state.dict('X')\n"
        "def f(): X[1] = 2",
        "from app import state\nX = state.counter('X')\ndef f():\n global X\n X += 1",
        "import flask_globalstate\nX = flask_globalstate.shared_dict('X')\ndef f(): X[1] = 2",
    ],
)
def test_what_is_shared_already_or_only_for_one_process_is_not_reported(text: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, text)
    assert (sure(report), perhaps(report)) == (set(), set())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("X = make()\ndef f(): X['a'] = 1", "if that changes it"),
        ("X = None\ndef f():\n global X\n X = connect()", "connection"),
        ("class C: pass\nX = C()\ndef f(): X.name = 1", "pickled"),
        ("class C:\n def set(self): self.name = 1\nX = C()\ndef f(): X.set()", "pickled"),
        ("class C:\n def update(self): self.name = 1\nX = C()\ndef f(): X.update()", "pickled"),
        ("from types import SimpleNamespace\nX = SimpleNamespace()\ndef f(): X.name = 1", "pickled"),
    ],
)
def test_what_depends_on_more_than_the_source_is_only_perhaps(text: str, reason: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, text)
    assert (sure(report), perhaps(report)) == (set(), {"X"})
    assert reason in report.perhaps[0].reason


@pytest.mark.parametrize(
    "text",
    [
        "class C:\n def update(self): return self.name\nX = C()\ndef f(): X.update()",
        "class C:\n def get(self): return 1\nX = C()\ndef f(): X.get()",
        "X = make()\ndef f(): return X.name",
        "def X(): pass\ndef f(): X()",
        "class X: pass\ndef f(): X()",
    ],
)
def test_objects_that_are_only_used_are_not_reported(text: str, tmp_path: Path) -> None:
    report = scanned(tmp_path, text)
    assert (sure(report), perhaps(report), private(report)) == (set(), set(), [])


# --- what no shared global can stand for ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("from functools import lru_cache\n@lru_cache\ndef f(): pass", ["f()"]),
        ("import functools\n@functools.lru_cache(maxsize=3)\ndef f(): pass", ["f()"]),
        ("import functools as t\nclass C:\n @t.cache\n def f(self): pass", ["C.f()"]),
        ("from cachetools import cache\n@cache\ndef f(): pass", []),
        ("class C:\n all = []\n def f(self): self.all.append(1)", ["C.all = []"]),
        ("class C:\n all = []\n def f(self): C.all.append(1)", ["C.all = []"]),
        ("class C:\n n = 0\n @classmethod\n def f(cls): cls.n += 1", ["C.n = 0"]),
        ("class C:\n n = 0\n def f(self): type(self).n += 1", ["C.n = 0"]),
        ("class C:\n n = 0\n def f(self): self.__class__.n += 1", ["C.n = 0"]),
        ("class C: pass\ndef f(): C.n = 1", ["C.n"]),
        ("class C:\n all = []\n def f(self): self.all = []; self.all.append(1)", []),
        ("class C:\n n = 0\n def f(self): self.n += 1", []),
        ("class C:\n all = []\n def f(self): return self.all[0]", []),
        ("def f(x, seen=[]): seen.append(x)", ["f(seen=[])"]),
        ("def f(x, *, seen={}): seen[x] = 1", ["f(seen={})"]),
        ("def f(x, seen=[]): return x in seen", []),
        ("def f(x, seen=()): seen = [*seen]; seen.append(x)", []),
        ("def f(): f.count += 1\nf.count = 0", ["f.count"]),
        ("def f(): return f.count\nf.count = 0", []),
    ],
)
def test_what_else_each_worker_has_for_itself(text: str, subjects: list[str], tmp_path: Path) -> None:
    report = scanned(tmp_path, text)
    assert private(report) == subjects
    assert (sure(report), perhaps(report)) == (set(), set())
    assert ("Also private to each worker:" in report.text()) == bool(subjects)


# --- files ------------------------------------------------------------------------------------------

FOUND = "X = {}\ndef f(): X[1] = 2\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"X = 1\ndef f(: pass\n", "line 2: invalid syntax"),
        (b"# \xe4\n", "invalid or missing encoding declaration"),
        (b"# coding: nonsense\n", "unknown encoding: nonsense"),
        (b"X = 1\0\n", "null bytes"),
        (b"X = " + b"1 + " * 200_000 + b"1\n", ""),
    ],
)
def test_a_file_that_can_not_be_read_is_named_and_the_others_are_read(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    write(tmp_path, {"good.py": FOUND})
    (tmp_path / "bad.py").write_bytes(content)
    report = scan([tmp_path])
    assert sure(report) == {"X"}
    assert [one.path for one in report.unreadable] == [tmp_path / "bad.py"]
    assert reason in report.unreadable[0].reason


def test_links_in_a_circle_and_to_nowhere_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"good.py": FOUND})
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    (tmp_path / "around").symlink_to(".", target_is_directory=True)
    report = scan([tmp_path])
    assert {one.path.name for one in report.unreadable} == {"loop.py", "gone.py"}
    assert (report.files, sure(report)) == (1, {"X"})


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By hand, since root may read everything.
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    write(tmp_path, {"bad.py": FOUND})
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert [one.reason for one in scan([tmp_path]).unreadable] == ["Permission denied"]


@pytest.mark.parametrize(
    "content",
    [
        b'# coding: latin-1\nX = {"\xe4": 1}\ndef f(): X["\xe4"] = 2\n',
        b'\xef\xbb\xbfX = {"\xc3\xa4": 1}\r\ndef f():\r\n    X["\xc3\xa4"] = 2\r\n',
    ],
)
def test_a_file_is_read_in_the_encoding_that_it_says(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_bytes(content)
    report = scan([tmp_path])
    assert 'X = {"ä": 1}  dict, changed in f' in report.text()
    assert 'X["ä"] = ...' in report.text()


def test_a_deep_expression_is_no_stumbling_block(tmp_path: Path) -> None:
    text = "X = " + "1 + " * 1500 + "1\ndef f():\n    global X\n    X += 1\n"
    assert sure(scanned(tmp_path, text)) == {"X"}


def test_which_files_of_a_folder_are_read(tmp_path: Path) -> None:
    skipped = [".git/a.py", "__pycache__/a.py", "node_modules/a.py", "env/lib/a.py", "notes.txt"]
    write(tmp_path, dict.fromkeys([*skipped, "a.py", "b/c/d.pyw"], FOUND) | {"env/pyvenv.cfg": ""})
    report = scan([tmp_path])
    assert {one.thing.module.path.relative_to(tmp_path).as_posix() for one in report.sure} == {
        "a.py",
        "b/c/d.pyw",
    }
    named = scan([tmp_path / "notes.txt", tmp_path / "env" / "lib", tmp_path / "a.py", tmp_path / "a.py"])
    assert named.files == 3


# --- the command line -------------------------------------------------------------------------------

SHOP = """\
import itertools
from functools import lru_cache

CARTS = {}
LOG = ["started"]
HITS = 0
THEME = "dark"
IDS = itertools.count(1)
RATES = {"EUR": 1.0}
CLIENT = None


def add(name, item):
    global HITS, THEME
    HITS += 1
    THEME = "light"
    CARTS.setdefault(name, []).append(item)
    LOG.append((next(IDS), name, RATES["EUR"]))


def client():
    global CLIENT
    CLIENT = CLIENT or connect()
    return CLIENT


@lru_cache
def price(item):
    return len(item)
"""
SHOP_FOUND = """\
shop.py:4: CARTS = {}  dict, changed in add (line 17: CARTS.setdefault(name, []).append(...))
    CARTS = state.dict("CARTS")
shop.py:5: LOG = ["started"]  list, changed in add (line 18: LOG.append(...))
    LOG = state.list("LOG", initial=["started"])
shop.py:6: HITS = 0  int, changed in add (line 15: HITS += 1)
    HITS = state.counter("HITS")
shop.py:7: THEME = "dark"  str, changed in add (line 16: THEME = ...)
    THEME = state.value("THEME", initial="dark")
      and THEME.value where it is used
shop.py:8: IDS = itertools.count(1)  an itertools.count, changed in add (line 18: next(IDS))
    IDS = state.counter("IDS")
      and IDS.increment() for next(IDS)
or, without an edit of the module:
    state.share_globals("shop", "CARTS", "LOG", "THEME", HITS=SharedCounter)

Perhaps:
shop.py:10: CLIENT = None  changed in client (line 23: CLIENT = ...)
    a connection, a client or a lock stays each worker's own:
    CLIENT = state.value("CLIENT")
      and CLIENT.value where it is used

Also private to each worker:
shop.py:28: price()  what lru_cache keeps

5 globals are changed by functions in 1 file: each worker changes its own. In the new lines, state
is the GlobalState of the application.

What reading can't tell: """


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user types it in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_prints_what_is_found_and_fails(tmp_path: Path) -> None:
    write(tmp_path, {"shop.py": SHOP, "bad.py": "def"})
    told = command(tmp_path, "-m", "flask_globalstate", "scan", ".")
    assert told.stdout.startswith(SHOP_FOUND)
    assert told.stderr == "bad.py: can't be read: line 1: invalid syntax\n"
    assert told.returncode == 1


def test_the_example_of_the_documentation_is_what_the_command_prints(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "scan.rst").read_text(encoding="utf-8")
    block = r"\.\. code-block:: {}\n\n((?:(?: {{4}}.*)?\n)+)"
    code, printed = (
        textwrap.dedent(found[1])
        for language in ("python", "console")
        if (found := re.search(block.format(language), page))
    )
    typed, _, output = printed.partition("\n")
    assert typed == "$ python -m flask_globalstate scan shop.py"
    write(tmp_path, {"shop.py": code})
    told = command(tmp_path, "-m", "flask_globalstate", "scan", "shop.py")
    assert told.stdout.strip() == output.strip()


def test_the_status_is_0_if_nothing_is_sure(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "X = None\ndef f():\n global X\n X = make()", "b.py": "def"})
    told = command(tmp_path, "-m", "flask_globalstate", "scan", "a.py", "b.py")
    assert told.stdout.startswith("Perhaps:\na.py:1: X = None")
    assert "Functions change no global in 1 file, as far as can be told." in told.stdout
    assert told.returncode == 0


def test_what_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert command(tmp_path, "-m", "flask_globalstate", "scan", "none.py").returncode == 2
    assert command(tmp_path, "-m", "flask_globalstate", "scan").returncode == 2


def test_what_a_terminal_can_not_show_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": 'X = {"ä": 1}\ndef f(): X["ä"] = 2'})
    told = command(tmp_path, "-m", "flask_globalstate", "scan", "a.py", PYTHONIOENCODING="ascii")
    assert "1 global is changed" in told.stdout
    assert "Traceback" not in told.stderr


def test_nothing_of_what_is_read_is_run(tmp_path: Path) -> None:
    effect = "open('effect', 'w').close()\n"
    files = {
        "a.py": effect + FOUND,
        "b/__init__.py": effect,
        "b/c.py": effect + "import a\nfrom . import d\ndef f(): a.X[open('effect', 'w')] = 1",
        "conftest.py": effect,
        "sitecustomize.py": "",
    }
    write(tmp_path, files)
    assert command(tmp_path, "-m", "flask_globalstate", "scan", ".").returncode == 1
    assert not (tmp_path / "effect").exists()
    assert not list(tmp_path.rglob("__pycache__"))


def test_two_globals_of_one_name_get_two_names_in_the_store(tmp_path: Path) -> None:
    report = scan([write(tmp_path, {"a.py": FOUND, "b.py": FOUND, "c/a.py": "Y = []\ndef f(): Y.pop()"})])
    text = report.text()
    assert [name in text for name in ('state.dict("a.X")', 'state.dict("b.X")', 'state.list("Y")')] == [
        True
    ] * 3


def test_many_changes_are_cut_short(tmp_path: Path) -> None:
    report = scanned(tmp_path, "X = []\n" + "def f(): X.pop()\n" * 5)
    assert report.text().count("X.pop()") == 3
    assert "and 2 more" in report.text()


# --- the advice -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", MODULES, ids=CASES)
def test_a_program_that_follows_the_advice_does_as_before_over_several_processes(
    name: str, advised: dict[str, list[str]]
) -> None:
    answer, kind = advised[name]
    assert answer == MODULES[name].answer, MODULES[name].advised
    assert kind.startswith("Shared")


@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if case.shared])
def test_a_program_that_is_shared_from_outside_does_as_before_over_several_processes(
    name: str, shared: dict[str, list[str]]
) -> None:
    assert shared[name][0] == MODULES[name].answer, MODULES[name].plain
