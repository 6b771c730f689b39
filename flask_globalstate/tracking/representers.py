"""What YAML is taught: it goes by the exact type of what it dumps, and knows none of ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from .plain import StandIn, TrackedContainer, detach_strictly

#: PyYAML's module, and that of ruamel.yaml, which was made from it
MODULES = ("yaml.representer", "ruamel.yaml.representer")


def teach_yaml() -> None:
    """Let YAML, where the program has imported it, dump what is shared or tracked as what it stands for."""
    for module in MODULES:
        base = getattr(sys.modules.get(module), "BaseRepresenter", None)
        if base is not None and StandIn not in base.yaml_multi_representers:
            for table in _tables(base):
                table[StandIn] = table[TrackedContainer] = _represent


def refuse_untaught_yaml() -> None:
    """Raise if the caller's caller is YAML, which can only ask what it wasn't taught how to pickle it.

    :raises TypeError: saying what to write instead of a dump that only Python could load.
    """
    if sys._getframe(2).f_globals.get("__name__") in MODULES:
        teach_yaml()
        raise TypeError(
            "YAML was imported after this request began, and would dump a shared global, or what was read "
            "from one, as an object of Python: import it at the top of the module, or dump a copy()"
        )


def _tables(representer: Any) -> Iterator[dict[type[Any], Any]]:
    """Yield the table of each class that has one of its own, which began as a copy of its base's."""
    if "yaml_multi_representers" in vars(representer):
        yield representer.yaml_multi_representers
    for further in representer.__subclasses__():
        yield from _tables(further)


def _represent(dumper: Any, thing: Any) -> Any:
    return dumper.represent_data(detach_strictly(thing))
