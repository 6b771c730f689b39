"""What the tests of the stores of files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState, GlobalStateError
from tests.support.standard import read_settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A STORE_PATH that is not made yet."""
    return tmp_path / "shelves"


@pytest.fixture
def open_state(path: Path) -> Iterator[Callable[..., GlobalState]]:
    """Opens states on the path, which are closed in the end."""
    states = []

    def open_one(**settings: Any) -> GlobalState:
        states.append(GlobalState.from_config(read_settings(path, **settings)))
        return states[-1]

    yield open_one
    for state in states:
        with suppress(GlobalStateError):
            state.close()


@pytest.fixture
def state(open_state: Callable[..., GlobalState]) -> GlobalState:
    return open_state()
