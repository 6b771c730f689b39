"""Key strings: one for each key, the same for equal ones."""

from __future__ import annotations

import contextlib
import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_globalstate import keys

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(max_size=9)
)
KEYS = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@given(KEYS)
def test_a_key_comes_back_equal_to_what_it_was(key: Any) -> None:
    back = keys.from_string(keys.to_string(key))
    assert back == key
    assert hash(back) == hash(key)


@given(KEYS, KEYS)
def test_two_keys_have_one_string_if_and_only_if_they_are_equal(one: Any, two: Any) -> None:
    assert (keys.to_string(one) == keys.to_string(two)) == (one == two)


@given(st.text())
def test_a_text_is_its_own_key_string_unless_it_bears_the_mark(text: str) -> None:
    assert keys.to_string(text) == text or text.startswith(keys.MARK)


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_any_text_survives_as_bytes(text: str) -> None:
    assert keys.from_bytes(keys.to_bytes(text)) == text


@given(st.text())
def test_no_text_after_the_mark_gives_anything_but_a_key_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        keys.from_string(keys.MARK + text)


@given(KEYS, st.data())
def test_a_key_string_that_is_cut_is_another_key_or_an_error(key: Any, data: Any) -> None:
    whole = keys.to_string(key)
    cut = whole[: data.draw(st.integers(0, max(0, len(whole) - 1)))]
    with contextlib.suppress(ValueError):
        assert keys.from_string(cut) != key or cut == whole


class Colour(enum.IntEnum):
    RED = 1


class Loud(str):
    def __eq__(self, other: object) -> bool:
        return str.upper(self) == other

    __hash__ = str.__hash__


def test_a_subclass_that_is_equal_to_its_base_is_the_same_key() -> None:
    assert keys.to_string(Colour.RED) == keys.to_string(1)
    assert keys.to_string(type("Text", (str,), {})("a")) == keys.MARK + "sa"
    assert keys.from_string(keys.to_string(10**400)) == 10**400


@pytest.mark.parametrize("key", [Loud("a"), [], {}, set(), frozenset(), object(), float("nan"), (1, []), 1j])
def test_anything_else_is_a_type_error(key: Any) -> None:
    with pytest.raises(TypeError):
        keys.to_string(key)
