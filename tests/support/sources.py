"""Source that is scanned, and the command that is run on it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from flask_globalstate.scan import Report, scan
from tests.support import PATIENCE


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


def sure(report: Report) -> set[str]:
    """The names of the globals that are changed."""
    return {one.thing.name for one in report.sure}


def perhaps(report: Report) -> set[str]:
    """The names of those that may be."""
    return {one.thing.name for one in report.perhaps}


def private(report: Report) -> list[str]:
    """What else is private to each worker."""
    return [one.subject for one in report.private]


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user types it in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
