"""What a name in one module means, followed through the imports of all that were read."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .changes import place_of
from .scopes import Import, Scope, Steps
from .sources import Module

#: how many local names for one another are followed
MAX_ALIASES = 8


class Global(NamedTuple):
    """A name of a module."""

    module: Module
    name: str


class Local(NamedTuple):
    """A name of a function, class or comprehension."""

    scope: Scope
    name: str

    @property
    def is_parameter(self) -> bool:
        """Whether it is what a function is given."""
        return self.name in self.scope.parameters


class Imported(NamedTuple):
    """A module or package itself, by its path without a suffix."""

    base: Path


Thing = Global | Local | Imported | None


class Names:
    """The names of some modules.

    :param modules: that were read.
    :param folders: that imports begin in, beside those that the modules show themselves.
    """

    def __init__(self, modules: Iterable[Module], folders: Iterable[Path]) -> None:
        self._modules = {module.file: module for module in modules}
        self._folders = {folder for file in self._modules for folder in file.parents}
        # In the order of the search; the folder of the module itself comes before them.
        roots = sorted({module.root for module in self._modules.values()})
        self._roots = list(dict.fromkeys([*folders, *roots]))

    def resolve(self, module: Module, scope: Scope, expression: ast.expr) -> tuple[Thing, Steps]:
        """What an expression means, and the steps from there to the place inside of it."""
        return self._resolve(module, scope, expression, MAX_ALIASES)

    def _resolve(self, module: Module, scope: Scope, expression: ast.expr, left: int) -> tuple[Thing, Steps]:
        place = place_of(expression)
        if place is None:
            return None, ()
        name, steps = place
        home = scope.home_of(name)
        thing: Thing = Local(home, name)
        if home.kind == "module":
            thing = self.global_named(module, name)
        elif name in home.imports:
            thing = self._imported(module, home.imports[name], frozenset())
        elif name in home.aliases and home.bound[name] == 1 and left:
            aliased, more = home.aliases[name]
            found, before = self._resolve(module, home, aliased, left - 1)
            if isinstance(found, (Global, Local)):
                return found, (*before, *more, *steps)
        while isinstance(thing, Imported) and steps and steps[0].startswith("."):
            thing, steps = self._member(thing.base, steps[0][1:], frozenset()), steps[1:]
        return thing, steps

    def dotted(self, scope: Scope, expression: ast.expr) -> str:
        """How something is imported, ``collections.deque``; plain for builtins, empty for all else."""
        place = place_of(expression)
        if place is None or "[]" in place[1]:
            return ""
        name, steps = place
        home = scope.home_of(name)
        if found := home.imports.get(name):
            name = "" if found.level else ".".join(filter(None, (found.bound, found.attribute)))
        elif name in home.bound:
            return ""
        return name + "".join(steps)

    def block_of(self, thing: Thing) -> Scope | None:
        """The function or class that something is."""
        return thing.module.scope.blocks.get(thing.name) if isinstance(thing, Global) else None

    def global_named(self, module: Module, name: str, seen: frozenset[Global] = frozenset()) -> Thing:
        """What a global of a module means: itself, or what it was imported from."""
        here = Global(module, name)
        if here in seen:
            return here
        seen |= {here}
        if found := module.scope.imports.get(name):
            is_rebound = module.scope.bound[name]
            return here if is_rebound else self._imported(module, found, seen) or here
        if name not in module.scope.bound:
            for star in module.scope.stars:
                base = self._find(module, star)
                other = base and self._module_at(base)
                if other and (name in other.scope.bound or other.scope.stars):
                    return self.global_named(other, name, seen)
        return here

    # --- imports --------------------------------------------------------------------------------

    def _imported(self, module: Module, found: Import, seen: frozenset[Global]) -> Thing:
        base = self._find(module, found)
        if base is None or found.attribute is None:
            return None if base is None else Imported(base)
        return self._member(base, found.attribute, seen)

    def _member(self, base: Path, name: str, seen: frozenset[Global]) -> Thing:
        module = self._module_at(base)
        if module and (name in module.scope.bound or not self._is_module(base / name)):
            return self.global_named(module, name, seen)
        return Imported(base / name) if self._is_module(base / name) else None

    def _find(self, module: Module, found: Import) -> Path | None:
        """Where a module that is imported lies, if it was read."""
        parts = found.module.split(".") if found.module else []
        if found.level:
            base = module.file.parents[min(found.level, len(module.file.parents)) - 1].joinpath(*parts)
            return base if self._is_module(base) else None
        for root in (module.root, *self._roots):
            if self._is_module(root.joinpath(*parts)):
                return root.joinpath(*found.bound.split("."))
        return None

    def _module_at(self, base: Path) -> Module | None:
        package = self._modules.get(base / "__init__.py")
        return package or self._modules.get(base.parent / f"{base.name}.py")

    def _is_module(self, base: Path) -> bool:
        return base in self._folders or self._module_at(base) is not None
