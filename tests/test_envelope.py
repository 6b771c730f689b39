"""Encodings, and the envelope that says who wrote a value."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import textwrap
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_globalstate import (
    ConfigurationError,
    DecodingError,
    EncodingError,
    JSONEncoding,
    PickleEncoding,
    SignatureError,
)
from flask_globalstate.envelope import Envelope

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3), st.tuples(inner)
    ),
    max_leaves=8,
)


def envelope(encoding: Any = None, secrets: tuple[bytes, ...] = (b"secret",), **options: Any) -> Envelope:
    options.setdefault("state_id", "state")
    return Envelope(encoding or PickleEncoding(), secrets=lambda: secrets, **options)


ran: list[str] = []


class Dangerous:
    """Unpickling it does something that is noticed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ran.append, ("ran",)


@given(VALUES)
def test_what_was_sealed_is_opened(value: Any) -> None:
    opened = envelope().open("N", "k", envelope().seal("N", "k", value))
    assert opened == value
    assert type(opened) is type(value)


def test_a_signed_pickle_is_read_by_pickle_itself() -> None:
    assert pickle.loads(envelope().seal("N", "k", {"a": [1]})) == {"a": [1]}


@pytest.mark.parametrize("number", [0, 1, -1, 2**53, -(2**200)])
def test_integers_are_stored_in_clear(number: int) -> None:
    assert envelope().seal("N", "k", number) == b"%di" % number


class Huge(NamedTuple):
    """A number that pytest can't show."""

    number: int

    def __str__(self) -> str:
        return "huge"

    __repr__ = __str__


@pytest.mark.parametrize("value", [True, False, 1.0, Huge(10**5000), Huge(-(10**5000))])
def test_what_only_looks_like_an_integer_is_not(value: Any) -> None:
    value = value.number if isinstance(value, Huge) else value
    data = envelope().seal("N", "k", value)
    assert not data.endswith(b"i")
    assert envelope().open("N", "k", data) == value
    assert type(envelope().open("N", "k", data)) is type(value)


@pytest.mark.parametrize(
    ("name", "key", "state_id", "secrets"),
    [
        ("M", "k", "state", (b"secret",)),
        ("N", "j", "state", (b"secret",)),
        ("N", "k", "other", (b"secret",)),
        ("N", "k", "state", (b"other",)),
        ("Nk", "", "state", (b"secret",)),
    ],
)
def test_a_value_in_another_place_is_refused_and_not_unpickled(
    name: str, key: str, state_id: str, secrets: tuple[bytes, ...]
) -> None:
    payload = pickle.dumps(Dangerous())
    sealed = envelope(_Raw()).seal("N", "k", payload)
    envelope(_Raw()).open("N", "k", sealed)
    ran.clear()
    with pytest.raises(SignatureError, match="SECRET_KEY"):
        envelope(secrets=secrets, state_id=state_id).open(name, key, sealed)
    assert ran == []


class _Raw:
    signed = True

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


def test_no_flipped_or_missing_byte_gives_a_wrong_value_or_runs_a_pickle() -> None:
    sealed = envelope(_Raw()).seal("N", "k", pickle.dumps(Dangerous()))
    ran.clear()
    damaged = [sealed[:n] for n in range(len(sealed))]
    for n in range(len(sealed)):
        damaged += [sealed[:n] + bytes([sealed[n] ^ bit]) + sealed[n + 1 :] for bit in (1, 0x80, 0xFF)]
    for data in damaged:
        with pytest.raises(DecodingError):
            envelope().open("N", "k", data)
    assert ran == []


@given(st.binary(max_size=80))
def test_any_bytes_are_one_of_our_errors_or_an_integer(data: bytes) -> None:
    with contextlib.suppress(DecodingError):
        assert type(envelope().open("N", "k", data)) is int


def test_an_unsigned_pickle_is_refused_and_not_unpickled() -> None:
    ran.clear()
    with pytest.raises(SignatureError):
        envelope().open("N", "k", pickle.dumps(Dangerous()) + b"e")
    assert ran == []
    allowed = envelope(secrets=(), allow_unsigned=True)
    assert allowed.open("N", "k", allowed.seal("N", "k", "text")) == "text"


def test_older_secrets_are_accepted_and_the_newest_signs() -> None:
    old, new = envelope(secrets=(b"old",)), envelope(secrets=(b"new", b"old"))
    assert new.open("N", "k", old.seal("N", "k", "text")) == "text"
    with pytest.raises(SignatureError):
        old.open("N", "k", new.seal("N", "k", "text"))


def test_pickles_without_a_secret_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="unsigned_pickles"):
        envelope(secrets=()).seal("N", "k", "text")
    assert envelope(secrets=()).seal("N", "k", 5) == b"5i"


def test_json_needs_no_secret_and_is_json() -> None:
    sealed = envelope(JSONEncoding(), secrets=()).seal("N", "k", {"a": [1, None, "ä"]})
    assert sealed == b'{"a":[1,null,"\\u00e4"]}e'
    assert envelope(JSONEncoding(), secrets=()).open("N", "k", sealed) == {"a": [1, None, "ä"]}


@pytest.mark.parametrize("value", [{1: 2}, [{None: 1}], object(), {1, 2}, b"bytes", Decimal(1)])
def test_json_refuses_what_it_would_change(value: Any) -> None:
    with pytest.raises(EncodingError, match="'k' of 'N'"):
        envelope(JSONEncoding()).seal("N", "k", value)


def test_an_old_encoding_is_tried_when_decoding_fails() -> None:
    old = envelope().seal("N", "k", [1])
    moving = envelope(JSONEncoding(), old_encoding=PickleEncoding())
    assert moving.open("N", "k", old) == [1]
    assert moving.open("N", "k", moving.seal("N", "k", [2])) == [2]
    back = envelope(PickleEncoding(), old_encoding=JSONEncoding())
    assert back.open("N", "k", moving.seal("N", "k", [2])) == [2]
    with pytest.raises(DecodingError):
        envelope(JSONEncoding()).open("N", "k", old)


def test_any_object_with_encode_and_decode_is_an_encoding() -> None:
    class Upper:
        def encode(self, value: str) -> bytes:
            return value.upper().encode()

        def decode(self, data: bytes) -> str:
            return data.decode()

    assert envelope(Upper()).open("N", "k", envelope(Upper()).seal("N", "k", "text")) == "TEXT"
    with pytest.raises(EncodingError, match="list") as caught:
        envelope(Upper()).seal("N", "k", ["hunter2"])
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value.__cause__, AttributeError)
    with pytest.raises(DecodingError):
        envelope(Upper()).open("N", "k", b"\xffe")


class Broken(Exception):
    """Pickled by its args, which its __init__ doesn't take."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


@pytest.mark.parametrize("value", [Broken(1, 2), [Broken(1, 2)], lambda: 1, (n for n in [])])
def test_a_value_that_would_not_load_again_is_refused(value: Any) -> None:
    with pytest.raises(EncodingError, match="'k' of 'N'"):
        envelope().seal("N", "k", value)


def test_an_object_of_an_importable_class_is_fine() -> None:
    assert envelope().open("N", "k", envelope().seal("N", "k", [Decimal("1.5"), ValueError, len])) == [
        Decimal("1.5"),
        ValueError,
        len,
    ]


def test_what_lives_in_main_is_refused() -> None:
    program = """
    from flask_globalstate import EncodingError
    from flask_globalstate.encodings import PickleEncoding

    class Local:
        pass

    def function():
        pass

    for value in (Local(), [Local()], Local, {"a": function}, (Local(),)):
        try:
            PickleEncoding().encode(value)
        except EncodingError as error:
            assert "__main__" in str(error), error
        else:
            raise AssertionError(value)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
