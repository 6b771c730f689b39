"""What to write in place of a global that functions change."""

from __future__ import annotations

import ast
from typing import NamedTuple

from .changes import FUNCTIONS
from .findings import BINDING, MISSING, NONE, Finding
from .uses import Use
from .values import CONTAINERS, COUNT, is_empty

MAX_INITIAL = 60
#: the shared global that stands for a container
FORMS = {"dict": "dict", "list": "list", "set": "set", "OrderedDict": "dict", "defaultdict": "dict"}
EMPTIES = {"list": "[]", "dict": "{}"}


class Advice(NamedTuple):
    """What to write.

    :ivar code: the new line, or lines, of the module.
    :ivar where: where it stands if not in place of the old one.
    :ivar notes: what else changes.
    :ivar shared: how ``share_globals`` is told of it, if that can stand for it.
    """

    code: str
    where: str
    notes: list[str]
    shared: str


class Form(NamedTuple):
    """The kind of shared global that fits, as a method of a state."""

    method: str
    notes: list[str]


def advise(finding: Finding, name: str) -> Advice:
    """What to write for a finding, which is called ``name`` in the store."""
    form = _form(finding)
    where, initial = _initial(finding, form)
    code = f'{finding.thing.name} = state.{form.method}("{name}"{initial})'
    return Advice(code, where, form.notes, _shared(finding, form))


def _shared(finding: Finding, form: Form) -> str:
    if finding.kind in (MISSING, COUNT) or any(use.change.method in FUNCTIONS for use in finding.uses):
        return ""
    name = finding.thing.name
    return f"{name}=SharedCounter" if form.method == "counter" else f'"{name}"'


# --- the kind that fits -----------------------------------------------------------------------------


def _form(finding: Finding) -> Form:
    name = finding.thing.name
    if finding.kind == COUNT:
        return Form("counter", [f"{name}.increment({_step(finding)}) for next({name})"])
    if finding.kind == "int" and (notes := _notes_of_counter(finding)) is not None:
        return Form("counter", notes)
    if finding.kind in CONTAINERS:
        return _form_of_container(finding)
    if all(use.binds for use in finding.uses) and not finding.reason:
        return Form("value", [f"{name}.value where it is used"])
    if finding.kind == NONE or finding.kind == MISSING:
        return Form("value", [f"{name}.value where it is used"])
    return _edited(finding)


def _edited(finding: Finding) -> Form:
    name = finding.thing.name
    inner = name.lower() if name.lower() != name else "found"
    return Form(
        "value", [f"`with {name}.edit() as {inner}:` where it is changed", f"{name}.value where it is read"]
    )


def _notes_of_counter(finding: Finding) -> list[str] | None:
    """What changes where an int is counted; None if it is not only counted."""
    name, notes, counts = finding.thing.name, [], 0
    for use in finding.uses:
        value, action = use.change.value, use.change.action
        if action in ("+=", "-="):
            counts += 1
        elif action == "=" and (step := _step_of_sum(name, value)):
            counts += 1
            operator, by = step
            text = use.module.source(by, 20) or "..."
            notes.append(f"{name} {operator}= {text} for {name} = {name} {operator} {text}")
        elif action == "=" and isinstance(value, ast.Constant) and type(value.value) is int:
            notes.append(f"{name}.set({value.value}) for {name} = {value.value}")
        else:
            return None
        if isinstance(value, ast.Constant) and type(value.value) is not int:
            return None
    return list(dict.fromkeys(notes)) if counts else None


def _step_of_sum(name: str, value: ast.expr | None) -> tuple[str, ast.expr] | None:
    """The operator and the right side of ``NAME + 1``."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Add, ast.Sub)):
        left = value.left.attr if isinstance(value.left, ast.Attribute) else getattr(value.left, "id", None)
        if left == name:
            return "+" if isinstance(value.op, ast.Add) else "-", value.right
    return None


def _form_of_container(finding: Finding) -> Form:
    name, uses = finding.thing.name, finding.uses
    method = FORMS.get(finding.kind)
    if finding.kind == "Counter" and not any(use.change.method in ("update", "subtract") for use in uses):
        method = "dict"
    if method is None or any(_needs_the_plain_object(use) for use in uses):
        return _edited(finding)
    bound = [use for use in uses if use.binds and use.change.action in (*BINDING, "del")]
    if not all(is_empty(use.change.value) for use in bound):
        return Form("value", [f"{name}.value where it is used"])
    notes = [f"{name}.clear() where it is bound again"] if bound else []
    return Form(method, [*notes, *(_notes_of_items(finding) if method == "dict" else [])])


def _needs_the_plain_object(use: Use) -> bool:
    """Whether a shared container can't do it."""
    node = use.change.node
    takes_arguments = isinstance(node, ast.Call) and bool(node.args or node.keywords)
    if use.steps:
        return use.change.method in FUNCTIONS
    return use.change.method in {*FUNCTIONS, "move_to_end"} or (
        use.change.method == "popitem" and takes_arguments
    )


def _notes_of_items(finding: Finding) -> list[str]:
    name, notes = finding.thing.name, []
    factory = _factory(finding)
    for use in finding.uses:
        place, value = use.change.place, use.change.value
        is_int = isinstance(value, ast.Constant) and type(value.value) is int
        is_counted = use.steps == ("[]",) and use.change.action in ("+=", "-=") and is_int
        if is_counted and isinstance(place, ast.Subscript):
            key = use.module.source(place.slice, 20) or "key"
            by = ("-" if use.change.action == "-=" else "") + use.value_text()
            step = "" if by == "1" else f", {by}"
            notes.append(f"{name}.increment({key}{step}) for {use.text()}")
    if factory and not (factory == "int" and notes):
        made = EMPTIES.get(factory, f"{factory}()")
        notes.append(f"{name}.setdefault(key, {made}) where {name}[key] makes a missing one")
    return list(dict.fromkeys(notes))[:2]


def _factory(finding: Finding) -> str:
    """The source of what a defaultdict makes for a missing key."""
    call = finding.value
    if finding.kind == "defaultdict" and isinstance(call, ast.Call) and call.args:
        return finding.thing.module.source(call.args[0], 20) or ""
    return ""


# --- its first content ------------------------------------------------------------------------------


def _initial(finding: Finding, form: Form) -> tuple[str, str]:
    """Where the new line stands, and its argument ``initial``."""
    name, value, module = finding.thing.name, finding.value, finding.thing.module
    if finding.kind == MISSING:
        return "at the top of the module", ""
    if finding.kind == COUNT:
        return "", _initial_of_count(finding)
    touched = [use for use in finding.at_import if use.binds or use.is_change]
    here = [use.line for use in touched if use.module is module]
    is_plain = len(touched) == 1 and any(
        statement is touched[0].change.node for statement in module.tree.body
    )
    source = value and module.source(value, MAX_INITIAL)
    if is_plain and _says_nothing(value, form):
        return "", ""
    if is_plain and source:
        return "", f", initial={source}"
    line = module.end_of_statement(max(here, default=finding.line))
    return f"below line {line}", f", initial={name}"


def _says_nothing(value: ast.expr | None, form: Form) -> bool:
    """Whether a shared global begins like this anyway."""
    if form.method == "counter":
        return isinstance(value, ast.Constant) and value.value == 0
    if form.method == "value":
        return isinstance(value, ast.Constant) and value.value is None
    return is_empty(value)


def _initial_of_count(finding: Finding) -> str:
    """So that the first number is the one that ``itertools.count`` gives first."""
    call, module = finding.value, finding.thing.module
    start = module.source(call.args[0], 20) if isinstance(call, ast.Call) and call.args else "0"
    step = _step(finding) or "1"
    try:
        first = int(start or "") - int(step)
    except ValueError:
        return f", initial={start or '...'} - {step}"
    return f", initial={first}" if first else ""


def _step(finding: Finding) -> str:
    """The step of ``itertools.count``, if it is not 1."""
    call, module = finding.value, finding.thing.module
    if isinstance(call, ast.Call) and len(call.args) > 1:
        return module.source(call.args[1], 20) or "..."
    return ""
