"""Which block of code a name belongs to, as Python decides it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

#: places inside of an object, from outside in: ``.name`` for an attribute, ``[]`` for an item
Steps = tuple[str, ...]
ITEM: Steps = ("[]",)


class Import(NamedTuple):
    """What an import binds a name to.

    :ivar level: the number of dots.
    :ivar module: what is imported from, or what ``import`` names in full.
    :ivar bound: as much of ``module`` as the name stands for.
    :ivar attribute: what ``from module import attribute`` takes out of it.
    """

    level: int
    module: str
    bound: str
    attribute: str | None = None


class Scope:
    """The names of one block of code.

    :param kind: ``module``, ``class``, ``function``, ``comprehension``, or ``type`` for type parameters.
    :param name: of the class or function.
    :param parent: the block around it.
    :param node: the class or function.
    :ivar bound: how often each name is bound in it, imports not counted.
    :ivar aliases: local names for a place in another object.
    :ivar blocks: the functions and classes that are defined in it.
    """

    def __init__(
        self, kind: str, name: str = "", parent: Scope | None = None, node: ast.AST | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        self.parent = parent
        self.node = node
        self.module: Scope = parent.module if parent else self
        #: whether its code runs in calls, and not only while the module is imported
        self.runs_later: bool = kind == "function" or (parent is not None and parent.runs_later)
        self.bound: Counter[str] = Counter()
        self.global_names: set[str] = set()
        self.nonlocal_names: set[str] = set()
        self.parameters: list[str] = []
        self.imports: dict[str, Import] = {}
        self.stars: list[Import] = []
        self.aliases: dict[str, tuple[ast.expr, Steps]] = {}
        self.blocks: dict[str, Scope] = {}
        #: of a comprehension: what is evaluated outside of it
        self.first_iterable: ast.expr | None = None

    @property
    def path(self) -> list[Scope]:
        """The functions and classes it is in, from outside in."""
        around = self.parent.path if self.parent else []
        return [*around, self] if self.kind in ("function", "class") else around

    @property
    def label(self) -> str:
        """How people call it: ``Cart.add``."""
        return ".".join(scope.name for scope in self.path)

    def home_of(self, name: str) -> Scope:
        """The scope that a name belongs to which is used in this one."""
        scope: Scope | None = self
        while scope is not None:
            # What a class binds is not seen by the functions in it.
            if scope is self or scope.kind != "class":
                if name in scope.global_names:
                    return self.module
                if name in scope.bound and name not in scope.nonlocal_names:
                    return scope
            scope = scope.parent
        return self.module

    @property
    def binding(self) -> Scope:
        """The scope in which ``:=`` binds."""
        return self.parent.binding if self.parent and self.kind == "comprehension" else self


def scoped_nodes(tree: ast.Module) -> list[tuple[ast.AST, Scope]]:
    """Every node of a module, in order, with the scope it is evaluated in.

    It goes without recursion: a sum of a thousand terms is a tree a thousand levels deep.
    """
    found: list[tuple[ast.AST, Scope]] = []
    waiting: list[tuple[ast.AST, Scope]] = [(tree, Scope("module"))]
    while waiting:
        node, scope = waiting.pop()
        found.append((node, scope))
        _declare(node, scope)
        waiting.extend(reversed(list(_children(node, scope))))
    return found


# --- which scope a part belongs to ------------------------------------------------------------------


def _children(node: ast.AST, scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        yield from _children_of_block(node, scope)
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        inner = Scope("comprehension", parent=scope)
        inner.first_iterable = node.generators[0].iter
        yield inner.first_iterable, scope
        for child in ast.iter_child_nodes(node):
            yield child, inner
    elif isinstance(node, ast.comprehension):
        for child in ast.iter_child_nodes(node):
            if child is not scope.first_iterable:
                yield child, scope
    elif isinstance(node, ast.NamedExpr):
        yield node.target, scope.binding
        yield node.value, scope
    else:
        for child in ast.iter_child_nodes(node):
            yield child, scope


def _children_of_block(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda, scope: Scope
) -> Iterator[tuple[ast.AST, Scope]]:
    """Decorators, defaults, annotations and bases are evaluated outside, the body inside."""
    around = scope
    if type_parameters := getattr(node, "type_params", None):
        around = Scope("type", parent=scope)
        around.bound.update(parameter.name for parameter in type_parameters)
    name = getattr(node, "name", "<lambda>")
    inner = Scope("class" if isinstance(node, ast.ClassDef) else "function", name, around, node)
    if not isinstance(node, ast.Lambda):
        scope.blocks[name] = inner
    if not isinstance(node, ast.ClassDef):
        inner.parameters = parameters_of(node.args)
        inner.bound.update(inner.parameters)
    body: list[ast.AST] = list(node.body) if isinstance(node.body, list) else [node.body]
    inside = {id(child) for child in body}
    for child in ast.iter_child_nodes(node):
        yield child, inner if id(child) in inside else around


def parameters_of(arguments: ast.arguments) -> list[str]:
    """The names of all parameters, in order."""
    plain = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [one for one in (arguments.vararg, arguments.kwarg) if one]
    return [argument.arg for argument in (*plain, *starred)]


# --- what is bound where ----------------------------------------------------------------------------


def _declare(node: ast.AST, scope: Scope) -> None:
    if isinstance(node, ast.Global):
        scope.global_names.update(node.names)
        for name in node.names:
            scope.module.bound[name] += 0  # It is a name of the module, though this doesn't bind it.
    elif isinstance(node, ast.Nonlocal):
        scope.nonlocal_names.update(node.names)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        _declare_imports(node, scope)
    else:
        scope.bound.update(names_bound_by(node))
    for name, place, steps in _aliases_in(node):
        (scope.binding if isinstance(node, ast.NamedExpr) else scope).aliases[name] = place, steps


def names_bound_by(node: ast.AST) -> Iterable[str]:
    """The names that this very node binds, imports left out."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    return names_captured_by(node)


def names_captured_by(node: ast.AST) -> Iterable[str]:
    """The names that stand in a node as plain text: of ``except`` and ``match``."""
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return [node.name] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [node.rest] if node.rest else []
    return []


def _declare_imports(node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        if isinstance(node, ast.Import):
            name = alias.asname or alias.name.partition(".")[0]
            made = Import(0, alias.name, alias.name if alias.asname else name)
        else:
            name = alias.asname or alias.name
            module = node.module or ""
            made = Import(node.level, module, module, alias.name)
        if name == "*":
            scope.stars.append(made)
            continue
        scope.bound[name] += 0  # What is counted is what else binds it.
        if name not in scope.global_names:
            scope.imports[name] = made


def _aliases_in(node: ast.AST) -> Iterator[tuple[str, ast.expr, Steps]]:
    """Names that a node may bind to a place in another object: ``row = ROWS[0]``, ``for row in ROWS``."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value, Steps()
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
        if isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value, Steps()
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        item, place = _walked(node.target, node.iter)
        if isinstance(item, ast.Name):
            yield item.id, place, ITEM


def _walked(target: ast.expr, place: ast.expr) -> tuple[ast.expr | None, ast.expr]:
    """The target that items are bound to, and the object whose items they are."""
    pair = target.elts if isinstance(target, ast.Tuple) and len(target.elts) == 2 else [None, None]
    if not isinstance(place, ast.Call):
        return target, place
    if isinstance(place.func, ast.Name) and len(place.args) == 1:
        if place.func.id == "enumerate" and pair[1]:
            return _walked(pair[1], place.args[0])
        if place.func.id in ("list", "tuple", "sorted", "reversed"):
            return _walked(target, place.args[0])
    elif isinstance(place.func, ast.Attribute) and place.func.attr in ("items", "values"):
        return target if place.func.attr == "values" else pair[1], place.func.value
    return None, place
