"""Lists, dicts and sets that come out of a store: they read as the plain ones do, and a change is a commit.

Reading is that of the plain type, since these are subclasses that override nothing of it. A mutating
call is replayed: on a plain copy of the whole value as this worker holds it, committed under the
condition that nobody has changed it since. If somebody has, the newest value is first shown in the
objects that this worker has handed out, so that references which somebody holds go on to be right, and
the call is replayed on that, again until the condition holds.

Which object of the newest value a reference means is found by comparing: a dict's item by its key, an
element of a list by what stands before and behind it. Where that can't be told for sure, the reference
has lost its place, and using it is a `ConflictError`.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from ..replicas.base import Access, Global
from ..system.statements import Place, caller, is_augmented_assignment
from ..values.revision import Revision
from .containers import FROZEN, Kind
from .kinds import KINDS, TRACKED_KINDS, listed
from .mutations import ModifiedDuringSort, Operation, Sort, sorting
from .plain import StandIn, TrackedContainer, detach
from .value import TrackedValue, unwrap_container
from .wrapping import wrap_containers


class _Last(threading.local):
    """What the last operator like ``+=`` of a thread has changed: its statement assigns that in a moment."""

    changed: Any = None
    place: Place | None = None

    def note(self, changed: Any) -> None:
        """Remember what an operator has changed, and where in the code it stands."""
        self.changed, self.place = changed, caller()

    def is_assigned(self, value: Any) -> bool:
        """Whether it is this that is assigned now, by the statement of the operator; asked once."""
        changed, self.changed = self.changed, None
        return value is changed and is_augmented_assignment(self.place, caller())


_last = _Last()


class _Container(TrackedContainer):
    """What the tracked types have in common; it comes before the plain type."""

    __slots__ = ()

    def __copy__(self) -> Any:
        return self.copy()  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(unwrap_container(self), memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        made = unwrap_container(self)
        return type(made), (made,)


def _mutator(kind: Kind, name: str) -> Callable[..., Any]:
    plain_method = getattr(kind.plain, name)
    is_operator = name.startswith("__i")

    @functools.wraps(plain_method)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "__setitem__" and len(args) == 2 and _is_in_its_place(self, *args):
            return None
        sorting.note_change(self._tracked_value)
        if name == "sort":
            return _sort(self, Sort(kind, name, args, kwargs))
        changed, answer = self._tracked_value.change(self, Operation(kind, name, args, kwargs))
        if answer is NotImplemented:
            return answer
        if is_operator:
            _last.note(self)
            return self
        return dict.get(changed, args[0], answer) if name == "setdefault" else answer

    return method


def _sort(container: Any, call: Sort) -> Any:
    """Sort a list, and raise what a plain one raises if it is changed by what is called for that."""
    outer = sorting.tracked_values, sorting.is_disturbed
    sorting.tracked_values, sorting.is_disturbed = (*outer[0], container._tracked_value), False
    try:
        _, answer = container._tracked_value.change(container, call)
        return answer
    except ModifiedDuringSort as error:
        raise error.__cause__ or ValueError("list modified during sort") from None
    finally:
        sorting.tracked_values, sorting.is_disturbed = outer


def _tracked_type(kind: Kind) -> type[Any]:
    name = kind.plain.__name__
    methods = {method: _mutator(kind, method) for method in kind.mutators}
    own = {
        "__slots__": ("_path", "_tracked_value"),
        "__doc__": f"A {name} in a store.",
        "__module__": __name__,
    }
    return type(f"Tracked{name.capitalize()}", (_Container, kind.plain), {**own, **methods, **kind.overrides})


for _kind in KINDS.values():
    if _kind.is_tracked:
        _kind.tracked = _tracked_type(_kind)
        TRACKED_KINDS[_kind.tracked] = _kind


def _is_in_its_place(container: Any, step: Any, value: Any) -> bool:
    """Whether a container is assigned to where it already is, as ``d[k] += [x]`` does in the end."""
    if not isinstance(value, TrackedContainer):
        return False
    try:
        if container[step] is not value:
            return False
    except (LookupError, TypeError):
        return False
    tracked: TrackedValue = container._tracked_value
    return _last.is_assigned(value) or (tracked.is_newest() and tracked.holds(container))


def is_in_place(proxy: Global, key: Any, value: Any) -> bool:
    """Whether a tracked value is assigned to the key that it is the value of: then there is nothing to do."""
    if not isinstance(value, TrackedContainer):
        return False
    tracked: TrackedValue = value._tracked_value
    if tracked.value is not value or tracked.proxy is not proxy or tracked.key != key:
        return False
    return _last.is_assigned(value) or tracked.is_newest()


def unwrap(value: Any) -> Any:
    """The plain value for a tracked one or a shared global; any other as it is."""
    if isinstance(value, StandIn):
        return value._unwrap()
    return unwrap_container(value) if isinstance(value, TrackedContainer) else value


def detached(value: Any) -> Any:
    """A value that can be used several times, with nothing tracked in it."""
    if isinstance(value, (Iterator, KeysView, ValuesView, ItemsView)):
        value = listed(value)
    return detach(value)[0]


def wrap(
    proxy: Global, key: Any, value: Any, revision: Revision, view: Access | None = None
) -> tuple[Any, bool]:
    """Wrap a value that was read, to be handed out; give it, and whether it holds something untracked.

    Lists, dicts and sets in it become tracked ones, at any depth, also inside tuples.
    """
    if type(value) in FROZEN:
        return value, False
    if type(value) not in KINDS:
        return value, True
    tracked = TrackedValue(proxy, key, revision, view)
    try:
        tracked.value, tracked.has_untracked = wrap_containers(tracked, value)
    except RecursionError:
        return value, True  # It holds itself, or is as deep: it is changed with edit.
    return tracked.value, tracked.has_untracked
