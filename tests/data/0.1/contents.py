"""What `make_stores.py` has written into the stores that are kept beside this file.

It is read by path and never changed: the stores hold this.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

#: in the order in which they are gone through
KEYS: dict[Any, Any] = {
    "text": "a string",
    "": "the empty key",
    "Ünïcode ☃\0\n": "characters",
    7: "an int",
    -7: "one below zero",
    2**70: "a large one",
    1.5: "a float",
    -0.25: "one below zero",
    float("inf"): "no end",
    True: "a bool",
    False: "another",
    None: "None",
    b"bytes\0\xff": "bytes",
    (): "the empty tuple",
    (1, "a", (None, 2.5, b"b")): "tuples in each other",
    "k" * 1000: "a long key",
}
VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "int": 3,
    "beyond a double": 2**53 + 1,
    "beyond 64 bits": -(2**200),
    "float": 0.1,
    "infinite": float("-inf"),
    "text": "Ünïcode ☃\0 \udc80",
    "bytes": b"\0\xff.",
    "tuple": (1, ("a", [2]), {}),
    "list": [1, [2, [3, {"deep": [None, {4}]}]], "end"],
    "dict": {"b": {"c": {1: [True], (2, 3): {}}}, "a": None},
    "set": {5},
    "frozenset": frozenset({(6, frozenset())}),
    "empty": [[], {}, set(), (), "", b""],
    "ordered": OrderedDict(z=1, a=2),
    "complex": 1 - 2j,
    "Decimal": Decimal("1.10"),
    "Fraction": Fraction(1, 3),
    "UUID": UUID(int=2**100),
    "datetime": datetime(2024, 2, 29, 12, 30, tzinfo=timezone(timedelta(hours=-3))),
    "date": date(1999, 12, 31),
    "range": range(1, 10, 2),
    "big": "a big value, " * 20_000,
}
LARGE = {f"key {number}": number * number for number in range(1500)}
#: of each name its kind and what it holds
NAMES: dict[str, tuple[str, Any]] = {
    "KEYS": ("dict", KEYS),
    "VALUES": ("dict", VALUES),
    "LARGE": ("dict", LARGE),
    "EMPTIED": ("dict", {}),
    "LIST": ("list", [1, "two", [3.0, {"four": (5,)}], None]),
    "EMPTY_LIST": ("list", []),
    "SET": ("set", {"a", 1, (2, "b"), None}),
    "HITS": ("counter", 12),
    "BEYOND_A_DOUBLE": ("counter", 2**53 + 7),
    "BEYOND_64_BITS": ("counter", -(10**30)),
    "THEME": ("value", "dark"),
    "NOTHING": ("value", None),
    "NESTED": ("value", {"users": [{"name": "Ada", "tags": {"x"}}]}),
    "": ("dict", {"of": "the empty name"}),
    "a name/with: odd\tcharacters%20\n": ("dict", {"a": 1}),
    "Ünïcode ☃": ("counter", 1),
    "..": ("value", "up"),
    ".hidden": ("list", ["h"]),
    "data.db": ("set", {"d"}),
    "n" * 300: ("dict", {"of": "a long name"}),
}
#: of each name that holds its ``initial`` its kind and what that was
SEEDED: dict[str, tuple[str, Any]] = {
    "SEEDED_DICT": ("dict", {"first": [1], 2: "second"}),
    "SEEDED_LIST": ("list", ["first", {"second": 2}]),
    "SEEDED_SET": ("set", {"first"}),
    "SEEDED_COUNTER": ("counter", 1000),
    "SEEDED_VALUE": ("value", ("first",)),
}
#: a dict that was written and cleared
CLEARED = "CLEARED"
#: removed from every dict among `NAMES`, and still in its log, but of `EMPTIED`, where more were removed
REMOVED = ["removed", ("removed", 2)]
#: what the state with this STORE_ID holds, which is encoded as JSON
JSON_ID = "as json"
JSON: dict[str, tuple[str, Any]] = {
    "DATA": ("dict", {"a": [1, {"b": None}], "c": "☃"}),
    "HITS": ("counter", 3),
}
