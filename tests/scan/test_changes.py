"""What is a change of a global, by a function or by one that it is given to."""

from __future__ import annotations

import textwrap
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate.scan.changes import METHODS
from tests.support.sources import perhaps, private, scanned, sure

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


def with_function(body: str, before: str = "") -> str:
    """The globals, and a function of this body."""
    return GLOBALS + before + "\ndef function(x):\n" + textwrap.indent(body, "    ")


# --- what is a change -----------------------------------------------------------------------------


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


# --- what it is given to --------------------------------------------------------------------------


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
