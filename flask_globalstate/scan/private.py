"""What else each worker has for itself: attributes of classes and functions, caches, default arguments."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from .changes import changes_by
from .names import Names
from .scopes import Scope
from .sources import Module
from .uses import Use, Uses
from .values import CONTAINERS, Callee, kind_of

CACHES = ("functools.lru_cache", "functools.cache")
#: methods that run while classes are made
WHILE_MAKING = ("__init_subclass__", "__set_name__")


class Private(NamedTuple):
    """Something that functions change and that no shared global can stand for.

    :ivar subject: what it is, in the words of its source.
    :ivar what: what it is, in plain words.
    """

    module: Module
    line: int
    subject: str
    what: str
    uses: list[Use]


def private_things(modules: list[Module], names: Names, uses: Uses) -> Iterator[Private]:
    """All of them."""
    for module in modules:
        for node, scope in module.nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not scope.runs_later:
                yield from _caches(module, names, scope, node)
                yield from _defaults(module, names, uses, scope, node)
    yield from _class_attributes(modules, uses)
    yield from _function_attributes(uses, names)


def _caches(
    module: Module, names: Names, scope: Scope, node: ast.FunctionDef | ast.AsyncFunctionDef
) -> Iterator[Private]:
    for decorator in node.decorator_list:
        func = decorator.func if isinstance(decorator, ast.Call) else decorator
        if names.dotted(scope, func) in CACHES:
            label = ".".join(filter(None, (scope.label, node.name)))
            yield Private(module, node.lineno, f"{label}()", "what lru_cache keeps", [])


def _defaults(
    module: Module, names: Names, uses: Uses, scope: Scope, node: ast.FunctionDef | ast.AsyncFunctionDef
) -> Iterator[Private]:
    block = scope.blocks[node.name]
    positional = [*node.args.posonlyargs, *node.args.args]
    pairs = [
        *zip(reversed(positional), reversed(node.args.defaults), strict=False),
        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        changed = [use for use in uses.on_parameters.get((block, argument.arg), []) if use.is_change]
        kind = kind_of(default, lambda func: Callee(names.dotted(scope, func), is_class=False))
        if changed and default and kind in CONTAINERS and block.node is node:
            subject = f"{block.label}({argument.arg}={module.source(default, 20) or '...'})"
            yield Private(module, node.lineno, subject, "a default argument", changed)


def _function_attributes(uses: Uses, names: Names) -> Iterator[Private]:
    for thing, later in uses.later.items():
        block = names.block_of(thing)
        changed: dict[str, list[Use]] = defaultdict(list)
        for use in later:
            if use.steps and use.steps[0].startswith(".") and use.is_change:
                changed[use.steps[0]].append(use)
        if block and block.kind == "function":
            for attribute, those in changed.items():
                line = getattr(block.node, "lineno", 0)
                yield Private(
                    thing.module, line, f"{thing.name}{attribute}", "an attribute of a function", those
                )


# --- attributes of classes --------------------------------------------------------------------------


def _class_attributes(modules: list[Module], uses: Uses) -> Iterator[Private]:
    changed: dict[tuple[Scope, str], list[Use]] = defaultdict(list)
    for owner, attribute, use in _changes_of_classes(uses):
        changed[owner, attribute].append(use)
    homes = {module.scope: module for module in modules}
    for (owner, attribute), those in changed.items():
        module = homes[owner.module]
        made = _made_in(owner, attribute)
        line = made.lineno if made else getattr(owner.node, "lineno", 0)
        subject = f"{owner.label}.{attribute}"
        if made:
            subject += f" = {module.source(made, 40) or '...'}"
        yield Private(module, line, subject, "an attribute of a class", those)


def _changes_of_classes(uses: Uses) -> Iterator[tuple[Scope, str, Use]]:
    """Each change of an attribute of a class, with the class and the name."""
    for thing, later in uses.later.items():
        block = thing.module.scope.blocks.get(thing.name)
        for use in later:
            if (
                block
                and block.kind == "class"
                and use.steps
                and use.steps[0].startswith(".")
                and use.is_change
            ):
                yield block, use.steps[0][1:], use
    for (method, parameter), those in uses.on_parameters.items():
        owner = _class_around(method)
        if owner and parameter == method.parameters[0] and method.name not in WHILE_MAKING:
            for use in those:
                attribute = _attribute_of_class(uses, owner, method, use)
                if attribute and use.is_change:
                    yield owner, attribute, use


def _class_around(method: Scope) -> Scope | None:
    scope = method.parent
    while scope is not None and scope.kind == "type":
        scope = scope.parent
    return scope if scope is not None and scope.kind == "class" and not scope.runs_later else None


def _attribute_of_class(uses: Uses, owner: Scope, method: Scope, use: Use) -> str:
    """The attribute of the class that is changed through ``cls`` or ``self``, or nothing."""
    steps = use.steps
    if steps[:1] == (".__class__",):
        steps = steps[1:]
        is_class = True
    else:
        is_class = method.parameters[0] in ("cls", "mcs") or _is_class_method(method)
    if not steps or not steps[0].startswith("."):
        return ""
    attribute = steps[0][1:]
    if is_class:
        # Of ``cls.x.y = 1`` nobody knows what it changes.
        return attribute if set(steps[1:]) <= {"[]"} else ""
    in_place = len(steps) > 1 or use.change.method
    made = _made_in(owner, attribute) if in_place and set(steps[1:]) <= {"[]"} else None
    is_shared = (
        made and kind_of(made, lambda func: Callee(getattr(func, "id", ""), is_class=False)) in CONTAINERS
    )
    return attribute if is_shared and not _is_set_on_self(uses, owner, attribute) else ""


def _is_class_method(method: Scope) -> bool:
    decorators = getattr(method.node, "decorator_list", ())
    return any(isinstance(one, ast.Name) and one.id == "classmethod" for one in decorators)


def _is_set_on_self(uses: Uses, owner: Scope, attribute: str) -> bool:
    """Whether a method gives each object an attribute of its own of this name."""
    return any(
        use.steps == (f".{attribute}",) and not use.change.method
        for method in owner.blocks.values()
        for use in uses.on_parameters.get((method, method.parameters[0] if method.parameters else ""), [])
    )


def _made_in(owner: Scope, attribute: str) -> ast.expr | None:
    """What the body of a class binds to a name."""
    for statement in getattr(owner.node, "body", ()):
        for change in changes_by(statement):
            if isinstance(change.place, ast.Name) and change.place.id == attribute and change.value:
                return change.value
    return None
