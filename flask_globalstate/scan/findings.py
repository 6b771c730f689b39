"""Which globals functions change, and which they may change."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .changes import ANY_METHOD, CHANGING, DUNDERS, FUNCTIONS, METHODS
from .names import Global, Names
from .scopes import Scope
from .sources import Module
from .uses import Given, Use, Uses, import_only
from .values import (
    ANNOTATIONS,
    CALL,
    CONTAINERS,
    COUNT,
    OBJECT,
    PRIVATE,
    SHARED,
    UNKNOWN,
    Callee,
    is_empty,
    kind_of,
)

#: kinds of globals that are made by functions only, by an import, by ``def`` or ``class``; and of None
MISSING, IMPORT, BLOCK, NONE = "missing", "import", "block", "NoneType"
#: how a name gets an object that it did not hold
BINDING = frozenset({"=", ":=", "for", "with", "as"})
#: what leaves its arguments as they are, beside all builtins
HARMLESS = frozenset(
    {"json.dumps", "json.dump", "flask.jsonify", "flask.render_template", "copy.copy", "copy.deepcopy"}
    | {"pprint.pprint", "random.choice", "random.sample", "pickle.dumps", "pickle.dump"}
)
HARMLESS_METHODS = frozenset(
    {"join", "format", "union", "intersection", "difference", "issubset", "issuperset", "isdisjoint"}
    | {"debug", "info", "warning", "error", "exception", "dumps"}
)


class Finding(NamedTuple):
    """A global that functions change, or may change.

    :ivar value: what it is made of, if that can be told.
    :ivar uses: the places that change it, those in its own module first.
    :ivar at_import: what is done to it while modules are imported.
    :ivar reason: why this is not sure; empty if it is.
    """

    thing: Global
    kind: str
    line: int
    value: ast.expr | None
    uses: list[Use]
    at_import: list[Use]
    reason: str = ""


class Origin(NamedTuple):
    """Where a global comes from."""

    kind: str
    line: int
    value: ast.expr | None = None


class Judge:
    """Decides what is a finding.

    :param modules: that were read.
    :param names: what names mean in them.
    :param uses: what is done in them.
    """

    def __init__(self, modules: Iterable[Module], names: Names, uses: Uses) -> None:
        self._names = names
        self._uses = uses
        self._import_only = import_only(modules, names)

    def findings(self) -> Iterator[Finding]:
        """Each global that functions change or may change."""
        for thing in dict.fromkeys([*self._uses.later, *self._uses.given]):
            origin = self.origin_of(thing)
            uses, reason = self._changes(thing, origin)
            if not uses:
                continue
            uses.sort(key=lambda use: (use.module is not thing.module, use.module.path.parts, use.line))
            if not reason and all(map(self._runs_at_import, uses)):
                reason = "if that runs only while modules are imported, it is right as it is"
            line = origin.line or uses[0].line
            at_import = self._uses.at_import.get(thing, [])
            yield Finding(thing, origin.kind, line, origin.value, uses, at_import, reason)

    # --- what it is -----------------------------------------------------------------------------

    def origin_of(self, thing: Global) -> Origin:
        """Where a global comes from: the last value it is given at the top that is not None."""
        at_import = self._uses.at_import.get(thing, [])
        bound = [use for use in at_import if use.binds and use.change.action in BINDING]
        made = [use for use in bound if use.change.value and use.module is thing.module]
        origins = [Origin(self._kind(use), use.line, use.change.value) for use in made]
        if origins:
            return next((one for one in reversed(origins) if one.kind != NONE), origins[0])
        scope = thing.module.scope
        if thing.name in scope.blocks or thing.name in scope.imports:
            return Origin(BLOCK if thing.name in scope.blocks else IMPORT, 0)
        return Origin(UNKNOWN, bound[0].line) if bound else Origin(MISSING, 0)

    def _kind(self, use: Use) -> str:
        kind = kind_of(use.change.value, lambda func: self._callee(use.module, use.scope, func))
        annotation = getattr(use.change.node, "annotation", None)
        if annotation and kind in (CALL, UNKNOWN):
            plain = annotation.value if isinstance(annotation, ast.Subscript) else annotation
            return ANNOTATIONS.get(self._names.dotted(use.scope, plain), kind)
        return kind

    def _callee(self, module: Module, scope: Scope, func: ast.expr) -> Callee:
        thing, steps = self._names.resolve(module, scope, func)
        block = None if steps else self._names.block_of(thing)
        is_class = block is not None and block.kind == "class"
        return Callee("" if block else self._names.dotted(scope, func), is_class)

    # --- what is done to it ---------------------------------------------------------------------

    def _changes(self, thing: Global, origin: Origin) -> tuple[list[Use], str]:
        """The places that change it, and why this is not sure."""
        later, kind = self._uses.later.get(thing, []), origin.kind
        bound = [use for use in later if use.binds]
        if kind in (IMPORT, BLOCK, SHARED, PRIVATE):
            return [], ""
        if kind in CONTAINERS:
            return self._changes_of_container(thing, origin, bound)
        if kind == COUNT:
            return [use for use in later if use.change.method == "next"], ""
        items = [use for use in later if use.only_items and use.is_change]
        if kind in (CALL, UNKNOWN):
            return [*bound, *items], "" if bound else "if that changes it"
        if kind == OBJECT:
            block = self._class_of(thing, origin)
            changed = [use for use in later if _changes_object(self._uses, use, block)]
            return [*bound, *changed], "if its class can be pickled"
        if kind in (NONE, MISSING) and bound:
            return self._changes_of_none(bound, items)
        return bound, ""

    def _changes_of_container(self, thing: Global, origin: Origin, bound: list[Use]) -> tuple[list[Use], str]:
        later, given = self._uses.later.get(thing, []), self._uses.given.get(thing, [])
        changed = [use for use in later if not use.binds and _changes_container(use, origin.kind)]
        changed += [one.use for one in given if one.use.only_items and self._uses.changes_parameter(one)]
        is_filled = any(_changes_container(use, origin.kind) for use in self._uses.at_import.get(thing, []))
        if bound or changed or is_filled or not is_empty(origin.value):
            return [*bound, *changed], ""
        # Nobody makes an empty container to leave it empty.
        return [one.use for one in given if not _is_harmless(one)], "if what it is given to changes it"

    def _changes_of_none(self, bound: list[Use], items: list[Use]) -> tuple[list[Use], str]:
        kinds = {self._kind(use) for use in bound}
        if not kinds <= {CALL, OBJECT, PRIVATE, NONE} or kinds == {NONE}:
            return [*bound, *items], ""
        if kinds <= {PRIVATE, NONE}:
            return [], ""
        return [*bound, *items], "a connection, a client or a lock stays each worker's own"

    def _class_of(self, thing: Global, origin: Origin) -> Scope | None:
        """The class of an object, if it was read."""
        if not isinstance(origin.value, ast.Call):
            return None
        found, _ = self._names.resolve(thing.module, thing.module.scope, origin.value.func)
        return self._names.block_of(found)

    def _runs_at_import(self, use: Use) -> bool:
        path = use.scope.path
        depth = self._import_only.get(Global(use.module, path[0].name), 0)
        return sum(scope.kind == "function" for scope in path) <= depth


def _changes_container(use: Use, kind: str) -> bool:
    if not use.only_items or not use.change.method:
        return use.only_items and use.is_change
    return use.change.method in (CHANGING if use.steps else METHODS[kind] | DUNDERS | FUNCTIONS)


def _changes_object(uses: Uses, use: Use, block: Scope | None) -> bool:
    """Whether an object of a class is changed by a use."""
    method = None if use.steps or block is None else block.blocks.get(use.change.method)
    if method is None:
        # Methods that its class has from elsewhere are known by their names only.
        return use.is_change
    first = method.parameters[0] if method.parameters else ""
    return any(inner.is_change for inner in uses.on_parameters.get((method, first), []))


def _is_harmless(given: Given) -> bool:
    """Whether what is called leaves its arguments as they are, as far as its name tells."""
    func = given.use.change.node.func if isinstance(given.use.change.node, ast.Call) else None
    if given.dotted in HARMLESS or hasattr(builtins, given.dotted):
        return True
    return isinstance(func, ast.Attribute) and func.attr in HARMLESS_METHODS | ANY_METHOD
