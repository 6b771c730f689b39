"""Keys become strings and come back, with dict's equality and nothing else."""

from __future__ import annotations

import enum
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_globalstate import keys

SURROGATES = st.text(st.characters(), max_size=20)  # Lone surrogates too, which st.text() leaves out.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**1100), 2**1100),
    st.floats(allow_nan=False),
    st.binary(max_size=20),
    st.sampled_from(["", "\0", "\0n", "\0i1", "1", "None", "n", "i1", "x" * 10_000, "\ud800"]),
    SURROGATES,
)
KEYS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=10)


class Colour(enum.IntEnum):
    RED = 1


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
    assert isinstance(found, (int, float)) if isinstance(key, (int, float)) else type(found) is type(key)


@given(KEYS, KEYS)
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
    [(Colour.RED, 1), (Word("a"), "a"), (Word("\0"), "\0"), (Pair((1, Word("b"))), (1, "b")), (True, 1)],
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
        frozenset(),
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
