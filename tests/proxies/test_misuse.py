"""What is written as with a plain object is right, or an error that says what to write instead."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from jinja2 import Environment

from flask_globalstate import GlobalState, SharedValue

BACKENDS = ["memory", "shelve"]


@pytest.fixture(params=BACKENDS)
def state(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    state = GlobalState.from_config({"STORE_BACKEND": request.param, "STORE_PATH": str(tmp_path / "store")})
    yield state
    state.close()


@pytest.fixture
def theme(state: GlobalState) -> SharedValue[Any]:
    return state.value("THEME", initial="dark")


# --- a value ------------------------------------------------------------------------------------------


def test_a_value_is_equal_to_what_its_value_is_equal_to(theme: SharedValue[Any], state: GlobalState) -> None:
    assert theme == "dark"
    assert "dark" == theme  # noqa: SIM300
    assert theme != "light"
    assert not theme != "dark"  # noqa: SIM202
    assert theme in ("light", "dark")
    assert theme not in ("light", "blue")
    assert theme == state.value("OTHER", initial="dark")
    assert state.value("NONE") == None  # noqa: E711


@pytest.mark.parametrize("value", ["", "a", 0, 1, None, [], [0]])
def test_a_value_is_true_if_its_value_is(state: GlobalState, value: Any) -> None:
    theme = state.value("THEME", initial="something")
    theme.value = value
    assert bool(theme) is bool(value)


def test_a_value_is_printed_as_its_value(theme: SharedValue[Any]) -> None:
    assert f"{theme} {theme!s:>6} {theme:>6}" == "dark   dark   dark"
    assert "%s" % theme == "dark"  # noqa: UP031
    assert Environment().from_string("{{ t }}{% if t == 'dark' %}!{% endif %}").render(t=theme) == "dark!"
    assert "THEME" in repr(theme)


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "<": lambda t: t < "x",
    ">": lambda t: t > "x",
    ">=": lambda t: t >= "x",
    "+": lambda t: t + "x",
    "+ of another": lambda t: "x" + t,
    "+=": lambda t: operator.iadd(t, "x"),
    "*": lambda t: 2 * t,
    "%": lambda t: t % 2,
    "|": lambda t: t | {},
    "-": operator.neg,
    "len": len,
    "[]": lambda t: t[0],
    "[] =": lambda t: operator.setitem(t, 0, "x"),
    "del []": lambda t: operator.delitem(t, 0),
    "in": lambda t: "d" in t,
    "for": list,
    "int": int,
    "float": float,
    "with": lambda t: t.__enter__(),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_anything_else_is_an_error_that_names_the_value(
    theme: SharedValue[Any], operation: Callable[[Any], Any]
) -> None:
    with pytest.raises(TypeError, match=r"THEME\.value"):
        operation(theme)
    assert theme == "dark"


def test_an_attribute_is_an_error_that_names_the_value(theme: SharedValue[Any]) -> None:
    with pytest.raises(AttributeError, match=r"THEME\.value\.upper"):
        theme.upper()
    with pytest.raises(AttributeError):
        theme.colour = "light"
    assert theme == "dark"
    assert not hasattr(theme, "upper")


def test_a_value_is_not_hashable(theme: SharedValue[Any]) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        {theme}  # noqa: B018


@pytest.mark.parametrize("kind", ["dict", "list", "set", "counter", "value"])
def test_nothing_takes_an_attribute(state: GlobalState, kind: str) -> None:
    with pytest.raises(AttributeError):
        getattr(state, kind)("NAME").owner = 1


# --- a counter of floats ------------------------------------------------------------------------------


def test_a_counter_of_floats_counts_them(state: GlobalState) -> None:
    total = state.counter("TOTAL", initial=0.0)
    assert total.increment(0.5) == 0.5
    assert repr(total.increment(1)) == "1.5"
    total += 0.25
    total -= 1
    total *= 2
    total /= 4
    assert repr(total.value) == "0.375"
    total.set(2)
    assert repr(total.value) == "2.0"
    total.set(0.5)
    assert total.increment() == 1.5


def test_who_knows_only_its_name_counts_floats_too(tmp_path: Any) -> None:
    settings = {"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path)}
    here, there = GlobalState.from_config(settings), GlobalState.from_config(settings)
    here.counter("TOTAL", initial=0.5).increment(1)
    assert there.counter("TOTAL").increment(0.5) == 2.0
    assert repr(there.counter("TOTAL").increment(1)) == "3.0"
    assert here.counter("TOTAL", initial=0.5).value == 3.0
    here.close()
    there.close()


def test_a_counter_of_ints_stays_exact(state: GlobalState) -> None:
    hits = state.counter("HITS")
    hits.increment(2**60)
    changes: list[Callable[[], Any]] = [
        lambda: hits.increment(0.5),
        lambda: operator.iadd(hits, 0.5),
        lambda: operator.imul(hits, 0.5),
        lambda: operator.itruediv(hits, 2),
    ]
    for change in changes:
        with pytest.raises(TypeError, match=r"'HITS' is of ints.*initial=0\.0"):
            change()
    for wrong in (0.5, True, "1", None):
        with pytest.raises(TypeError):
            hits.set(wrong)  # type: ignore[arg-type]
    for wrong in (True, "1", None):
        with pytest.raises(TypeError):
            hits.increment(wrong)  # type: ignore[arg-type]
    assert hits == 2**60
