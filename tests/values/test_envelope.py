"""The envelope: unsigned values, integers, older encodings, and what its errors say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_globalstate import GlobalState
from flask_globalstate.errors import (
    DecodingError,
    EncodingError,
    GlobalStateError,
    SignatureError,
)
from flask_globalstate.values.encodings import JSONEncoding, NoOpEncoding, PickleEncoding
from flask_globalstate.values.envelope import (
    INTEGER,
    MAC_SIZE,
    SIGNED,
    UNSIGNED,
    Envelope,
    PlainCodec,
)
from tests.support.envelopes import BOMB, KEY, NAME, envelope, fired, sealed_bomb

# --- unsigned, JSON, old encodings ----------------------------------------------------------------


def test_unsigned_pickles_are_read_only_where_that_was_said() -> None:
    trusting = envelope(allow_unsigned=True)
    data = trusting.seal(NAME, KEY, ["value"])
    assert data[-1:] == UNSIGNED
    assert trusting.open(NAME, KEY, data) == ["value"]
    with pytest.raises(SignatureError, match="not signed"):
        envelope().open(NAME, KEY, data)


def test_json_needs_no_secret_and_bears_no_signature() -> None:
    codec = Envelope(JSONEncoding(), state_id="state")
    data = codec.seal(NAME, KEY, {"a": [1, None]})
    assert data == b'{"a":[1,null]}' + UNSIGNED
    assert codec.open(NAME, KEY, data) == {"a": [1, None]}
    with pytest.raises(DecodingError):
        codec.open(NAME, KEY, BOMB + UNSIGNED)
    assert not fired


def test_an_old_encoding_is_read_and_the_new_one_is_written() -> None:
    old, both = envelope(), envelope(encoding=JSONEncoding(), old_encoding=PickleEncoding())
    assert both.open(NAME, KEY, old.seal(NAME, KEY, ["value"])) == ["value"]
    assert both.seal(NAME, KEY, ["value"]) == b'["value"]' + UNSIGNED
    back = envelope(old_encoding=JSONEncoding())
    assert back.open(NAME, KEY, both.seal(NAME, KEY, ["value"])) == ["value"]
    assert back.open(NAME, KEY, back.seal(NAME, KEY, ["value"])) == ["value"]


@pytest.mark.parametrize(
    "codec",
    [
        envelope(encoding=JSONEncoding(), old_encoding=PickleEncoding()),
        envelope(old_encoding=JSONEncoding()),
    ],
)
def test_an_old_encoding_opens_no_way_for_an_unsigned_pickle(codec: Envelope) -> None:
    for data in (BOMB + UNSIGNED, BOMB + b"\0" * MAC_SIZE + SIGNED):
        with pytest.raises(DecodingError):
            codec.open(NAME, KEY, data)
    assert not fired


def test_an_old_pickle_is_read_only_with_its_signature() -> None:
    codec = envelope(b"other", encoding=JSONEncoding(), old_encoding=PickleEncoding())
    with pytest.raises(SignatureError):
        codec.open(NAME, KEY, sealed_bomb())
    assert not fired


def test_an_encoding_of_the_users_own_that_says_nothing_is_not_signed() -> None:
    class Upper:
        def encode(self, value: str) -> bytes:
            return value.upper().encode()

        def decode(self, data: bytes) -> str:
            return data.decode()

    codec = Envelope(Upper(), state_id="state")
    assert codec.seal(NAME, KEY, "a") == b"A" + UNSIGNED
    assert codec.open(NAME, KEY, b"A" + UNSIGNED) == "A"


# --- integers -------------------------------------------------------------------------------------


@given(st.integers())
@example(0)
@example(-1)
@example(2**8192 - 1)
@example(-(2**8192))
@example(2**8192)
@example(10**5000)
def test_an_integer_comes_back_whatever_its_size(number: int) -> None:
    found = envelope().open(NAME, KEY, envelope().seal(NAME, KEY, number))
    assert (type(found), found == number) == (int, True)


def test_an_integer_is_in_clear_and_a_bool_is_none() -> None:
    assert envelope().seal(NAME, KEY, -12) == b"-12" + INTEGER
    assert envelope().seal(NAME, KEY, True)[-1:] == SIGNED
    assert envelope().open(NAME, KEY, envelope().seal(NAME, KEY, True)) is True


@pytest.mark.parametrize("digits", [b"", b"-", b"1x", b"0x1", b"\xff", b"1.0", b"1" * 100_000])
def test_what_should_be_an_integer_and_is_not_is_our_error(digits: bytes) -> None:
    with pytest.raises(DecodingError):
        envelope().open(NAME, KEY, digits + INTEGER)


# --- errors ---------------------------------------------------------------------------------------


class Unwritable:
    """Says a secret when it fails."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("the password is hunter2")


@pytest.mark.parametrize("encoding", [PickleEncoding(), JSONEncoding()])
@pytest.mark.parametrize("make", [Unwritable, lambda: lambda: 1, lambda: {"a": Unwritable()}])
def test_what_cant_be_encoded_names_its_place_and_type_and_no_value(
    encoding: Any, make: Callable[[], Any]
) -> None:
    with pytest.raises(EncodingError, match="'key' of 'DATA'") as caught:
        envelope(encoding=encoding).seal(NAME, KEY, make())
    assert type(make()).__qualname__ in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_value_too_deep_to_encode_is_our_error() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for encoding in (PickleEncoding(), JSONEncoding()):
        with pytest.raises(EncodingError):
            envelope(encoding=encoding).seal(NAME, KEY, deep)


def test_a_class_that_is_gone_is_our_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        pass

    Gone.__qualname__ = "Gone"
    monkeypatch.setitem(globals(), "Gone", Gone)
    data = envelope().seal(NAME, KEY, Gone())
    monkeypatch.delitem(globals(), "Gone")
    with pytest.raises(DecodingError, match=r"'key' of 'DATA'.*class is gone") as caught:
        envelope().open(NAME, KEY, data)
    assert not isinstance(caught.value, SignatureError)


def test_an_error_names_the_users_key_and_not_its_key_string() -> None:
    with pytest.raises(GlobalStateError, match=r"key \(1, 'a'\) of 'DATA'"):
        envelope().open(NAME, "\0t2:i12:sa", b"?")
    with pytest.raises(GlobalStateError, match="key string"):
        envelope().open(NAME, "\0?", b"?")


def test_the_codec_of_stores_that_hold_objects_changes_nothing() -> None:
    seen = []
    codec, thing = PlainCodec(lambda *write: seen.append(write)), object()
    assert codec.open(NAME, KEY, codec.seal(NAME, KEY, thing)) is thing
    assert seen == [(NAME, KEY, thing)]
    assert envelope(encoding=NoOpEncoding())


@pytest.fixture
def few_digits() -> Iterator[None]:
    """An application that lets Python write few digits."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(limit)


@pytest.mark.usefixtures("few_digits")
def test_an_integer_of_more_digits_than_python_may_write_is_stored_all_the_same() -> None:
    for number in (10**639, 10**700, -(10**2000), 10**5000):
        assert envelope().open(NAME, KEY, envelope().seal(NAME, KEY, number)) == number


def test_an_integer_too_large_to_be_counted_with_is_an_encoding_error_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path)})
    data, hits = state.dict("DATA"), state.counter("HITS")
    largest = 2**8192 - 1
    data["n"] = largest - 1
    assert data.increment("n") == largest
    for change in (
        lambda: data.increment("n"),
        lambda: data.increment("new", 2**8192),
        lambda: data.increment("n", -(10**6000)),
        lambda: hits.increment(10**5000),
    ):
        with pytest.raises(EncodingError, match="bits is too large to be counted"):
            change()
    assert (data.copy(), hits.value) == ({"n": largest}, 0)
    state.close()


def test_what_a_store_of_objects_can_not_encode_is_an_encoding_error() -> None:
    deep: list[Any] = []
    for _ in range(200_000):  # Python 3.14 encodes far deeper ones than those before.
        deep = [deep]
    for value in (deep, lambda: None):
        with pytest.raises(EncodingError, match="'key' of 'DATA'"):
            PlainCodec().encode(NAME, KEY, value)
