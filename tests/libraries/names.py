"""What the expressions of the calls may use: the modules, and a few small things made with them."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import sqlite3
from collections.abc import Callable
from typing import Any

MODULES = [
    "attrs",
    "bisect",
    "cattrs",
    "collections",
    "copy",
    "csv",
    "dataclasses",
    "deepdiff",
    "flask_restful.fields",
    "flask_restx",
    "heapq",
    "json",
    "jsonschema",
    "logging",
    "marshmallow",
    "msgpack",
    "msgspec",
    "networkx",
    "numpy",
    "orjson",
    "pandas",
    "pickle",
    "pydantic",
    "random",
    "requests",
    "ruamel.yaml",
    "simplejson",
    "sqlalchemy",
    "statistics",
    "string",
    "tabulate",
    "tomli_w",
    "urllib.parse",
    "xmltodict",
    "yaml",
]


def names() -> dict[str, Any]:
    """The names, all but those of the objects that are tried."""
    from flask_globalstate import json_default, unwrap

    given: dict[str, Any] = {"json_default": json_default, "unwrap": unwrap}
    for module in MODULES:
        importlib.import_module(module)
        given[module.partition(".")[0]] = importlib.import_module(module.partition(".")[0])
    for made in (matched, dispatched, written, selected, compiled, executed, Holder):
        given[made.__name__] = made
    return {**given, **_models()}


def _models() -> dict[str, Any]:
    import attrs
    import marshmallow
    import pydantic

    fields = {"a": marshmallow.fields.Int(), "b": marshmallow.fields.Str()}
    return {
        "Item": pydantic.create_model("Item", a=(int, ...), b=(str, "")),
        "Box": pydantic.create_model("Box", content=(dict[str, Any], ...)),
        "ItemSchema": type("ItemSchema", (marshmallow.Schema,), fields),
        "Thing": attrs.make_class("Thing", ["content"]),
        "Model": attrs.make_class("Model", {"a": attrs.field(type=int), "b": attrs.field(type=str)}),
    }


@dataclasses.dataclass
class Holder:
    """A dataclass with something in it."""

    content: Any


def matched(thing: Any) -> Any:
    """What ``match`` takes something for."""
    match thing:
        case {"a": found, **others}:
            return "mapping", found, others
        case [first, *others]:
            return "sequence", first, others
    return "neither"


def dispatched(thing: Any) -> str:
    """The type that ``singledispatch`` takes something for."""
    found: Callable[[Any], str] = functools.singledispatch(lambda thing: "object")
    for kind in (dict, list, set):
        found.register(kind, functools.partial(lambda name, thing: name, kind.__name__))  # type: ignore[attr-defined]
    return found(thing)


def written(write: Callable[[io.StringIO], Any]) -> str:
    """What a function writes into a file."""
    file = io.StringIO()
    write(file)
    return file.getvalue()


def selected(columns: str, parameters: Any) -> Any:
    """What SQLite makes of parameters."""
    connection = sqlite3.connect(":memory:")
    try:
        return connection.execute(f"select {columns}", parameters).fetchall()
    finally:
        connection.close()


def compiled(clause: Any) -> str:
    """A clause of SQLAlchemy as text, with its parameters in it."""
    return str(clause.compile(compile_kwargs={"literal_binds": True}))


def executed(statement: Any, parameters: Any) -> Any:
    """What a statement of SQLAlchemy gives."""
    import sqlalchemy

    engine = sqlalchemy.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(statement, parameters)]
    finally:
        engine.dispose()
