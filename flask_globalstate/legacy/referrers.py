"""What refers to an object: names of modules, and whatever else the garbage collector knows of."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from types import (
    AsyncGeneratorType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import Any, NamedTuple

from ..values.wording import article

#: what refers to an object only while code runs
PASSING = (FrameType, GeneratorType, CoroutineType, AsyncGeneratorType)
#: a warning names so many referrers, and counts the rest
MOST_NAMED = 10


class Place(NamedTuple):
    """A name of a module."""

    module: str
    namespace: dict[str, Any]
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def places_of(thing: Any) -> list[Place]:
    """Every name of a module that is bound to this very object."""
    return [
        Place(module, namespace, name)
        for module, namespace in _namespaces()
        for name, value in list(namespace.items())
        if value is thing
    ]


def copies_of(name: str, value: Any, namespace: dict[str, Any]) -> list[str]:
    """The modules beside one that have the same object under the same name, as ``from x import y`` gives."""
    return [
        module
        for module, other in _namespaces()
        if other is not namespace and name in other and other[name] is value
    ]


def _namespaces() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType):
            # Past the module's own ways: one that is loaded at its first use must not be loaded by this.
            yield name, object.__getattribute__(module, "__dict__")


def other_referrers(things: Mapping[str, Any]) -> list[str]:
    """Descriptions of what refers to objects, beside the names of modules.

    :param things: each object under the name that it goes by; this mapping itself doesn't count.
    """
    lines: dict[str, None] = {}
    # Loops over the keys, and no comprehensions: these would refer to the objects themselves.
    for name in things:
        if _referrers(things[name], things):
            gc.collect()  # Garbage doesn't count.
            for referrer in _referrers(things[name], things):
                lines[f"{name} ({_described(things[name], referrer)})"] = None
    named, more = list(lines)[:MOST_NAMED], len(lines) - MOST_NAMED
    return [*named, f"{more} more"] if more > 0 else named


def _referrers(thing: Any, things: Mapping[str, Any]) -> list[Any]:
    found = []
    for referrer in gc.get_referrers(thing):
        if referrer is not things and referrer is not thing and not isinstance(referrer, PASSING):
            found.append(referrer)
    return found


def _described(thing: Any, referrer: Any) -> str:
    if isinstance(referrer, type):
        return _attribute(referrer, vars(referrer), thing)
    if places := places_of(referrer):
        return f"in {places[0]}"
    for owner in gc.get_referrers(referrer):
        if isinstance(owner, type) and isinstance(referrer, dict):
            return _attribute(owner, referrer, thing)
        if isinstance(owner, FunctionType):
            return f"a default argument of {_called(owner)}"
        if isinstance(referrer, CellType) and isinstance(owner, tuple):
            for function in gc.get_referrers(owner):
                if isinstance(function, FunctionType):
                    return f"a closure of {_called(function)}"
        if isinstance(referrer, dict) and getattr(owner, "__dict__", None) is referrer:
            return f"an attribute of {article(_called(type(owner)))}"
    return article(_called(type(referrer)))


def _attribute(kind: type, attributes: Mapping[str, Any], thing: Any) -> str:
    names = [name for name, value in list(attributes.items()) if value is thing]
    return f"the attribute {names[0] if names else '?'} of {_called(kind)}"


def _called(thing: Any) -> str:
    name = str(thing.__qualname__)
    return name if thing.__module__ == "builtins" else f"{thing.__module__}.{name}"
