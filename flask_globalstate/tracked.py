"""Lists, dicts and sets that come out of a store: they read as the plain ones do, and a change is a commit.

Reading is that of the plain type, since these are subclasses that override nothing of it. A mutating
call is replayed: on a plain copy of the whole value as this worker holds it, committed under the
condition that nobody has changed it since; or else on the newest value, again until that holds. Then what
was committed is shown in the same objects, so that references that somebody holds go on to be right.

Which object of the newest value a reference means is found by comparing: a dict's item by its key, an
element of a list by what stands before and behind it. Where that can't be told for sure, the reference
has lost its place, and using it is a `ConflictError`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from . import keys
from .access import Access, Global
from .errors import ConflictError
from .revision import Revision
from .stores.base import Mark

#: builtin types whose instances can't be changed, nor hold anything that can
FROZEN = frozenset({str, int, float, bool, type(None), bytes, complex, frozenset})
CONTAINERS = frozenset({list, dict, set, tuple})

#: which methods change an object, and which of them mean positions of a list
MUTATORS: dict[type, tuple[str, ...]] = {
    list: ("append", "extend", "remove", "clear", "__iadd__", "__imul__"),
    dict: ("__setitem__", "__delitem__", "clear", "pop", "popitem", "setdefault", "update", "__ior__"),
    set: (
        "add",
        "clear",
        "difference_update",
        "discard",
        "intersection_update",
        "pop",
        "remove",
        "symmetric_difference_update",
        "update",
        "__iand__",
        "__ior__",
        "__isub__",
        "__ixor__",
    ),
}
BY_POSITION = ("__setitem__", "__delitem__", "insert", "reverse", "sort")


class Root:
    """The value of a key, of which tracked containers are parts.

    :param proxy: the global.
    :param key: its key.
    :param revision: of the commit that the value is of.
    :param view: the transaction's view that it was read in, or None.
    """

    __slots__ = ("_view", "is_changeable", "key", "proxy", "revision", "value", "was_changed_in_place")

    def __init__(self, proxy: Global, key: Any, revision: Revision, view: Access | None = None) -> None:
        self.proxy = proxy
        self.key = key
        self.revision = revision
        self.value: Any = None
        self.is_changeable = False
        #: whether an operator like ``+=`` has changed the whole value, which Python will assign in a moment
        self.was_changed_in_place = False
        self._view = view

    def change(self, part: Any, operation: Callable[[Any], Any], by_position: bool) -> Any:
        """Commit what ``operation`` does to a plain copy of ``part``, and give what it answers.

        :param operation: may run several times, each time on a copy of its own.
        :param by_position: whether it means the list as this worker has seen it.
        :raises ConflictError: if the part is nowhere in the newest value, or by_position is meant and
            another worker has changed the list.
        """
        with self.proxy._gate:
            return self._change(self.proxy._here(), part, operation, by_position)

    def _change(self, here: Access, part: Any, operation: Callable[[Any], Any], by_position: bool) -> Any:
        text = keys.to_string(self.key)
        seen = list(part) if by_position else None
        # Before the copy: of what another thread is about to show we hold the older revision.
        expected: Revision | Mark = self.revision
        value, copies = copy_plain(self.value)
        is_newest = False
        while True:
            target = copies.get(id(part))
            if target is None or (seen is not None and target != seen):
                raise self._lost(part, target is None)
            try:
                answer = operation(target)
                revision = here.commit({self.key: value}, {self.key: expected})
                break
            except ConflictError:
                pass
            except Exception:
                # It is the answer only if it is that of the newest value.
                if is_newest or here.revision_of(text) == expected:
                    raise
            value, expected = here.newest(self.key, text)
            copies, is_newest = match(self.value, value), True
        if self._view is here or not here.is_private:
            here.show_own(self.key, revision, functools.partial(self._show, value, copies, revision))
        return answer

    def _show(self, value: Any, copies: dict[int, Any], revision: Revision) -> tuple[Any, bool]:
        """Let the objects that this worker has handed out hold what was committed."""
        if revision.epoch != self.revision.epoch or revision.number > self.revision.number:
            originals = {id(copies[id(part)]): part for part in parts_of(self.value) if id(part) in copies}
            self.value = _shown(self, value, originals)
            self.revision = revision
        return self.value, self.is_changeable

    def _lost(self, part: Any, is_gone: bool) -> ConflictError:
        path = "".join(f"[{step!r}]" for step in path_of(self.value, part) or ())
        expected = f"what it was at {self.revision.number}"
        found = "nothing that is it for sure" if is_gone else "another list"
        return ConflictError(self.proxy.name, self.key, expected, found, path)


class Tracked:
    """A container that is a part of a stored value."""

    __slots__ = ()
    _root: Root

    def _plain(self) -> Any:
        """A plain copy, at every depth."""
        return copy_plain(self)[0]

    def __copy__(self) -> Any:
        return self.copy()  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._plain(), memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        made = self._plain()
        return type(made), (made,)


class _NotImplemented(Exception):
    """An operator is not for this argument."""


class TrackedList(Tracked, list[Any]):
    """A list in a store."""

    __slots__ = ("_root",)

    def pop(self, *index: Any) -> Any:
        """As of a list; with an index it means the list as this worker has seen it."""
        return self._root.change(self, lambda plain: plain.pop(*index), bool(index))


class TrackedDict(Tracked, dict[Any, Any]):
    """A dict in a store."""

    __slots__ = ("_root",)


class TrackedSet(Tracked, set[Any]):
    """A set in a store."""

    __slots__ = ("_root",)

    def __repr__(self) -> str:
        return repr(set(self))


TRACKED: dict[type, type[Any]] = {list: TrackedList, dict: TrackedDict, set: TrackedSet}


def _mutator(kind: type, name: str, by_position: bool) -> Callable[..., Any]:
    plain_method = getattr(kind, name)
    is_operator = name.startswith("__i")

    @functools.wraps(plain_method)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "__setitem__" and _is_there(self, *args):
            return None
        settled = [settle(arg) for arg in args]

        def operation(target: Any) -> Any:
            answer = plain_method(target, *settled, **kwargs)
            if answer is NotImplemented:
                raise _NotImplemented
            return answer

        try:
            answer = self._root.change(self, operation, by_position)
        except _NotImplemented:
            return NotImplemented
        if is_operator:
            self._root.was_changed_in_place = self._root.value is self
            return self
        return dict.get(self, args[0], answer) if name == "setdefault" else answer

    return method


for _kind, _names in MUTATORS.items():
    for _name in _names:
        setattr(TRACKED[_kind], _name, _mutator(_kind, _name, False))
for _name in BY_POSITION:
    setattr(TrackedList, _name, _mutator(list, _name, True))


def _is_there(container: Any, key: Any, value: Any) -> bool:
    """Whether a tracked value is assigned to its own place, as ``d[k] += [x]`` does in the end."""
    if not isinstance(value, Tracked):
        return False
    try:
        return container[key] is value
    except (LookupError, TypeError):
        return False


def settle(value: Any) -> Any:
    """A value that can be used several times, and of which no part is tracked."""
    kind = type(value)
    if kind in FROZEN:
        return value
    if isinstance(value, Tracked):
        return value._plain()
    if kind is dict:
        return {key: settle(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind(settle(item) for item in value)
    if isinstance(value, (Iterator, KeysView, ValuesView, ItemsView)):
        return [settle(item) for item in value]
    return value


def plain(value: Any) -> Any:
    """The plain value for a tracked one; any other as it is."""
    return value._plain() if isinstance(value, Tracked) else value


def is_in_place(proxy: Global, key: Any, value: Any) -> bool:
    """Whether a tracked value is assigned to the key that it is the value of: then there is nothing to do."""
    if not isinstance(value, Tracked):
        return False
    root = value._root
    if root.value is not value or root.proxy is not proxy or root.key != key:
        return False
    was_changed, root.was_changed_in_place = root.was_changed_in_place, False
    return was_changed or proxy._here().holds(key, value)


def track(
    proxy: Global, key: Any, value: Any, revision: Revision, view: Access | None = None
) -> tuple[Any, bool]:
    """A value that was read, ready to be handed out; and whether it holds something that is not tracked.

    Lists, dicts and sets in it become tracked ones, at any depth, also inside tuples.
    """
    kind = type(value)
    if kind in FROZEN:
        return value, False
    if kind not in CONTAINERS:
        return value, True
    root = Root(proxy, key, revision, view)
    try:
        root.value, root.is_changeable = _tracked(root, value)
    except RecursionError:
        return value, True  # It holds itself, or is as deep: it is changed with edit.
    return root.value, root.is_changeable


def _tracked(root: Root, value: Any) -> tuple[Any, bool]:
    kind = type(value)
    items = value.values() if kind is dict else value
    kinds = set(map(type, items))
    is_changeable = False
    if not kinds <= FROZEN:
        is_changeable = not kinds <= FROZEN | CONTAINERS
        if kind is not set and not kinds.isdisjoint(CONTAINERS):
            made = []
            for item in items:
                if type(item) in CONTAINERS:
                    item, is_loose = _tracked(root, item)
                    is_changeable = is_changeable or is_loose
                made.append(item)
            if kind is tuple:
                return tuple(made), is_changeable
            value = zip(value, made, strict=True) if kind is dict else made
    if kind is tuple:
        return value, is_changeable
    container = TRACKED[kind](value)
    container._root = root
    return container, is_changeable


def copy_plain(value: Any) -> tuple[Any, dict[int, Any]]:
    """A plain copy of a tracked value, and the copy of each of its containers by the container's id."""
    copies: dict[int, Any] = {}
    return _copied(value, copies), copies


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    kind = type(value)
    if kind is TrackedList:
        made: Any = list(value)
        if not FROZEN.issuperset(map(type, made)):
            made = [_copied(item, copies) for item in made]
    elif kind is TrackedDict:
        made = dict(value)
        if not FROZEN.issuperset(map(type, made.values())):
            made = {key: _copied(item, copies) for key, item in made.items()}
    elif kind is TrackedSet:
        made = set(value)
    elif kind is tuple and not FROZEN.issuperset(map(type, value)):
        return tuple([_copied(item, copies) for item in value])
    else:
        return value
    copies[id(value)] = made
    return made


def parts_of(value: Any) -> Iterator[Any]:
    """Every tracked container in a value, itself included."""
    kind = type(value)
    if isinstance(value, Tracked):
        yield value
    if kind is TrackedDict:
        value = value.values()
    elif kind is not TrackedList and kind is not tuple:
        return
    for item in value:
        if type(item) not in FROZEN:
            yield from parts_of(item)


def path_of(value: Any, part: Any) -> tuple[Any, ...] | None:
    """The keys and positions that lead to a part of a value, or None if it is not in it."""
    if value is part:
        return ()
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return None
    for step, item in items:
        if type(item) not in FROZEN and (rest := path_of(item, part)) is not None:
            return (step, *rest)
    return None


def match(value: Any, newest: Any) -> dict[int, Any]:
    """For each part of a value, by its id, what it is in the newest one; what is not found is left out."""
    found: dict[int, Any] = {}
    _match(value, newest, found)
    return found


def _match(value: Any, newest: Any, found: dict[int, Any]) -> None:
    kind = type(newest)
    if type(value) is not TRACKED.get(kind, kind):
        return
    if kind is dict:
        found[id(value)] = newest
        for key, item in value.items():
            if key in newest:
                _match(item, newest[key], found)
    elif kind is list or kind is tuple:
        found[id(value)] = newest
        for item, same in _same_elements(value, newest):
            _match(item, same, found)
    elif kind is set:
        found[id(value)] = newest


def _same_elements(old: Any, new: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of elements that are the same place: around all that has changed, and the only one that has."""
    shorter = min(len(old), len(new))
    head = 0
    while head < shorter and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    if len(old) == len(new) == head + tail + 1:
        head += 1
    yield from zip(old[:head], new[:head], strict=True)
    if tail:
        yield from zip(old[-tail:], new[-tail:], strict=True)


def _shown(root: Root, value: Any, originals: dict[int, Any]) -> Any:
    """A plain value in tracked containers, those that were handed out for it where there are any."""
    kind = type(value)
    if kind is tuple:
        return (
            value if FROZEN.issuperset(map(type, value)) else tuple(_shown(root, i, originals) for i in value)
        )
    if kind not in TRACKED:
        root.is_changeable = root.is_changeable or kind not in FROZEN
        return value
    container = originals.get(id(value))
    if container is None:
        container = TRACKED[kind]()
        container._root = root
    if kind is list:
        list.__setitem__(container, slice(None), [_shown(root, item, originals) for item in value])
    elif kind is dict:
        _show_dict(container, {key: _shown(root, item, originals) for key, item in value.items()})
    else:
        set.update(container, value)
        set.intersection_update(container, value)
    return container


def _show_dict(container: dict[Any, Any], content: dict[Any, Any]) -> None:
    """Change a dict without emptying it in between, where the order allows it."""
    kept = [key for key in container if key in content]
    if list(content)[: len(kept)] != kept:
        dict.clear(container)
    for key in [key for key in container if key not in content]:
        dict.__delitem__(container, key)
    dict.update(container, content)
