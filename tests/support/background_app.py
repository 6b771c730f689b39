"""An application whose globals are bound outside of HTTP requests; the environment says the settings.

A thread of each worker does what a file named ``bind`` says, and keeps in ``seen`` what it finds; events of
Socket.IO do the same. With ``REBIND`` in the environment the module itself binds them, once they are shared.
"""

import os
import sys
import threading
import time
from pathlib import Path

from flask import Flask, jsonify
from flask_socketio import SocketIO

from flask_globalstate import GlobalState, SharedCounter

THEME = "first"
HITS = 0

app = Flask(__name__)
state = GlobalState(app)
state.share_globals(sys.modules[__name__], "THEME", HITS=SharedCounter)
socketio = SocketIO(app, async_mode="threading")


def bind(theme):
    global THEME, HITS
    THEME = theme
    HITS += 1


if os.environ.get("REBIND"):
    bind("of the master")


@app.get("/look")
def look():
    return jsonify(seen())


@socketio.on("bind")
def bind_in_event(theme):
    bind(theme)


@socketio.on("look")
def look_in_event():
    return seen()


def seen():
    return [os.getpid(), THEME, HITS]


def watch():
    """Do what the file says, as soon as it is there, and keep the other one up to date."""
    wanted, new, shown = Path("bind"), Path("new"), Path("seen")
    while True:
        if wanted.exists():
            bind(wanted.read_text())
            wanted.unlink()
        new.write_text(f"{THEME} {HITS}")
        new.rename(shown)
        time.sleep(0.01)


if os.environ.get("WATCH"):
    threading.Thread(target=watch, daemon=True).start()
