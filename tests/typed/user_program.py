"""A program of a user, for type checkers only: what they infer of each shared global."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_type

from flask import Flask

from flask_globalstate import (
    GlobalState,
    SharedCounter,
    SharedDict,
    SharedList,
    SharedSet,
    SharedValue,
    shared_counter,
    shared_dict,
    shared_list,
    shared_set,
    shared_value,
)


@dataclass
class Settings:
    """What an application keeps."""

    theme: str = "dark"


def first_prices() -> dict[str, float]:
    """What the prices begin with."""
    return {"apple": 1.5}


app = Flask(__name__)
state = GlobalState(app)

# With a first content, the type of what is inside is that of the content.
assert_type(state.dict("A", initial={"a": 1}), SharedDict[str, int])
assert_type(state.dict("B", initial=first_prices), SharedDict[str, float])
assert_type(state.list("C", initial=["a"]), SharedList[str])
assert_type(state.list("D", initial=lambda: range(3)), SharedList[int])
assert_type(state.set("E", initial={1}), SharedSet[int])
assert_type(state.set("F", initial=lambda: "abc"), SharedSet[str])
assert_type(state.value("G", initial="dark"), SharedValue[str])
assert_type(state.value("H", initial=datetime.date.today), SharedValue[datetime.date])
assert_type(state.value("I", initial=Settings), SharedValue[Settings])
assert_type(state.counter("J"), SharedCounter)
assert_type(state.counter("K", initial=1), SharedCounter)
assert_type(state.counter("L", initial=lambda: 1), SharedCounter)

# Without one anything may be inside, unless the user says more.
assert_type(state.dict("M"), SharedDict[Any, Any])
assert_type(state.list("N"), SharedList[Any])
assert_type(state.set("O"), SharedSet[Any])
assert_type(state.value("P"), SharedValue[Any])
CARTS: SharedDict[str, list[int]] = state.dict("CARTS")
EMPTY: SharedDict[str, list[int]] = state.dict("EMPTY", initial={})
MAYBE: SharedValue[str | None] = state.value("MAYBE")

# What is inside is typed in every use.
assert_type(CARTS["a"], list[int])
assert_type(CARTS.get("a"), list[int] | None)
assert_type(CARTS.pop("a", None), list[int] | None)
assert_type(CARTS.copy(), dict[str, list[int]])
assert_type(CARTS.apply("a", lambda cart: [*cart, 1]), list[int])
assert_type(CARTS.snapshot(), Mapping[str, list[int]])
assert_type(MAYBE.value, str | None)
assert_type(state.counter("J").increment(2), int)
assert_type(state.value("G", initial="dark").value, str)
assert_type([name.upper() for name in state.list("C", initial=["a"])], list[str])

# The same of the default state.
assert_type(shared_dict("A", initial={"a": 1}), SharedDict[str, int])
assert_type(shared_dict("M"), SharedDict[Any, Any])
assert_type(shared_list("C", initial=["a"]), SharedList[str])
assert_type(shared_set("E", initial={1}), SharedSet[int])
assert_type(shared_value("G", initial="dark"), SharedValue[str])
assert_type(shared_counter("J", initial=1, sync="manual"), SharedCounter)


with CARTS.edit("a") as edited:
    assert_type(edited, list[int])


@CARTS.edit("a", retry=3)
def add(cart: list[int], item: int) -> int:
    """Add to a cart."""
    cart.append(item)
    return len(cart)


assert_type(add(1), int)


# A decorated view has the signature that it had.
@state.transactional
def move(source: str, target: str) -> int:
    """Move a cart."""
    CARTS[target] = CARTS.pop(source)
    return len(CARTS)


@state.transactional(retries=3)
def count(name: str) -> int:
    """Count a cart."""
    return len(CARTS[name])


assert_type(move("a", "b"), int)
assert_type(count("a"), int)
MOVE: Callable[[str, str], int] = move

# What is wrong is an error; a checker that finds none of these complains of the comment.
state.dict("Q", sync="sometimes")  # type: ignore[call-overload]
state.dict("R", initial=["a"])  # type: ignore[call-overload]
state.list("S", initial="abc")  # type: ignore[call-overload]
state.counter("T", initial="1")  # type: ignore[arg-type]
state.counter("T", sync="often")  # type: ignore[arg-type]
shared_value("U", sync="sometimes")  # type: ignore[call-overload]
state.dict("A", initial={"a": 1})["b"] = "one"  # type: ignore[assignment]
count(1)  # type: ignore[arg-type]
