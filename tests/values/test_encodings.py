"""Encodings: what they carry, and what they refuse before anything is written."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import io
import math
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_globalstate.errors import EncodingError
from flask_globalstate.values.encodings import ENCODINGS, JSONEncoding, NoOpEncoding, PickleEncoding
from tests.support import PATIENCE

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Unloadable:
    """Can be pickled; its ``__reduce__`` gives what its ``__init__`` doesn't take."""

    def __init__(self, first: int, second: int) -> None:
        self.first = first

    def __reduce__(self) -> tuple[Any, ...]:
        return Unloadable, (self.first,)


@pytest.mark.parametrize("name", ["pickle", "json"])
@given(value=JSON)
def test_plain_data_comes_back_as_it_was(name: str, value: Any) -> None:
    encoding = ENCODINGS[name]()
    data = encoding.encode(value)
    assert type(data) is bytes
    assert encoding.decode(data) == value


@pytest.mark.parametrize(
    "value",
    [
        b"\x00\xff",
        (1, (2,)),
        {1: "a", (2, 3): None},
        {1, 2},
        frozenset([1]),
        1j,
        2**5000,
        "\ud800",
        Point(1, 2),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        collections.OrderedDict(b=1, a=2),
        math.sqrt,
        Point,
        Path("/a"),
    ],
)
def test_a_pickle_carries_what_every_worker_can_find(value: Any) -> None:
    encoding = PickleEncoding()
    found = encoding.decode(encoding.encode(value))
    assert found == value
    assert type(found) is type(value)


def test_an_object_that_is_met_twice_is_still_one() -> None:
    shared = [1]
    first, second = PickleEncoding().decode(PickleEncoding().encode([shared, shared]))
    assert first is second


@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: [bad], lambda bad: {"a": (bad,)}])
@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda: 1,
        threading.Lock,
        lambda: (n for n in ()),
        io.BytesIO().getbuffer,
        lambda: Unloadable(1, 2),
    ],
)
def test_what_does_not_come_back_from_a_pickle_is_refused(make: Any, wrap: Any) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  The envelope makes it an EncodingError.
        PickleEncoding().encode(wrap(make()))


MAIN_PROGRAM = """
import dataclasses, enum, pickle
from flask_globalstate.values.encodings import PickleEncoding
from flask_globalstate.errors import EncodingError
from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.stores.memory import MemoryStore

class BytesStore(MemoryStore):
    holds_objects = False

@dataclasses.dataclass
class Point:
    x: int

class Colour(enum.Enum):
    RED = 1

class Words(list):
    pass

def function():
    pass

store = BytesStore()
data = SharedDict("D", store, secret=b"x")
for bad in (Point(1), Point, Colour.RED, Words(), function, [Point(1)], {"a": Colour.RED}, {Point: 1}):
    pickle.dumps(bad)  # pickle itself has nothing against it
    try:
        data["a"] = bad
    except EncodingError as error:
        assert "__main__" in str(error) and "'a'" in str(error), error
        assert "Point(" not in str(error), error
    else:
        raise AssertionError(bad)
assert store.revision("D").number == 0
print("refused")
"""


def test_a_class_of_main_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(MAIN_PROGRAM), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (result.stdout, result.stderr) == ("refused\n", "")


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {True: 1}, [{"a": ({1.5: 2},)}], {"a": {(1,): 1}}])
def test_json_refuses_keys_that_it_would_turn_into_str(value: Any) -> None:
    with pytest.raises(EncodingError, match="key"):
        JSONEncoding().encode(value)


@pytest.mark.parametrize("value", [b"a", {1}, object(), Point(1, 2), 1j])
def test_json_refuses_what_it_has_no_word_for(value: Any) -> None:
    with pytest.raises(TypeError):
        JSONEncoding().encode(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], {"a": math.nan}])
def test_json_never_writes_what_no_other_program_reads(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        JSONEncoding().encode(value)


def test_json_is_text_that_other_programs_read() -> None:
    assert JSONEncoding().encode({"a": [1, "ü", None]}) == b'{"a":[1,"\\u00fc",null]}'
    assert JSONEncoding().encode((1, 2)) == b"[1,2]"


def test_only_pickles_must_be_signed() -> None:
    assert {name: encoding.signed for name, encoding in ENCODINGS.items()} == {
        "pickle": True,
        "json": False,
        "noop": False,
    }


def test_noop_gives_the_object_itself() -> None:
    thing = object()
    assert NoOpEncoding().decode(NoOpEncoding().encode(thing)) is thing


def test_a_pickle_of_plain_data_is_a_plain_pickle() -> None:
    for value in ("a", [1], {"b": None}):
        assert pickle.loads(PickleEncoding().encode(value)) == value
