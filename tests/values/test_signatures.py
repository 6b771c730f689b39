"""Signatures: nothing is unpickled that this state did not write for this place."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_globalstate.errors import (
    ConfigurationError,
    DecodingError,
    SignatureError,
)
from flask_globalstate.values.encodings import PickleEncoding
from flask_globalstate.values.envelope import (
    INTEGER,
    MAC_SIZE,
    PURPOSE,
    SIGNED,
    UNSIGNED,
    Envelope,
)
from tests.support.envelopes import BOMB, KEY, NAME, envelope, fired, sealed_bomb


def test_the_bomb_fires_where_the_signature_is_right() -> None:
    envelope().open(NAME, KEY, sealed_bomb())
    assert fired == ["unpickled"]


@pytest.mark.parametrize(
    ("codec", "name", "key"),
    [
        (envelope(), NAME, "other"),
        (envelope(), "other", KEY),
        (envelope(state_id="other"), NAME, KEY),
        (envelope(b"other"), NAME, KEY),
        (envelope(b"other", b"third"), NAME, KEY),
        # The same letters, cut elsewhere.
        (envelope(), "DAT", "Akey"),
        (envelope(), "DATAk", "ey"),
        (envelope(state_id="stateD"), "ATA", KEY),
        (envelope(state_id="stat"), "eDATA", KEY),
        (envelope(), NAME, ""),
    ],
)
def test_a_signature_is_for_one_place_in_one_state_under_one_secret(
    codec: Envelope, name: str, key: str
) -> None:
    with pytest.raises(SignatureError):
        codec.open(name, key, sealed_bomb())
    assert not fired


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_part_of_the_payload_cant_become_a_part_of_the_key(name_cut: int, key_cut: int) -> None:
    whole = "abcdef"
    cut = sorted((name_cut, key_cut))
    name, key = whole[: cut[0]], whole[cut[0] : cut[1]]
    data = envelope().seal(name, key, ["value"])
    for i in range(len(whole) + 1):
        for j in range(i, len(whole) + 1):
            if (whole[:i], whole[i:j]) != (name, key):
                with pytest.raises(SignatureError):
                    envelope().open(whole[:i], whole[i:j], data)


def test_every_flip_of_a_byte_is_our_error_and_unpickles_nothing() -> None:
    data = sealed_bomb()
    for place in range(len(data)):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            damaged = bytearray(data)
            damaged[place] ^= mask
            with pytest.raises(DecodingError):
                envelope().open(NAME, KEY, bytes(damaged))
    assert not fired


@pytest.mark.parametrize("kind", range(256))
def test_every_other_kind_is_our_error_and_unpickles_nothing(kind: int) -> None:
    data = sealed_bomb()[:-1] + bytes([kind])
    if data[-1:] != SIGNED:
        with pytest.raises(DecodingError):
            envelope().open(NAME, KEY, data)
        assert not fired


def test_every_truncation_is_our_error_and_unpickles_nothing() -> None:
    data = sealed_bomb()
    for length in range(len(data)):
        for damaged in (data[:length], data[len(data) - length :]):
            with pytest.raises(DecodingError):
                envelope().open(NAME, KEY, damaged)
    assert not fired


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"s",
        b"e",
        b"i",
        b"\0",
        BOMB,
        BOMB + UNSIGNED,
        BOMB + SIGNED,
        BOMB + b"\0" * MAC_SIZE + SIGNED,
        BOMB + hmac.digest(b"", BOMB, "sha256") + SIGNED,
        BOMB + hmac.digest(b"secret", BOMB, "sha256") + SIGNED,
        b"\0" * MAC_SIZE + SIGNED,
        BOMB + INTEGER,
    ],
)
def test_what_somebody_else_wrote_is_our_error_and_not_unpickled(data: bytes) -> None:
    with pytest.raises(DecodingError, match="'key' of 'DATA'"):
        envelope().open(NAME, KEY, data)
    assert not fired


@given(st.binary(max_size=80))
def test_any_bytes_are_our_error_or_an_integer(data: bytes) -> None:
    for tail in (b"", INTEGER, SIGNED, UNSIGNED):
        try:
            found = envelope().open(NAME, KEY, data + tail)
        except DecodingError:
            continue
        assert (data + tail)[-1:] == INTEGER
        assert type(found) is int


def test_the_signing_key_is_not_the_secret_itself() -> None:
    data = envelope(b"secret").seal(NAME, KEY, "value")
    payload, mac = data[: -MAC_SIZE - 1], data[-MAC_SIZE - 1 : -1]
    signed = b"5:4:3:" + b"state" + b"DATA" + b"key" + payload
    assert mac == hmac.digest(hmac.digest(b"secret", PURPOSE, "sha256"), signed, "sha256")
    assert mac != hmac.digest(b"secret", signed, "sha256")


def test_older_secrets_open_and_only_the_first_one_seals() -> None:
    old, new = envelope(b"old"), envelope(b"new", b"old")
    assert new.open(NAME, KEY, old.seal(NAME, KEY, "value")) == "value"
    with pytest.raises(SignatureError, match="STORE_SECRET_KEY_FALLBACKS"):
        old.open(NAME, KEY, new.seal(NAME, KEY, "value"))
    assert envelope(b"new").open(NAME, KEY, new.seal(NAME, KEY, "value")) == "value"


def test_secrets_are_asked_for_at_first_use_and_once() -> None:
    asked = []

    def secrets() -> Sequence[bytes]:
        asked.append(1)
        return [b"secret"]

    codec = Envelope(PickleEncoding(), state_id="state", secrets=secrets)
    codec.open(NAME, KEY, codec.seal(NAME, KEY, 5))
    assert not asked
    codec.open(NAME, KEY, codec.seal(NAME, KEY, "a"))
    assert asked == [1]


def test_without_a_secret_a_pickle_is_neither_written_nor_read() -> None:
    codec = Envelope(PickleEncoding(), state_id="state")
    for use in (lambda: codec.seal(NAME, KEY, "a"), lambda: codec.open(NAME, KEY, sealed_bomb())):
        with pytest.raises(ConfigurationError) as caught:
            use()
        for way_out in ("SECRET_KEY", "STORE_ENCODING", "unsigned_pickles"):
            assert way_out in str(caught.value)
    assert not fired
    assert codec.open(NAME, KEY, codec.seal(NAME, KEY, 5)) == 5
