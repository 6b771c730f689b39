"""What a piece of source changes: the place, and how."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .scopes import Steps, names_captured_by

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+=",
    ast.Sub: "-=",
    ast.Mult: "*=",
    ast.MatMult: "@=",
    ast.Div: "/=",
    ast.Mod: "%=",
    ast.LShift: "<<=",
    ast.RShift: ">>=",
    ast.BitOr: "|=",
    ast.BitXor: "^=",
    ast.BitAnd: "&=",
    ast.FloorDiv: "//=",
    ast.Pow: "**=",
}
#: the methods by which an object of a kind is changed
METHODS: dict[str, frozenset[str]] = {
    "dict": frozenset({"clear", "pop", "popitem", "setdefault", "update"}),
    "list": frozenset({"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}),
    "set": frozenset(
        {"add", "clear", "discard", "pop", "remove", "update"}
        | {"difference_update", "intersection_update", "symmetric_difference_update"}
    ),
}
METHODS["bytearray"] = METHODS["list"] - {"sort"}
METHODS["deque"] = METHODS["bytearray"] | {"appendleft", "extendleft", "popleft", "rotate"}
METHODS["defaultdict"] = METHODS["dict"]
METHODS["OrderedDict"] = METHODS["dict"] | {"move_to_end"}
METHODS["Counter"] = METHODS["dict"] | {"subtract"}
DUNDERS = frozenset({"__setitem__", "__delitem__", "__ior__", "__iadd__"})
ANY_METHOD = frozenset().union(*METHODS.values()) | DUNDERS
#: functions that change their first argument
FUNCTIONS = frozenset(
    {f"heapq.{name}" for name in ("heapify", "heappop", "heappush", "heappushpop", "heapreplace")}
    | {f"bisect.{name}" for name in ("insort", "insort_left", "insort_right")}
    | {"random.shuffle"}
)
CHANGING = ANY_METHOD | FUNCTIONS
#: methods that give what an item holds
GETTERS = ("get", "setdefault")


class Change(NamedTuple):
    """One place in an object that is changed.

    :ivar node: the statement or the expression that does it.
    :ivar place: the name, attribute or item that is bound, or the object whose method is called.
    :ivar action: ``=``, ``+=``, ``del``, ``for``, ..., or the name of a method with ``()``.
    :ivar value: what is bound, or the right side of ``+=``, where it stands there.
    """

    node: ast.AST
    place: ast.expr
    action: str
    value: ast.expr | None = None

    @property
    def method(self) -> str:
        """The method that is called, if it is that."""
        return self.action.removesuffix("()") if self.action.endswith("()") else ""


def is_change(steps: Steps, method: str) -> bool:
    """Whether an object is changed by what is done at this place inside of it."""
    return method in CHANGING if method else bool(steps)


def changes_by(node: ast.AST) -> Iterator[Change]:
    """What this very node changes, if its methods do what their names say."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _bound(node, target, "=", node.value)
    elif isinstance(node, ast.AnnAssign) and node.value:
        yield Change(node, node.target, "=", node.value)
    elif isinstance(node, ast.AugAssign):
        yield Change(node, node.target, OPERATORS[type(node.op)], node.value)
    elif isinstance(node, ast.NamedExpr):
        yield Change(node, node.target, ":=", node.value)
    elif isinstance(node, ast.Delete):
        for target in node.targets:
            yield from _bound(node, target, "del")
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        yield from _bound(node.target, node.target, "for")
    elif isinstance(node, ast.withitem) and node.optional_vars:
        yield from _bound(node.optional_vars, node.optional_vars, "with")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield Change(node, node.func.value, f"{node.func.attr}()")
    else:
        for name in names_captured_by(node):
            yield Change(node, ast.copy_location(ast.Name(name, ast.Store()), node), "as")


def _bound(node: ast.AST, target: ast.expr, action: str, value: ast.expr | None = None) -> Iterator[Change]:
    """The single places of a target, each with its own value where that can be told."""
    if isinstance(target, ast.Starred):
        yield from _bound(node, target.value, action)
    elif isinstance(target, (ast.Tuple, ast.List)):
        values: list[ast.expr | None] = [None] * len(target.elts)
        if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(values):
            is_plain = not any(isinstance(one, ast.Starred) for one in (*value.elts, *target.elts))
            values = list(value.elts) if is_plain else values
        for element, its_value in zip(target.elts, values, strict=True):
            yield from _bound(node, element, action, its_value)
    else:
        yield Change(node, target, action, value)


def place_of(expression: ast.expr) -> tuple[str, Steps] | None:
    """The name that an expression begins with, and the steps from its object to the one it means.

    None if it makes a new object, as a slice does, or begins with none.
    """
    steps: list[str] = []
    while not isinstance(expression, ast.Name):
        if isinstance(expression, ast.Attribute):
            steps.append(f".{expression.attr}")
            expression = expression.value
        elif isinstance(expression, ast.Subscript) and not (
            isinstance(expression.slice, ast.Slice) and isinstance(expression.ctx, ast.Load)
        ):
            steps.append("[]")
            expression = expression.value
        elif isinstance(expression, ast.Call):
            func = expression.func
            if isinstance(func, ast.Attribute) and func.attr in GETTERS:
                steps.append("[]")
                expression = func.value
            elif isinstance(func, ast.Name) and func.id == "type" and len(expression.args) == 1:
                steps.append(".__class__")
                expression = expression.args[0]
            else:
                return None
        else:
            return None
    return expression.id, tuple(reversed(steps))
