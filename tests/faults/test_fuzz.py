"""Whatever bytes a decoder is given, it gives the right value or one of our errors.

Never a wrong value, never another error, never a hang; and nothing is unpickled whose signature is wrong.
"""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from flask_globalstate import GlobalStateError
from flask_globalstate.errors import SignatureError
from flask_globalstate.values import keys
from flask_globalstate.values.encodings import PickleEncoding
from flask_globalstate.values.envelope import Envelope
from tests.support.fuzzing import Damage, Refused, attempt, damages, fuzzed

plain_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


# --- envelopes and signatures ----------------------------------------------------------------------

fired: list[str] = []


class Bomb:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fired.append, ("unpickled",)


BOMB = pickle.dumps(Bomb())


def envelope(secret: bytes = b"secret") -> Envelope:
    return Envelope(PickleEncoding(), state_id="state", secrets=lambda: [secret])


@fuzzed
@given(plain_values, damages)
def test_a_damaged_envelope_is_refused(value: Any, damage: Damage) -> None:
    sealed = envelope().seal("DATA", "a", value)
    damaged = damage.apply(sealed)
    opened = attempt(envelope().open, "DATA", "a", damaged)
    assert isinstance(opened, Refused) or damaged == sealed


@fuzzed
@given(st.integers(), damages)
def test_a_damaged_integer_is_refused_or_an_integer(value: int, damage: Damage) -> None:
    """An integer is in clear and not signed, so that a store can add to it."""
    opened = attempt(envelope().open, "DATA", "a", damage.apply(envelope().seal("DATA", "a", value)))
    assert isinstance(opened, Refused) or type(opened) is int


@fuzzed
@given(st.binary(max_size=80), st.binary(max_size=80), st.sampled_from([b"", b"i", b"s", b"e", b"."]))
def test_nothing_with_a_wrong_signature_is_unpickled(before: bytes, after: bytes, kind: bytes) -> None:
    fired.clear()
    opened = attempt(envelope().open, "DATA", "a", before + BOMB + after + kind)
    assert isinstance(opened, Refused)
    assert fired == []


@fuzzed
@given(st.text(), st.text(), st.binary(min_size=1))
def test_what_was_signed_for_one_place_is_refused_at_another(name: str, key: str, secret: bytes) -> None:
    sealed = envelope(b"secret").seal("DATA", "a", "value")
    opened = attempt(envelope(secret).open, name, key, sealed)
    if (name, key, secret) == ("DATA", "a", b"secret"):
        assert opened == "value"
    else:
        assert isinstance(opened.error, SignatureError)


# --- keys ------------------------------------------------------------------------------------------

key_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner),
    max_leaves=6,
)


def decode_key(text: str) -> Any:
    """The key, or that it was refused: the error is a plain ValueError at this floor."""
    try:
        return keys.from_string(text)
    except ValueError as error:
        return Refused(GlobalStateError(str(error)))


@fuzzed
@example("\0i01")
@example("\0i1_0")
@example("\0f1.0")
@example("\0fnan")
@example("\0b0 0")
@example("\0sabc")
@example("\0t2:i12:i2 ")
@example("\0" + "t9:" * 5000)
@given(st.text().map(lambda text: "\0" + text))
def test_a_key_string_is_refused_or_the_one_of_its_key(text: str) -> None:
    key = decode_key(text)
    assert isinstance(key, Refused) or keys.to_string(key) == text


@fuzzed
@given(key_values, damages)
def test_a_damaged_key_string_is_refused_or_the_one_of_another_key(key: Any, damage: Damage) -> None:
    damaged = damage.apply(keys.to_bytes(keys.to_string(key))).decode("utf-8", "replace")
    found = decode_key(damaged)
    assert isinstance(found, Refused) or keys.to_string(found) == damaged


def test_a_key_that_is_nested_deeply_is_refused() -> None:
    text = "n"
    for _ in range(3000):
        text = f"t{len(text)}:{text}"
    found = decode_key("\0" + text)
    assert isinstance(found, Refused) or keys.to_string(found) == "\0" + text
