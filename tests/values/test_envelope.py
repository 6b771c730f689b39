"""The envelope: nothing is unpickled that this state did not write for this place."""

from __future__ import annotations

import hmac
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_globalstate import GlobalState
from flask_globalstate.errors import (
    ConfigurationError,
    DecodingError,
    EncodingError,
    GlobalStateError,
    SignatureError,
)
from flask_globalstate.values.encodings import JSONEncoding, NoOpEncoding, PickleEncoding
from flask_globalstate.values.envelope import (
    INTEGER,
    MAC_SIZE,
    PURPOSE,
    SIGNED,
    UNSIGNED,
    Envelope,
    PlainCodec,
)

NAME, KEY = "DATA", "key"
fired: list[str] = []


def fire(word: str) -> None:
    """What a bomb does when it is unpickled."""
    fired.append(word)


class Bomb:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return fire, ("unpickled",)


BOMB = pickle.dumps(Bomb())


@pytest.fixture(autouse=True)
def _no_bomb_has_fired() -> None:
    fired.clear()


def envelope(*secrets: bytes, state_id: str = "state", encoding: Any = None, **options: Any) -> Envelope:
    return Envelope(
        encoding or PickleEncoding(), state_id=state_id, secrets=lambda: secrets or (b"secret",), **options
    )


def sealed_bomb() -> bytes:
    """A bomb with a right signature, made past the check that `PickleEncoding.encode` makes."""

    class Raw(PickleEncoding):
        def encode(self, value: Any) -> bytes:
            return BOMB

    return envelope(encoding=Raw()).seal(NAME, KEY, None)


# --- signatures -------------------------------------------------------------------------------------


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


# --- unsigned, JSON, old encodings ------------------------------------------------------------------


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


# --- integers ---------------------------------------------------------------------------------------


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


# --- errors -----------------------------------------------------------------------------------------


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
    for _ in range(5_000):
        deep = [deep]
    for value in (deep, lambda: None):
        with pytest.raises(EncodingError, match="'key' of 'DATA'"):
            PlainCodec().encode(NAME, KEY, value)
