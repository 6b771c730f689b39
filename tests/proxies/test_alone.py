"""A proxy alone, on a store of its own, without a state and without Flask."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import (
    ConfigurationError,
    DecodingError,
    EncodingError,
    GlobalState,
    JSONEncoding,
    PickleEncoding,
    SharedCounter,
    SharedDict,
    SharedValue,
    SignatureError,
)
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.stores.redis import RedisStore
from flask_globalstate.stores.shelve import ShelveStore


class Bytes(MemoryStore):
    """Holds bytes."""

    holds_objects = False


def test_a_manual_dict_shows_what_others_wrote_after_sync_only(redis_url: str) -> None:
    store = RedisStore(redis_url, state_id="alone")
    ours, theirs = (
        SharedDict[str, Any]("settings", store, sync="manual", encoding=JSONEncoding()) for _ in range(2)
    )
    ours.clear()
    ours["a"] = 1
    assert dict(ours) == {"a": 1}
    theirs.sync(sender="a signal")
    theirs["b"] = [None]
    assert dict(ours) == {"a": 1}
    assert "b" not in ours
    ours.sync()
    assert dict(ours) == {"a": 1, "b": [None]}
    store.close()


@pytest.mark.parametrize(("autosync", "seen"), [(True, 2), (False, 1)])
def test_autosync_is_another_word_for_read_and_manual(autosync: bool, seen: int) -> None:
    store = Bytes()
    writer = SharedDict[str, int]("D", store, secret=b"s")
    writer["a"] = 1
    reader = SharedDict[str, int]("D", store, secret=b"s", autosync=autosync)
    assert reader["a"] == 1
    writer["a"] = 2
    assert reader["a"] == seen
    state = GlobalState.from_config({"STORE_BACKEND": Bytes, "STORE_SECRET_KEY": "s"})
    assert state.dict("D", autosync=autosync) is state.dict("D", sync="read" if autosync else "manual")


@pytest.mark.parametrize(
    "options",
    [{"autosync": True, "sync": "read"}, {"autosync": "yes"}, {"autosync": 1}, {"sync": "sometimes"}],
)
def test_a_mode_that_is_none_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="sync of 'D'"):
        SharedDict[str, int]("D", Bytes(), **options)


def test_every_kind_can_be_alone_with_an_initial_content(tmp_path: Path) -> None:
    store = ShelveStore(tmp_path / "shelves")
    hits = SharedCounter("HITS", store, initial=5)
    hits += 1
    assert (hits, int(SharedCounter("HITS", store))) == (6, 6)
    assert SharedValue[str]("THEME", store, initial=lambda: "dark").value == "dark"
    assert dict(SharedDict[str, int]("D", store, initial={"a": 1})) == {"a": 1}
    assert dict(SharedDict[str, int]("D", store, initial={"a": 2})) == {"a": 1}
    unfit: list[Callable[[], Any]] = [
        lambda: SharedDict("D", store, initial=[1]),
        lambda: SharedCounter("HITS", store, initial="1"),
    ]
    for make in unfit:
        with pytest.raises(TypeError, match="initial"):
            make()
    store.close()


class Base64JSON:
    """An encoding of a user's own: any object with these two methods."""

    def encode(self, value: Any) -> bytes:
        """As bytes."""
        return base64.b64encode(json.dumps(value).encode())

    def decode(self, data: bytes) -> Any:
        """The inverse."""
        return json.loads(base64.b64decode(data, validate=True))


def test_any_object_with_encode_and_decode_is_an_encoding() -> None:
    store = Bytes()
    data = SharedDict[str, Any]("D", store, encoding=Base64JSON())
    data["a"] = [1, "x"]
    assert store.fetch("D").entries["a"].data.startswith(base64.b64encode(b'[1, "x"]'))
    assert data["a"] == [1, "x"]


def test_what_an_encoding_raises_is_wrapped_and_breaks_only_its_key() -> None:
    store = Bytes()
    data = SharedDict[str, Any]("D", store, encoding=Base64JSON())
    with pytest.raises(EncodingError, match=r"key 'bad' of 'D'.*TypeError") as encoding:
        data["bad"] = {1, 2}
    assert isinstance(encoding.value.__cause__, TypeError)
    data["good"] = "kept"
    SharedDict[str, Any]("D", store, encoding=JSONEncoding())["other"] = [1]
    with pytest.raises(DecodingError, match="key 'other' of 'D'"):
        data["other"]
    assert data["good"] == "kept"


def test_a_store_moves_from_one_encoding_to_another_while_in_use() -> None:
    store = Bytes()
    old = SharedDict[str, Any]("D", store, secret=b"s")
    old.update(a=(1, 2), b=[1])
    new = SharedDict[str, Any](
        "D", store, secret=b"s", encoding=JSONEncoding(), old_encoding=PickleEncoding()
    )
    assert new["a"] == (1, 2)
    new["b"] = [2]
    new["c"] = "new"
    assert dict(new) == {"a": (1, 2), "b": [2], "c": "new"}
    back = SharedDict[str, Any]("D", store, secret=b"s", old_encoding="json")
    assert dict(back) == {"a": (1, 2), "b": [2], "c": "new"}
    with pytest.raises(DecodingError, match="STORE_OLD_ENCODING"):
        SharedDict[str, Any]("D", store, secret=b"s", encoding="json")["a"]


def test_a_secret_signs_what_is_stored_where_the_store_keeps_none() -> None:
    store = Bytes()
    SharedDict[str, Any]("D", store, secret=b"one")["a"] = [1]
    with pytest.raises(SignatureError):
        SharedDict[str, Any]("D", store, secret=b"another")["a"]
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        SharedDict[str, Any]("D", store)["b"] = 1.5


def test_it_shares_with_a_state_on_the_same_store(tmp_path: Path) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "shelves")})
    state.dict("DATA")["a"] = [1]
    alone = SharedDict[str, Any]("DATA", ShelveStore(tmp_path / "shelves"))
    assert alone["a"] == [1]
    alone["a"].append(2)
    assert state.dict("DATA")["a"] == [1, 2]
    alone._replica.store.close()
    state.close()
