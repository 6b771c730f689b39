"""YAML that is imported after the shared globals were made, and before a request begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import PATIENCE

SCRIPT = """
from flask_globalstate import GlobalState
state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": "store"})
DATA = state.dict("DATA", {"rows": [{"a": 1}]})
import yaml
for thing in (DATA, DATA["rows"]):
    try:
        print(yaml.dump(thing))
    except TypeError as error:
        print(error)
class Own(yaml.SafeDumper):
    pass
Own.add_multi_representer(tuple, lambda dumper, data: dumper.represent_list(data))
with state.request():
    print(yaml.dump(DATA, Dumper=Own))
"""


def test_yaml_that_is_imported_late_is_refused_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    refused, *dumped = done.stdout.split("\n", 1)
    assert "import it at the top of the module, or dump a copy()" in refused
    assert dumped == ["- a: 1\n\nrows:\n- a: 1\n\n"]
