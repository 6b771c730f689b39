"""A process that is no worker: makes the steps of its argument, and prints what was answered."""

from __future__ import annotations

import json
import os
import sys
import time

from .app import run, state

if __name__ == "__main__":
    begun = time.monotonic_ns()
    done = run(json.loads(sys.argv[1]))
    state.close()
    print(json.dumps({"pid": os.getpid(), "begun": begun, "steps": done}))
