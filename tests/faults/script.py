"""A process that is no worker and has no requests: makes what a session of a storm would ask for."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from .app import run, state
from .storm import ALWAYS_NOTED, THEMES, Session


class Script(Session):
    """A session that asks nobody, but does it."""

    noted = (ALWAYS_NOTED,)
    # Nor "within": the end of a request ends the notes of the thread that it ran in.
    themes = tuple(theme for theme in THEMES if theme != "within")

    def ask(self, steps: list[list[Any]]) -> dict[str, Any]:
        """What came of it."""
        answer = {"pid": os.getpid(), "begun": time.monotonic_ns(), "steps": run(steps)}
        self.note(steps, answer)
        return answer


if __name__ == "__main__":
    Script(**json.loads(sys.argv[1]), themes=Script.themes).run()
    state.close()
