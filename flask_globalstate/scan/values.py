"""What kind of object an expression makes, as far as its source tells."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import NamedTuple

from .changes import METHODS

#: kinds beside the names of types: objects of a class that was read, what shared proxies and what only
#: a process can have are, the numbers of ``itertools.count``, the result of any other call, anything else
OBJECT, SHARED, PRIVATE, COUNT, CALL, UNKNOWN = "object", "shared", "private", "count", "call", "unknown"
CONTAINERS = frozenset(METHODS)

#: what calls give
CALLS: dict[str, str] = {
    **{name: name for name in ("dict", "list", "set", "int", "str", "float", "bool", "tuple", "bytearray")},
    **{f"collections.{name}": name for name in ("deque", "defaultdict", "OrderedDict", "Counter")},
    **dict.fromkeys(("time.time", "time.monotonic", "time.perf_counter"), "float"),
    **dict.fromkeys(("os.getenv", "os.environ.get", "input", "repr"), "str"),
    **{f"datetime.{name}": "datetime" for name in ("datetime", "datetime.now", "datetime.utcnow")},
    "dict.fromkeys": "dict",
    "sorted": "list",
    "len": "int",
    "frozenset": "frozenset",
    "itertools.count": COUNT,
    "types.SimpleNamespace": OBJECT,
}
#: packages that make what one process has, or what keeps itself
PRIVATE_PACKAGES = frozenset(
    {
        "logging",
        "threading",
        "multiprocessing",
        "concurrent",
        "contextvars",
        "asyncio",
        "re",
        "typing",
        "enum",
    }
    | {"flask", "click", "argparse", "struct", "weakref", "importlib", "string", "gevent"}
)
ANNOTATIONS: dict[str, str] = {
    **{kind: kind for kind in ("dict", "list", "set", "int", "str", "float", "bool", "bytearray")},
    **{f"typing.{kind.title()}": kind for kind in ("dict", "list", "set")},
    **{f"collections.{kind}": kind for kind in ("deque", "defaultdict", "OrderedDict", "Counter")},
}
DISPLAYS: dict[type[ast.expr], str] = {
    ast.Dict: "dict",
    ast.DictComp: "dict",
    ast.List: "list",
    ast.ListComp: "list",
    ast.Set: "set",
    ast.SetComp: "set",
    ast.Tuple: "tuple",
    ast.JoinedStr: "str",
    ast.Compare: "bool",
    ast.Lambda: PRIVATE,
    ast.GeneratorExp: PRIVATE,
}
#: how an object of our own package is made, as a method of a state
PROXIES = ("dict", "list", "set", "counter", "value")


class Callee(NamedTuple):
    """What is called.

    :ivar dotted: how it is imported.
    :ivar is_class: whether it is a class that was read.
    """

    dotted: str
    is_class: bool


def kind_of(value: ast.expr | None, callee_of: Callable[[ast.expr], Callee]) -> str:
    """The kind of what an expression gives: the name of a type, or one of the words above."""
    try:
        return _kind_of(value, callee_of)
    except RecursionError:  # a sum of thousands of terms
        return UNKNOWN


def _kind_of(value: ast.expr | None, callee_of: Callable[[ast.expr], Callee]) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, ast.Constant):
        return type(value.value).__name__
    if isinstance(value, ast.Call):
        return _kind_of_call(value, callee_of(value.func))
    if isinstance(value, ast.UnaryOp):
        return "bool" if isinstance(value.op, ast.Not) else _kind_of(value.operand, callee_of)
    if isinstance(value, ast.BinOp):
        made = _kind_of_operation(_kind_of(value.left, callee_of), _kind_of(value.right, callee_of))
        return "float" if made == "int" and isinstance(value.op, ast.Div) else made
    if isinstance(value, (ast.BoolOp, ast.IfExp)):
        parts = value.values if isinstance(value, ast.BoolOp) else [value.body, value.orelse]
        kinds = {_kind_of(part, callee_of) for part in parts} - {UNKNOWN}
        known = kinds - {CALL} or kinds
        return known.pop() if len(known) == 1 else UNKNOWN
    return DISPLAYS.get(type(value), UNKNOWN)


def _kind_of_call(call: ast.Call, callee: Callee) -> str:
    name = callee.dotted.rpartition(".")[2]
    if callee.is_class:
        return OBJECT
    if callee.dotted in CALLS:
        return CALLS[callee.dotted]
    if callee.dotted.startswith("flask_globalstate.") or _makes_a_proxy(call):
        return SHARED
    if callee.dotted.partition(".")[0] in PRIVATE_PACKAGES or name in ("TypeVar", "namedtuple"):
        return PRIVATE
    return CALL


def _makes_a_proxy(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    is_named = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return is_named and isinstance(call.func, ast.Attribute) and call.func.attr in PROXIES


def _kind_of_operation(left: str, right: str) -> str:
    numbers = {"int", "float"}
    if {left, right} <= numbers:
        return "int" if left == right == "int" else "float"
    # ``[0] * size``, ``"%s" % x``, ``A | {1}``
    sequences = {"list", "str", "dict", "set", "tuple"} & {left, right}
    return sequences.pop() if len(sequences) == 1 else UNKNOWN


def is_empty(value: ast.expr | None) -> bool:
    """Whether it is an empty container: ``{}``, ``[]``, ``dict()``, ``defaultdict(list)``."""
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, (ast.List, ast.Tuple)):
        return not value.elts
    if isinstance(value, ast.Call) and not value.keywords:
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in CONTAINERS and len(value.args) == (name == "defaultdict")
    return False
