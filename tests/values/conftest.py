"""What the tests here share."""

from __future__ import annotations

import pytest

from tests.support.envelopes import fired


@pytest.fixture(autouse=True)
def _no_bomb_has_fired() -> None:
    fired.clear()
