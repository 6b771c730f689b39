"""Where a part of a value is, what it is in a newer one, and how that is shown in the same objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..replicas.base import alike, same
from .plain import CONTAINERS, FROZEN, PLAIN, TRACKED, are_frozen, copy_plain, is_loose
from .wrapping import make_tracked


def parts_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every tracked container in a value, itself included, and the keys and positions that lead to it."""
    kind = PLAIN.get(type(value), tuple)
    if type(value) in PLAIN:
        yield path, value
    elif type(value) is not tuple:
        return
    if kind is set or are_frozen(value.values() if kind is dict else value):
        return
    for step, item in list(value.items() if kind is dict else enumerate(value)):
        if type(item) not in FROZEN:
            yield from parts_of(item, (*path, step))


def path_to(value: Any, part: Any) -> tuple[Any, ...] | None:
    """The keys and positions that lead to a part of a value, or None if it is not in it."""
    return next((path for path, found in parts_of(value) if found is part), None)


def pairs(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a value, with what it is in a newer one; what is not found for sure is left out.

    A dict's item is found by its key, an element of a list by what stands before and behind it.
    """
    kind = PLAIN.get(type(new), type(new))
    if PLAIN.get(type(old), type(old)) is not kind or kind not in CONTAINERS:
        return
    if kind is not tuple:
        yield old, new
    if kind is dict:
        for key, item in list(old.items()):
            if type(item) not in FROZEN and key in new:
                yield from pairs(item, new[key])
    elif kind is not set and not (are_frozen(old) or are_frozen(new)):
        for item, other in _same_elements(list(old), list(new)):
            yield from pairs(item, other)


def _same_elements(old: list[Any], new: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs of elements that are the same place: around all that has changed, and the only one that has."""
    shorter = min(len(old), len(new))
    head = shorter if same(old[:shorter], new[:shorter]) else 0
    while head < shorter and _are_alike(old[head], new[head]):
        head += 1
    tail = 0
    while tail < shorter - head and _are_alike(old[-1 - tail], new[-1 - tail]):
        tail += 1
    if len(old) == len(new) == head + tail + 1:
        head += 1
    yield from zip(old[:head], new[:head], strict=True)
    if tail:
        yield from zip(old[-tail:], new[-tail:], strict=True)


def changed_items(old: dict[Any, Any], new: dict[Any, Any]) -> set[Any]:
    """The keys under which a newer dict holds something else, or nothing."""
    changed = {key for key, item in new.items() if key not in old or not _are_alike(old[key], item)}
    return changed | (old.keys() - new.keys())


def _are_alike(old: Any, new: Any) -> bool:
    return same(old, new) or alike(copy_plain(old)[0], copy_plain(new)[0])


def show(root: Any, value: Any, originals: dict[int, Any]) -> Any:
    """A plain value in tracked containers.

    :param originals: the containers to be filled anew, by the id of the plain one; each is used once.
    """
    kind = type(value)
    if kind is tuple and not are_frozen(value):
        return tuple([show(root, item, originals) for item in value])
    if kind not in TRACKED:
        root.is_changeable = root.is_changeable or not (kind in FROZEN or kind is tuple)
        return value
    container = originals.pop(id(value), None)
    if container is None:
        made, loose = make_tracked(root, value)
        root.is_changeable = root.is_changeable or loose
        return made
    if kind is list:
        if not are_frozen(value):
            value = [show(root, item, originals) for item in value]
        list.__setitem__(container, slice(None), value)
    elif kind is dict:
        if not are_frozen(value.values()):
            value = {key: show(root, item, originals) for key, item in value.items()}
        show_dict(container, value)
    else:
        set.update(container, value)
        set.intersection_update(container, value)
        root.is_changeable = root.is_changeable or any(map(is_loose, value))
    return container


def show_dict(container: dict[Any, Any], content: dict[Any, Any]) -> None:
    """Change a dict without emptying it in between, where the order allows it."""
    kept = [key for key in container if key in content]
    if list(content)[: len(kept)] != kept:
        dict.clear(container)
    for key in [key for key in container if key not in content]:
        dict.__delitem__(container, key)
    dict.update(container, content)
