"""Faults: real workers, things that break, clients that note what they saw, checkers that judge it."""

import sys
from pathlib import Path

# What `tests/processes/harness.py` knows of processes is used here too.
sys.path.append(str(Path(__file__).parents[1] / "processes"))
