"""Finding the containers of a value in a newer one, and showing the newer one in the same objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..replicas.base import have_same_content, same
from .containers import FROZEN
from .kinds import KINDS, TRACKED_KINDS, kind_of
from .plain import is_untracked, unwrap_all
from .wrapping import wrap_containers


def tracked_containers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every tracked container in a value, itself included, with the keys and positions that lead to it."""
    kind = TRACKED_KINDS.get(type(value))
    if kind is None:
        return
    if kind.is_tracked:
        yield path, value
    for step, item in kind.steps(value):
        yield from tracked_containers(item, (*path, step))


def path_to(value: Any, container: Any) -> tuple[Any, ...] | None:
    """Return the keys and positions that lead to a container in a value, or None if it is not there."""
    return next((path for path, found in tracked_containers(value) if found is container), None)


def pairs(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a value with its counterpart in a newer value, where that is certain.

    A dict's item is found by its key, a list's item by what stands before and after it.
    """
    kind = kind_of(new)
    if kind is None or kind_of(old) is not kind:
        return
    if kind.is_tracked:
        yield old, new
    for item, other in kind.pairs(old, new, are_alike):
        yield from pairs(item, other)


def are_alike(old: Any, new: Any) -> bool:
    """Tell whether two values are equal, of which one or both may be tracked."""
    return same(old, new) or have_same_content(unwrap_all(old)[0], unwrap_all(new)[0])


def show(tracked: Any, value: Any, originals: dict[int, Any]) -> Any:
    """Show a plain value in tracked containers, and return the outermost.

    :param originals: the containers to show it in, by the id of the plain one; others are made.
    """
    return _Showing(tracked, originals).show(value)


class _Showing:
    """Shows one value; see `show`."""

    def __init__(self, tracked: Any, originals: dict[int, Any]) -> None:
        self._tracked_value = tracked
        self._originals = originals

    def show(self, value: Any) -> Any:
        tracked = self._tracked_value
        kind = KINDS.get(type(value))
        if kind is None:
            tracked.has_untracked = tracked.has_untracked or type(value) not in FROZEN
            return value
        if not kind.is_tracked:
            return kind.convert(value, self.show)
        container = self._originals.pop(id(value), None)
        if container is None:
            made, has_untracked = wrap_containers(tracked, value)
            tracked.has_untracked = tracked.has_untracked or has_untracked
            return made
        if not kind.holds_containers:
            tracked.has_untracked = tracked.has_untracked or any(map(is_untracked, value))
        kind.show(container, kind.convert(value, self.show))
        return container
