"""Everything that the modules do to their globals, and to what their functions are given."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .changes import FUNCTIONS, Change, changes_by, is_change
from .names import Global, Local, Names
from .scopes import Scope, Steps
from .sources import Module

WIDTH = 40


class Use(NamedTuple):
    """One place in the source that does something to an object.

    :ivar module: that it is in.
    :ivar steps: from the object to the place inside of it that is changed.
    """

    module: Module
    scope: Scope
    change: Change
    steps: Steps = ()

    @property
    def line(self) -> int:
        """Its line."""
        return int(getattr(self.change.node, "lineno", self.change.place.lineno))

    @property
    def binds(self) -> bool:
        """Whether the name itself is bound."""
        return not self.steps and not self.change.method

    @property
    def is_change(self) -> bool:
        """Whether the object is changed by it, if its methods do what their names say."""
        return is_change(self.steps, self.change.method)

    @property
    def only_items(self) -> bool:
        """Whether the place is reached through items alone."""
        return set(self.steps) <= {"[]"}

    def value_text(self) -> str:
        """The right side, shortened."""
        return (self.change.value and self.module.source(self.change.value, WIDTH // 2)) or "..."

    def text(self) -> str:
        """What stands there, shortened."""
        place, action = short_place(self.module, self.change.place), self.change.action
        node = self.change.node
        if isinstance(node, ast.Call):
            arguments = len(node.args) + len(node.keywords)
            if action == "given" or self.change.method in (*FUNCTIONS, "next"):
                func = self.change.method or self.module.source(node.func, WIDTH) or "..."
                return f"{func}({place}{', ...' if arguments > 1 else ''})"
            return f"{place}.{self.change.method}({'...' if arguments else ''})"
        if action.endswith("="):
            is_augmented = action not in ("=", ":=")
            return f"{place} {action} {self.value_text() if is_augmented else '...'}"
        return {"del": f"del {place}", "for": f"for {place} in ...", "with": f"with ... as {place}"}.get(
            action, f"... as {place}"
        )


class Given(NamedTuple):
    """An object that is an argument of a call.

    :ivar key: the position or the name of the argument.
    :ivar callee: the function that is called, if it was read.
    """

    use: Use
    key: int | str
    callee: Scope | None
    dotted: str


class Uses:
    """What is done to globals and parameters.

    :ivar at_import: to globals, while modules are imported.
    :ivar later: to globals, in calls.
    :ivar on_parameters: to the parameters of each function.
    :ivar given: to which calls globals are arguments, in calls.
    """

    def __init__(self, modules: Iterable[Module], names: Names) -> None:
        self._names = names
        self.at_import: dict[Global, list[Use]] = defaultdict(list)
        self.later: dict[Global, list[Use]] = defaultdict(list)
        self.on_parameters: dict[tuple[Scope, str], list[Use]] = defaultdict(list)
        self.given: dict[Global, list[Given]] = defaultdict(list)
        for module in modules:
            for node, scope in module.nodes:
                for change in changes_by(node):
                    self._note(module, scope, change)
                if isinstance(node, ast.Call):
                    self._note_arguments(module, scope, node)

    def _note(self, module: Module, scope: Scope, change: Change) -> None:
        if isinstance(change.place, ast.Name) and not change.method:
            scope = scope.binding if change.action == ":=" else scope
            if scope.home_of(change.place.id).kind != "module":
                return  # It is a local name that is bound, whatever it stood for.
        thing, steps = self._names.resolve(module, scope, change.place)
        use = Use(module, scope, change, steps)
        if isinstance(thing, Global):
            (self.later if scope.runs_later else self.at_import)[thing].append(use)
        # Bound again, it may be another object than the one that was given.
        elif isinstance(thing, Local) and thing.is_parameter and thing.scope.bound[thing.name] == 1:
            self.on_parameters[thing.scope, thing.name].append(use)

    def _note_arguments(self, module: Module, scope: Scope, call: ast.Call) -> None:
        dotted = self._names.dotted(scope, call.func)
        if dotted in FUNCTIONS or (dotted == "next" and len(call.args) == 1):
            if call.args:
                self._note(module, scope, Change(call, call.args[0], f"{dotted}()"))
            return
        if not scope.runs_later:
            return
        for key, argument in _arguments(call):
            thing, steps = self._names.resolve(module, scope, argument)
            if isinstance(thing, Global):
                function, more = self._names.resolve(module, scope, call.func)
                callee = None if more else self._names.block_of(function)
                use = Use(module, scope, Change(call, argument, "given"), steps)
                self.given[thing].append(Given(use, key, callee, dotted))

    def changes_parameter(self, given: Given) -> bool:
        """Whether the function that is called changes what it is given."""
        callee = given.callee
        if callee is None or not isinstance(callee.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        arguments = callee.node.args
        positional = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        name = given.key
        if isinstance(name, int):
            if name >= len(positional):
                return False
            name = positional[name]
        return any(use.only_items and use.is_change for use in self.on_parameters.get((callee, name), []))


def _arguments(call: ast.Call) -> Iterator[tuple[int | str, ast.expr]]:
    for position, argument in enumerate(call.args):
        if isinstance(argument, ast.Starred):
            break
        yield position, argument
    for keyword in call.keywords:
        if keyword.arg:
            yield keyword.arg, keyword.value


def short_place(module: Module, place: ast.expr) -> str:
    """The source of a place, shortened."""
    if isinstance(place, ast.Name):
        return place.id
    text = module.source(place, WIDTH)
    if text is None:
        inner: ast.expr = place
        while isinstance(inner, (ast.Attribute, ast.Subscript)):
            inner = inner.value
        text = f"{inner.id}[...]" if isinstance(inner, ast.Name) else "..."
    return text


def import_only(modules: Iterable[Module], names: Names) -> dict[Global, int]:
    """The functions that seem to run only while modules are imported, as registering decorators do.

    With each stands how deep it runs then: 2 means that the function in it does so, too.
    """
    depths: dict[Global, int] = {}
    elsewhere: set[Global] = set()
    for module in modules:
        called: dict[int, int] = {}
        for identity, depth in _called_at_import(module):
            called[identity] = max(depth, called.get(identity, 0))
        for node, scope in module.nodes:
            if not isinstance(node, (ast.Name, ast.Attribute)) or not isinstance(node.ctx, ast.Load):
                continue
            thing, steps = names.resolve(module, scope, node)
            block = names.block_of(thing)
            if block is None or steps or not isinstance(thing, Global):
                continue
            deep = called.get(id(node))
            if deep is None or _decorators(block.node):
                elsewhere.add(thing)
            else:
                depths[thing] = min(deep, depths.get(thing, deep))
    return {thing: depth for thing, depth in depths.items() if thing not in elsewhere}


def _called_at_import(module: Module) -> Iterator[tuple[int, int]]:
    """The ids of what is called or decorates at the top of a module, and how deep it is called."""
    for node, scope in module.nodes:
        if scope.runs_later:
            continue
        if isinstance(node, ast.Call):
            yield id(node.func), 1
        for decorator in _decorators(node):
            if isinstance(decorator, ast.Call):
                yield id(decorator.func), 2
            else:
                yield id(decorator), 1


def _decorators(node: ast.AST | None) -> list[ast.expr]:
    return getattr(node, "decorator_list", [])
