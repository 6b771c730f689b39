"""``python -m flask_globalstate scan``: its files, what it prints, its exit status."""

from __future__ import annotations

import errno
import re
import textwrap
from pathlib import Path

import pytest

from flask_globalstate.scan import scan
from tests.support import ROOT
from tests.support.sources import command, scanned, sure, write

# --- files ----------------------------------------------------------------------------------------


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


# --- the command line -----------------------------------------------------------------------------


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
