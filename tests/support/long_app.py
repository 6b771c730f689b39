"""An application whose requests live long, under gunicorn; its settings come from the environment."""

import json
import os
import time

from flask import Flask, Response, jsonify, stream_with_context
from flask_sock import Sock

from flask_globalstate import GlobalState
from flask_globalstate.system.clock import now

app = Flask(__name__)
state = GlobalState(app)
sock = Sock(app)
DATA = state.dict("DATA", initial={"n": 0, "polls": 0})


def look():
    """When it was looked, and what was there."""
    return [now(), DATA["n"]]


@sock.route("/socket")
def serve_socket(socket):
    """Tell the process; then for each message set what it says, or look for an empty one."""
    socket.send(json.dumps(os.getpid()))
    while True:
        message = json.loads(socket.receive())
        if message is not None:
            DATA["n"] = message
        socket.send(json.dumps(look()))


@app.post("/set/<int:number>")
def set_number(number):
    DATA["n"] = number
    return jsonify(os.getpid())


@app.get("/poll/<int:number>")
def poll(number):
    """Answer when the number is there."""
    DATA.increment("polls")
    while DATA["n"] < number:
        time.sleep(0.01)
    return jsonify(os.getpid())


@app.get("/polls")
def polls():
    return jsonify(DATA["polls"])


@app.get("/stream/<int:last>")
def stream(last):
    """A line for each number that is there, until the last one is."""

    def lines():
        number = -1
        while number < last:
            if DATA["n"] != number:
                number = DATA["n"]
                yield json.dumps([os.getpid(), number]) + "\n"
            time.sleep(0.01)

    return Response(stream_with_context(lines()), mimetype="application/json")
