"""What the documentation says is true: its programs run, its commands exist, its tables are complete."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import errors
from flask_globalstate.state.settings import DEFAULTS
from flask_globalstate.stores import STORES
from tests.support import PATIENCE, ROOT, environment

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "demo" / "README.md",
    *sorted(ROOT.glob("docs/*.rst")),
]
MARKDOWN_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RST_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
#: how a block begins that later blocks of its page import
FILE = re.compile(r"# (\w+\.py)\n")
#: what is done with an application that a block makes, beside running the block
VISIT = """
if "app" in globals():
    from tests.support.visiting import visit
    visit(app)
"""


def blocks(*languages: str) -> Iterator[Any]:
    """The blocks of code in every page, as parameters of a test."""
    for page in PAGES:
        pattern = RST_BLOCK if page.suffix == ".rst" else MARKDOWN_BLOCK
        text = page.read_text(encoding="utf-8")
        files: dict[str, str] = {}
        for found in pattern.finditer(text):
            if found[1] in languages:
                line, code = text.count("\n", 0, found.start()) + 1, textwrap.dedent(found[2])
                yield pytest.param(code, dict(files), id=f"{page.relative_to(ROOT)}:{line}")
                if named := FILE.match(code):
                    files[named[1]] = code


def run(command: list[str], directory: Path) -> None:
    """Run a program as a user would, in a directory of its own."""
    clean = {key: value for key, value in environment().items() if not key.startswith("FLASK_")}
    result = subprocess.run(
        command, cwd=directory, env=clean, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("code", "files"), list(blocks("python")))
def test_every_python_block_runs(code: str, files: dict[str, str], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    if "def test_" in code:
        (tmp_path / "test_block.py").write_text(code, encoding="utf-8")
        options = ["-p", "no:cacheprovider", "-q", "--basetemp", "temporary"]
        run([sys.executable, "-m", "pytest", *options, "test_block.py"], tmp_path)
    else:
        (tmp_path / "block.py").write_text(code + VISIT, encoding="utf-8")
        run([sys.executable, "-W", "error", "block.py"], tmp_path)


@pytest.mark.parametrize(("code", "files"), list(blocks("console")))
def test_every_command_can_be_given(code: str, files: dict[str, str]) -> None:
    commands = [
        line.removeprefix("$ ").partition("  #")[0] for line in code.splitlines() if line.startswith("$ ")
    ]
    assert commands
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        for target in re.findall(r"(?:^|&& )make (\w+)", command):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        for path in re.findall(r"(?<![\w/.])(?:tests|demo|docs|benchmarks|\.ci)/[\w./-]*\w", command):
            assert (ROOT / path).exists(), command


def test_there_are_blocks_in_readme_and_docs() -> None:
    ids = [parameter.id.partition(":")[0] for parameter in blocks("python")]
    assert ids.count("README.md") >= 3
    assert len(set(ids)) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) if page.suffix == ".md" else []
    for link in links:
        assert link.startswith("http") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.rst"])
def test_every_setting_is_in_the_table(page: str) -> None:
    named = set(re.findall(r"STORE_([A-Z_]*[A-Z])", (ROOT / page).read_text(encoding="utf-8")))
    assert named >= set(DEFAULTS)
    assert named - set(DEFAULTS) <= {"URL", "ID"}


@pytest.mark.parametrize("page", ["README.md", "docs/stores.rst"])
def test_every_store_is_in_the_table(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in STORES if f"`{name}`" not in text] == []


def test_every_error_is_explained() -> None:
    text = (ROOT / "docs" / "errors.rst").read_text(encoding="utf-8")
    defined = [name for name, thing in vars(errors).items() if isinstance(thing, type)]
    assert [name for name in defined if name not in text] == []


def test_every_door_and_folder_is_on_the_map_of_the_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    doors = {path.name for path in (ROOT / "flask_globalstate").glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in (ROOT / "flask_globalstate").glob("*/__init__.py")}
    assert [name for name in sorted(doors | folders) if f"`{name}`" not in text] == []


def test_every_folder_says_what_lives_there_and_what_may_be_imported() -> None:
    for path in (ROOT / "flask_globalstate").glob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert re.search(r"\bmay import\b", text), f"{path} does not say what it may import"


def test_every_file_on_the_way_of_a_read_and_of_a_write_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    way = text[text.index("## The way of a read") : text.index("## Adding a store")]
    files = set(re.findall(r"`([a-z]+/[a-z_/]+\.py)`", way))
    assert len(files) > 10
    assert [file for file in sorted(files) if not (ROOT / "flask_globalstate" / file).exists()] == []
