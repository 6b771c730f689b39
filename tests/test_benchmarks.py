"""The benchmarks run; how fast is not a matter of tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

#: what a loaded machine may need; nothing waits for it to pass
DEADLINE = 900


def test_every_suite_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "smoke", "--results", str(tmp_path)]
    # What the benchmarks start lives in a directory of this test, and ends with them.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    tables = [table for file in tmp_path.glob("*.json") for table in json.loads(file.read_text())["tables"]]
    assert len(tables) > 15
    for table in tables:
        measured = [figure["name"] for figure in table["figures"] if figure["median"] is not None]
        assert measured, table["title"]
        # What needs no other package is never left out.
        assert [f for f in table["figures"] if not f["note"] and f["name"] not in measured] == []


def test_each_suite_is_a_target_of_make() -> None:
    suites = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def run(pace" in path.read_text()}
    named = re.search(r"SUITE=([\w|]+)", (ROOT / "Makefile").read_text())
    assert named is not None
    assert set(named[1].split("|")) - {"smoke"} == suites
