"""An error names the innermost part of a value that can't be stored, and how it is reached."""

from __future__ import annotations

import logging
import threading
import types
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_globalstate import ConfigurationError, EncodingError, GlobalState
from flask_globalstate.values.culprits import MOST, culprit
from flask_globalstate.values.encodings import JSONEncoding, PickleEncoding


class Game:
    """Holds what it is given."""

    def __init__(self, lock: Any) -> None:
        self.name = "game"
        self.lock = lock


class Slotted:
    __slots__ = ("lock",)

    def __init__(self, lock: Any) -> None:
        self.lock = lock


class Careful(Game):
    """Leaves its lock out, and fails for another reason."""

    def __reduce__(self) -> Any:
        raise ValueError("hunter2")


class Rows(list[Any]):
    pass


def lock() -> Any:
    return threading.Lock()


@pytest.fixture
def state(tmp_path: Path) -> Any:
    made = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")})
    yield made
    made.close()


def test_an_error_names_the_path_and_the_type_within(state: GlobalState) -> None:
    data, rows, game = state.dict("D"), state.list("L"), state.value("V")
    with pytest.raises(EncodingError, match=r"D\['a'\]\[3\]\.lock is a _thread\.lock"):
        data["a"] = [1, 2, 3, Game(lock())]
    with pytest.raises(EncodingError, match=r"^'L': .*: L\[0\]\['x'\] is a _thread\.lock"):
        rows.append({"x": lock()})
    with pytest.raises(EncodingError, match=r"^'V': .*: V\.lock is a _thread\.lock"):
        game.value = Game(lock())
    data["a"] = []
    with pytest.raises(EncodingError, match=r"D\['a'\]\[0\]\.lock is a _thread\.lock"):
        data["a"].append(Game(lock()))
    assert data == {"a": []}


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        (lock(), ""),
        ({"a": {"b": lock()}}, "['a']['b']"),
        ((1, deque([lock()])), "[1][0]"),
        ({1: Slotted(lock())}, "[1].lock"),
        (Rows([Game(lock())]), "[0].lock"),
        ([Careful(lock())], "[0]"),
        ({"a": lambda: 1}, "['a']"),
        ({"x" * 100: lock()}, f"['{'x' * 12}...{'x' * 13}']"),
    ],
)
def test_it_is_found_in_containers_and_attributes(value: Any, steps: str) -> None:
    assert culprit(PickleEncoding(), value)[0] == steps


def test_json_has_no_attributes() -> None:
    game = Game(Path())
    assert culprit(JSONEncoding(), {"a": [game]}) == ("['a'][0]", game)
    assert culprit(JSONEncoding(), {"a": {1: 2}}) == ("['a']", {1: 2})


def test_what_holds_itself_or_is_too_large_to_look_at_is_named_as_a_whole() -> None:
    ring: list[Any] = [lock()]
    ring.insert(0, ring)
    assert culprit(PickleEncoding(), ring)[0] == ""
    long = [*[1] * MOST, lock()]
    assert culprit(PickleEncoding(), long) == ("", long)


def test_a_class_of_main_is_named_with_its_path(state: GlobalState, monkeypatch: Any) -> None:
    monkeypatch.setattr(Game, "__module__", "__main__")
    with pytest.raises(EncodingError, match=r"D\['a'\]\[0\]: Game lives in __main__"):
        state.dict("D")["a"] = [Game(1)]


def test_a_global_of_a_module_is_refused_with_its_path(state: GlobalState) -> None:
    module = types.ModuleType("legacy")
    module.ROOMS = {"a": [Game(lock())]}  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"ROOMS\[\.\.\.\]\[0\]\.lock is a _thread\.lock"):
        state.share_globals(module, "ROOMS")


def test_what_a_shared_store_would_refuse_is_told_with_its_path(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("app")
    app.debug = True
    data = GlobalState(app).dict("D")
    with caplog.at_level(logging.WARNING):
        data["a"] = {"x": Game(lock())}
    assert "a shared store would refuse this value" in caplog.text
    assert "D['a']['x'].lock is a _thread.lock" in caplog.text
