"""The versions that are tested are those that are promised."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.version import Version

LOWEST = Path(__file__).parent / "lowest.txt"


def test_what_is_tested_as_the_lowest_version_is_the_lowest_that_is_admitted() -> None:
    admitted = {
        found[1].lower(): Version(found[2])
        for requirement in requires("flask-globalstate") or []
        if (found := re.match(r"([\w-]+)(?:\[[^]]*\])?>=([\d.]+)", requirement))
    }
    pins = [line.split("==") for line in LOWEST.read_text().splitlines() if not line.startswith("#")]
    assert {"flask", "gunicorn", "redis", "werkzeug"} <= {name for name, _ in pins}
    assert {name: Version(pin) for name, pin in pins} == {name: admitted[name] for name, _ in pins}
