"""Which globals are found: of other modules, of every kind, and caches, class attributes and the like."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_globalstate.scan import Report, scan
from tests.support.sources import perhaps, private, scanned, sure, write


def places(report: Report) -> dict[str, list[str]]:
    """Where each global is changed: ``module.NAME`` to ``module:line``."""
    return {
        f"{one.thing.module.name}.{one.thing.name}": [f"{use.module.name}:{use.line}" for use in one.uses]
        for one in report.sure
    }


# --- other modules --------------------------------------------------------------------------------


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


# --- kinds ----------------------------------------------------------------------------------------


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


# --- what no shared global can stand for ----------------------------------------------------------


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
