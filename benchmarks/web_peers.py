"""Requests a second as in `benchmarks.web`, of what else shares data between processes."""

from __future__ import annotations

from .adapters import PEERS
from .measure import Bar, Pace, Row, Table
from .web import KINDS, OURS, PLAIN, TRIP, Kind, content, table

ROUNDS = 3
STASH = ("--dirty-app", "benchmarks.served:DirtyNothing", "--dirty-workers", "1")
CACHE = ("--cache2", "name=bench,items=100,blocksize=512")
BESIDE = [
    Kind(PLAIN),
    next(kind for kind in KINDS if kind.name == OURS)._replace(bar=Bar(1.6, TRIP, at_least=True)),
    Kind(TRIP),
]
UNDER_UWSGI = [
    Kind("plain dict, under uWSGI", uwsgi=True),
    Kind("uWSGI's cache, under uWSGI", options=CACHE, uwsgi=True),
]


def run(pace: Pace) -> list[Table]:
    """One table."""
    pace = pace._replace(rounds=min(pace.rounds, ROUNDS))
    peers = [Kind(p.name, options=STASH if "stash" in p.name else ()) for p in PEERS if p.web is True]
    refused = [Row(peer.name, str(peer.web)) for peer in PEERS if peer.web is not True]
    kinds = [*BESIDE, *peers, *UNDER_UWSGI]
    with content() as place:
        return [table(pace, place, "20 reads a request, the peers", kinds, refused)]
