"""Keys become strings and come back, with dict's equality and nothing else."""

from __future__ import annotations

import enum
import inspect
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_globalstate import ABSENT, GlobalState
from flask_globalstate.values import keys
from tests.support import PATIENCE, environment

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), ZoneInfo("Europe/Berlin")])
SURROGATES = st.text(st.characters(), max_size=20)  # Lone surrogates too, which st.text() leaves out.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**1100), 2**1100),
    st.floats(allow_nan=False),
    st.binary(max_size=20),
    st.decimals(allow_nan=False, min_value=Decimal("-1e400"), max_value=Decimal("1e400")),
    st.decimals(allow_nan=False, places=2, min_value=-5, max_value=5),
    st.dates(),
    st.datetimes(),
    st.datetimes(datetime(1950, 1, 1), timezones=st.just(UTC)),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(["", "\0", "\0n", "\0i1", "1", "None", "n", "i1", "x" * 1_000, "\ud800"]),
    SURROGATES,
)


def tuples(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return only_tuples(inner) | st.frozensets(inner, max_size=4)


def only_tuples(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4).map(tuple)


KEYS = st.recursive(SCALARS, tuples, max_leaves=10)


class Colour(enum.IntEnum):
    RED = 1


class Weekday(enum.Enum):
    MONDAY = 1


class Shade(enum.StrEnum):
    DARK = "dark"


class Point(NamedTuple):
    x: int
    y: int


class Hashed(tuple[Any, ...]):
    """As cachetools has them: its hash is computed once."""

    def __hash__(self) -> int:
        return tuple.__hash__(self)


class Day(date):
    """Equal to the plain date."""


class Word(str):
    """Equal to the str of the same letters."""


class Caseless(str):
    """Equal to more than the str of the same letters."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Renamed(int):
    """Equal to no other int."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]


class Pair(tuple[Any, ...]):
    """Equal to the plain tuple, with another repr."""

    def __repr__(self) -> str:
        return "a pair"


@given(KEYS)
@example(2**1023)
@example(-(2**1024))
@example(1e308)
@example(5e-324)
@example(float("inf"))
@example(((((),),),))
def test_a_key_comes_back_equal_and_of_the_kind_that_its_content_is(key: object) -> None:
    found = keys.from_string(keys.to_string(key))
    assert found == key
    assert hash(found) == hash(key)
    numbers = (int, float, Decimal)
    assert isinstance(found, numbers) if isinstance(key, numbers) else type(found) is type(key)


@given(KEYS, KEYS)
@example(Decimal("1.50"), 1.5)
@example(Decimal("0.1"), 0.1)
@example(Decimal("1e300"), 10**300)
@example(Decimal("-0"), 0)
@example(Decimal("0.10"), Decimal("0.1"))
@example(Decimal("Infinity"), float("inf"))
@example(date(2026, 1, 1), datetime(2026, 1, 1))
@example(time(0, fold=1), time(0))
@example(datetime(2026, 1, 1, fold=1), datetime(2026, 1, 1))
@example(datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC))
@example(frozenset({1, 2}), frozenset({True, 2.0}))
@example(frozenset({1}), (1,))
@example(UUID(int=1), 1)
@example(1, True)
@example(0, -0.0)
@example(2.0**60, 2**60)
@example((1, (True,)), (1.0, (1,)))
@example("1", 1)
@example(b"a", "a")
@example(("ab", "c"), ("a", "bc"))
@example(("",), ())
@example(("1:s",), ("1:s", ""))
def test_key_strings_are_equal_exactly_when_keys_are(one: object, other: object) -> None:
    assert (keys.to_string(one) == keys.to_string(other)) == (one == other)


@given(SURROGATES)
@example("\ud800")
@example("\udfff\ud800")
@example("new\nline\r\0")
def test_any_text_survives_as_bytes(text: str) -> None:
    assert keys.from_bytes(keys.to_bytes(text)) == text


@given(SURROGATES, SURROGATES)
def test_no_two_texts_have_the_same_bytes(one: str, other: str) -> None:
    assert (keys.to_bytes(one) == keys.to_bytes(other)) == (one == other)


@pytest.mark.parametrize("text", ["", "a", "a b", "naïve", "n", "i1", "1", "\x01"])
def test_a_str_is_its_own_key_string(text: str) -> None:
    assert keys.to_string(text) == text


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        (Colour.RED, 1),
        (Shade.DARK, "dark"),
        (Point(1, 2), (1, 2)),
        (Hashed((1, 2)), (1, 2)),
        (Day(2026, 1, 2), date(2026, 1, 2)),
        (np.int64(5), 5),
        (np.float64(0.5), 0.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.bool_(True), 1),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        ((np.uint8(1), frozenset({np.int16(2)})), (1, frozenset({2}))),
        (Word("a"), "a"),
        (Word("\0"), "\0"),
        (Pair((1, Word("b"))), (1, "b")),
        (True, 1),
    ],
)
def test_a_subclass_that_only_adds_is_the_plain_key(key: object, plain: object) -> None:
    found = keys.from_string(keys.to_string(key))
    assert (found, type(found)) == (plain, type(plain))
    assert keys.to_string(key) == keys.to_string(plain)


@pytest.mark.parametrize(
    "key",
    [
        [],
        {},
        set(),
        bytearray(),
        object(),
        1j,
        float("nan"),
        (1, float("nan")),
        ((), ([],)),
        print,
        int,
        range(3),
        Caseless("a"),
        (Caseless("a"),),
        Renamed(1),
        time(12, tzinfo=UTC),
        Decimal("nan"),
        Decimal("sNaN"),
        Decimal("1e1000000000"),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        Weekday.MONDAY,
    ],
)
def test_what_dict_would_not_find_again_elsewhere_is_a_type_error(key: object) -> None:
    with pytest.raises(TypeError):
        keys.to_string(key)


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        "\0?",
        "\0nx",
        "\0i",
        "\0ix",
        "\0x",
        "\0xg",
        "\0f",
        "\0f1.2.3",
        "\0b0",
        "\0bxy",
        "\0t1",
        "\0t1:",
        "\0t0:",
        "\0t5:i1",
        "\0t-1:i1",
        "\0tx:i1",
        "\0t1:?",
    ],
)
def test_what_is_no_key_string_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  Any text will do: a ValueError is all that is promised.
        keys.from_string(text)


@given(st.text(st.sampled_from("\0nsifxbt:0123-+._ eé١"), max_size=12))
@example("t" + "1:t" * 50)
def test_any_other_text_is_a_key_or_a_value_error(text: str) -> None:
    try:
        key = keys.from_string(keys.MARK + text)
    except ValueError:
        return
    hash(key)


def test_an_int_of_any_size_is_a_key() -> None:
    limit = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 4300
    for number in (10**limit, -(10 ** (limit * 3)), 2**1024, 2**1023):
        assert keys.from_string(keys.to_string(number)) == number


def nested(levels: int, innermost: object = ()) -> object:
    key = innermost
    for _ in range(levels - 1):
        key = (key,)
    return key


def at_the_end_of_the_stack(function: Callable[[], object]) -> object:
    """Call a function where few frames are left."""

    def deeper(frames: int) -> object:
        return deeper(frames - 1) if frames else function()

    return deeper(sys.getrecursionlimit() - len(inspect.stack(0)) - 400)


@pytest.mark.parametrize("content", [(), (1, "a"), ("\0", None)])
def test_a_key_of_a_hundred_tuples_is_one_wherever_it_is_read(content: object) -> None:
    key = nested(keys.DEEPEST, content)
    text = keys.to_string(key)
    assert at_the_end_of_the_stack(lambda: keys.from_string(text)) == key
    assert at_the_end_of_the_stack(lambda: keys.to_string(key)) == text


@pytest.mark.parametrize("levels", [keys.DEEPEST + 1, 400, 5_000, 50_000])
def test_a_key_of_more_tuples_is_a_type_error_that_says_what_to_use(levels: int) -> None:
    with pytest.raises(TypeError, match="flat tuple or a str"):
        keys.to_string(nested(levels))
    text = keys.to_string(nested(keys.DEEPEST)).removeprefix(keys.MARK)
    for _ in range(levels - keys.DEEPEST):
        text = f"t{len(text)}:{text}"
    with pytest.raises(ValueError, match="too many"):
        keys.from_string(keys.MARK + text)


def test_nothing_is_written_where_one_key_of_several_is_nested_too_deeply(tmp_path: Path) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path)})
    data, deep = state.dict("DATA"), nested(5_000)
    data["n"] = 1
    attempts: list[Callable[[], object]] = [
        lambda: data.update({"a": 1, deep: 2}),
        lambda: data.setdefault(deep, 1),
        lambda: data.increment(deep),
        lambda: data.compare_and_set(deep, ABSENT, 1),
    ]
    assert (data.pop(deep, None), data.get(deep), deep in data) == (None, None, False)
    for attempt in attempts:
        with pytest.raises(TypeError, match="flat tuple or a str"):
            attempt()
    assert data.copy() == {"n": 1}
    state.close()


class Liar:
    """Says something else of itself than what it is equal to; it comes before a plain type."""

    def __int__(self) -> int:
        return 5

    __index__ = __int__

    def __float__(self) -> float:
        return 5.5

    def __repr__(self) -> str:
        return "5"

    def __str__(self) -> str:
        return "5"

    def __iter__(self) -> Iterator[object]:
        return iter([5])

    def hex(self) -> str:
        return "05"

    def is_integer(self) -> bool:
        return True


@pytest.mark.parametrize("key", ["a", "\0", 7, 2**2000, 7.0, 7.25, b"ab", (1, 2), ()])
def test_a_subclass_is_the_key_that_it_is_equal_to_whatever_it_says_of_itself(key: Any) -> None:
    lying: Any = type("Lying", (Liar, type(key)), {})(key)
    assert (lying == key, hash(lying)) == (True, hash(key))
    assert keys.to_string(lying) == keys.to_string(key)


@given(
    st.recursive(st.one_of(SCALARS, st.just(float("nan")), st.just([]), st.complex_numbers()), only_tuples)
)
def test_anything_else_is_a_type_error(key: object) -> None:
    try:
        text = keys.to_string(key)
    except TypeError:
        return
    assert keys.from_string(text) == key


@given(st.binary())
@example(b"\xff")
@example(b"\0!ff")
@example(b"\0!00216666")
def test_bytes_that_are_no_text_are_the_key_string_of_no_key_and_go_back_to_the_same_bytes(
    data: bytes,
) -> None:
    text = keys.from_bytes(data)
    assert keys.to_bytes(text) == data
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        with pytest.raises(ValueError, match="not a key string"):
            keys.from_string(text)


@given(st.text().map(lambda text: keys.FOREIGN + text) | st.binary().map(lambda d: keys.FOREIGN + d.hex()))
def test_a_name_that_looks_like_bytes_that_are_no_text_is_a_name_of_its_own(name: str) -> None:
    assert keys.from_bytes(keys.to_bytes(name)) == name


# --- times -------------------------------------------------------------------------------------------


@given(st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1)), ZONES, ZONES)
@example(datetime(2026, 6, 1, 12), ZoneInfo("Europe/Berlin"), UTC)
def test_a_moment_is_one_key_in_every_time_zone(moment: datetime, one: Any, other: Any) -> None:
    here = moment.replace(tzinfo=UTC).astimezone(one)
    there = here.astimezone(other)
    try:
        texts = keys.to_string(here), keys.to_string(there)
    except TypeError:
        assert here != there  # There are two such times where a clock is set back: not equal to any other.
        return
    assert (texts[0] == texts[1]) == (here == there)
    assert keys.from_string(texts[0]) == here


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("hour", [datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30)])
def test_a_time_that_there_is_twice_or_never_is_a_type_error(hour: datetime, fold: int) -> None:
    with pytest.raises(TypeError, match="use UTC"):
        keys.to_string(hour.replace(fold=fold, tzinfo=ZoneInfo("Europe/Berlin")))


# --- keys of other types -----------------------------------------------------------------------------


def test_a_member_of_an_enum_is_told_what_to_use() -> None:
    with pytest.raises(TypeError, match=r"Weekday\.MONDAY.*\.name or \.value"):
        keys.to_string(Weekday.MONDAY)


def test_a_key_that_comes_back_as_its_base_is_told_of_once_for_name_and_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "memory"})
    data, other = state.dict("ENUMS"), state.dict("OTHER ENUMS")
    with caplog.at_level(logging.WARNING):
        assert Shade.DARK not in data
        assert caplog.messages == []
        data[Shade.DARK] = 1
        data[Shade.DARK] = data["plain"] = 2
        data.update({(1, Point(1, 2)): 1, (1, 2): 3})
        other.increment(Colour.RED)
    assert [message.partition(":")[0] for message in caplog.messages] == ["ENUMS", "ENUMS", "OTHER ENUMS"]
    assert "Shade" in caplog.messages[0]
    assert "'dark'" in caplog.messages[0]
    assert list(map(type, data)) == [str, str, tuple, tuple]


def test_to_read_a_key_imports_nothing() -> None:
    program = (
        "import sys\n"
        "from flask_globalstate.values import keys\n"
        "before = set(sys.modules)\n"
        f"for text in {[keys.to_string(key) for key in (np.int64(1), Shade.DARK, Decimal('0.1'))]!r}:\n"
        "    keys.from_string(text)\n"
        "assert set(sys.modules) == before\n"
        "assert 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=environment(), timeout=PATIENCE)
