"""The application that the tests run under gunicorn; all its settings come from the environment."""

import json
import logging
import os

from flask import Flask, Response, jsonify, request, stream_with_context

from flask_globalstate import GlobalState, GlobalStateMiddleware

#: what a held request waits for is this long, so that the server never reads too little or too much
BODY_LENGTH = 256

logging.basicConfig(format="%(process)d %(levelname)s %(name)s %(message)s")

app = Flask(__name__)
state = GlobalState(app)
DATA = state.dict("DATA")
HITS = state.counter("HITS")
THEME = state.value("THEME", initial="dark")
SEEDED = state.dict("SEEDED", initial={"a": 100})


def seed():
    """What one worker only may commit."""
    return {"by": os.getpid(), "count": 100}


BY_ONE = state.dict("BY_ONE", initial=seed)


def run(commands):
    """Run what a test asks for, a list of (name, arguments...); the last answer."""
    answer = None
    for name, *arguments in commands:
        answer = COMMANDS[name](*arguments)
    return answer


def hit(times):
    """Each is the ``HITS += 1`` of a user's module."""
    global HITS
    for _ in range(times):
        HITS += 1


def hit_and_increment(times):
    """Both counts, in turns."""
    global HITS
    for _ in range(times):
        HITS += 1
        DATA.increment("n")


def set_theme(theme):
    """Rebind a plain value."""
    THEME.value = theme


def seeds():
    """The seeds that this worker sees, and the revision of the commit that made them."""
    return [dict(BY_ONE), state.store.revision("BY_ONE").number]


COMMANDS = {
    "set": lambda key, value: DATA.update({key: value}),
    "get": DATA.get,
    "items": DATA.copy,
    "increment": DATA.increment,
    "hit": hit,
    "hit_and_increment": hit_and_increment,
    "hits": lambda: HITS.value,
    "theme": lambda: THEME.value,
    "set_theme": set_theme,
    "seeded": SEEDED.copy,
    "increment_seeded": lambda key, by: SEEDED.increment(key, by),
    "seeds": seeds,
}


@app.post("/")
def do():
    """Run commands in whichever worker takes the request."""
    return jsonify(pid=os.getpid(), answer=run(request.get_json()))


@app.post("/hold/<key>")
def hold(key):
    """Answer a value at once, then keep this worker busy until the client sends commands."""
    value = DATA.get(key)
    body = request.environ["wsgi.input"]

    def answer():
        yield json.dumps({"pid": os.getpid(), "value": value}) + "\n"
        yield json.dumps({"pid": os.getpid(), "answer": run(json.loads(body.read(BODY_LENGTH)))}) + "\n"

    return Response(stream_with_context(answer()), mimetype="application/json")


def plain_wsgi(environ, start_response):
    """The same for a server without Flask: the path is the command, the body is its arguments."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    commands = json.loads(environ["wsgi.input"].read(length))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "answer": run(commands)}).encode()]


#: without Flask's hook: the middleware alone brings the state up to date
wsgi_application = GlobalStateMiddleware(plain_wsgi, state)
