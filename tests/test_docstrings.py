"""What users may call says what it takes, what it gives and what it raises."""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import flask_globalstate
from flask_globalstate import SharedDict, SharedList, SharedSet, errors, gunicorn, testing
from flask_globalstate.state.state import State
from flask_globalstate.stores import base

#: what the plain type has too is documented by Python, and works the same
PLAIN: dict[Any, type] = {SharedDict: dict, SharedList: list, SharedSet: set}
#: a docstring that begins so says nothing of what the caller gets
EMPTY_BEGINNINGS = ("Whether ", "Called ", "Used ", "This ", "That ", "How ", "When ", "If ", "See ")


class Public(NamedTuple):
    """Something that users may call: its docstring, its parameters, whether it returns something."""

    name: str
    docstring: str
    parameters: list[str]
    returns: bool


def exported() -> Iterator[tuple[str, Any]]:
    """What the public modules offer."""
    for module in (flask_globalstate, gunicorn, testing):
        yield from ((name, vars(module)[name]) for name in module.__all__)
    for module in (errors, base):
        yield from defined_in(module)
    yield "State", State


def defined_in(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public classes and functions of a module."""
    for name, thing in vars(module).items():
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__:
            yield name, thing


def public() -> Iterator[Public]:
    """All that users may call: functions, classes, and the methods of these that are ours."""
    for name, thing in exported():
        if isinstance(thing, type):
            yield of_class(name, thing)
            yield from methods(name, thing)
        elif inspect.isroutine(thing):
            yield of_function(name, thing)


def of_class(name: str, kind: type) -> Public:
    """A class; the one whose constructor it inherits says what that takes."""
    docstring, maker = kind.__doc__ or "", owner_of("__init__", kind)
    if not is_ours(maker) or getattr(kind, "_is_protocol", False):
        return Public(name, docstring, list(getattr(kind, "_fields", ())), False)
    return Public(name, f"{docstring}\n{maker.__doc__}", names_of(maker.__init__), False)


def of_function(name: str, function: Any) -> Public:
    """A function or method."""
    returns = inspect.signature(function).return_annotation not in ("None", "NoReturn", None)
    return Public(name, inspect.getdoc(function) or "", names_of(function), returns)


def methods(name: str, kind: type) -> Iterator[Public]:
    """The public methods and properties of a class that are ours, and that the plain type has not."""
    for attribute in (one for one in dir(kind) if not one.startswith("_")):
        owner = owner_of(attribute, kind)
        if not is_ours(owner) or hasattr(PLAIN.get(kind), attribute):
            continue
        found = vars(owner)[attribute]
        if isinstance(found, property):
            yield Public(f"{name}.{attribute}", inspect.getdoc(found) or "", [], False)
        elif inspect.isroutine(found) and not is_of_pytest(attribute, found):
            yield of_function(f"{name}.{attribute}", getattr(kind, attribute))


def owner_of(attribute: str, kind: type) -> type:
    """The class that defines an attribute of another one."""
    return next(one for one in kind.__mro__ if attribute in vars(one))


def is_ours(kind: type) -> bool:
    """Whether a class is one of this package."""
    return kind.__module__.partition(".")[0] == "flask_globalstate"


def is_of_pytest(name: str, function: Any) -> bool:
    """Whether pytest and nobody else calls it: a test, whose name is its law, or a fixture."""
    is_fixture = type(function).__module__.startswith("_pytest") or hasattr(
        function, "_pytestfixturefunction"
    )
    return is_fixture or name.startswith("test_")


def names_of(function: Any) -> list[str]:
    """The names of what a caller gives."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


EVERYTHING = {one.name: one for one in public()}
each = pytest.mark.parametrize("one", EVERYTHING.values(), ids=EVERYTHING)


def test_the_walk_meets_what_users_call() -> None:
    assert {
        "State.dict",
        "GlobalState.init_app",
        "SharedDict.edit",
        "SharedCounter.value",
    } <= EVERYTHING.keys()
    assert {"shared_dict", "use_store", "on_starting", "ConflictError", "Store.commit"} <= EVERYTHING.keys()
    assert EVERYTHING["SharedDict.edit"].parameters == ["key", "default", "retry"]
    assert EVERYTHING["SharedSet"].parameters[:2] == ["name", "store"]
    assert EVERYTHING["Write"].parameters == ["name", "key", "data", "expected"]
    assert EVERYTHING["PickleEncoding.encode"].returns
    assert not EVERYTHING["Store.close"].returns


@each
def test_a_docstring_begins_with_what_the_caller_gets(one: Public) -> None:
    first_line = one.docstring.strip().partition("\n")[0]
    assert first_line[:1].isupper()
    assert not first_line.startswith(EMPTY_BEGINNINGS)


@each
def test_a_docstring_names_every_parameter_and_no_other(one: Public) -> None:
    named = re.findall(r":(?:param|ivar) (\w+): +\S", one.docstring)
    assert [name for name in one.parameters if name not in named] == []
    assert [name for name in re.findall(r":param (\w+):", one.docstring) if name not in one.parameters] == []


@each
def test_a_docstring_says_what_is_returned(one: Public) -> None:
    assert bool(re.search(r":returns: +\S", one.docstring)) >= one.returns


@each
def test_what_a_docstring_says_is_raised_are_exceptions(one: Public) -> None:
    for name in re.findall(r":raises ([^:]*):", one.docstring):
        raised = getattr(errors, name, None) or getattr(builtins, name, None)
        assert isinstance(raised, type)
        assert issubclass(raised, Exception)
