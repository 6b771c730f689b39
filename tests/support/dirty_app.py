"""What runs in gunicorn's dirty workers: only they have a state, which the HTTP workers use through them."""

import json
import os

from gunicorn.dirty import DirtyApp, get_dirty_client


class Counting(DirtyApp):
    """Counts in the shared counter of ``app.py``."""

    def init(self):
        """Load the application here, and not where this file is imported."""
        from tests.support import app

        self.app = app

    def hit(self):
        """Count, and say who has."""
        return {"pid": os.getpid(), "hits": self.app.HITS.increment()}


def application(environ, start_response):
    """Answer what a dirty worker answers."""
    if environ["REQUEST_METHOD"] == "GET":
        answer = None
    else:
        answer = {
            "pid": os.getpid(),
            "answer": get_dirty_client().execute("tests.support.dirty_app:Counting", "hit"),
        }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
