"""The tracked types: lists, dicts and sets that come out of a store, of which every change is a commit.

They are subclasses of the plain types and override none of the methods that only read. A mutating call
runs on a plain copy of the whole value as this worker knows it, and the copy is committed on condition
that nobody has changed the key since. If somebody has, the objects that this worker has handed out are
first brought up to date with the newest value, so that references to them stay right, and the call runs
again on a copy of that, until the condition holds.

Which object of the newest value a reference means is found by comparing: a dict's item by its key, a
list's item by what stands before and after it. Where that is not certain the reference has lost its place,
and changing it raises `ConflictError`.
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
from .representers import refuse_untaught_yaml
from .value import TrackedValue, unwrap_container
from .wrapping import wrap_containers


class _Last(threading.local):
    """The container that the thread's last operator like ``+=`` changed; its statement then assigns it."""

    changed: Any = None
    place: Place | None = None

    def note(self, changed: Any) -> None:
        """Remember what an operator changed, and which statement it is in."""
        self.changed, self.place = changed, caller()

    def is_assigned(self, value: Any) -> bool:
        """Tell whether the operator's own statement now assigns it; ask only once."""
        changed, self.changed = self.changed, None
        return value is changed and is_augmented_assignment(self.place, caller())


_last = _Last()


class _Container(TrackedContainer):
    """The methods that all tracked types have; it comes before the plain type among their bases."""

    __slots__ = ()

    def __copy__(self) -> Any:
        return self.copy()  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(unwrap_container(self), memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        refuse_untaught_yaml()
        made = unwrap_container(self)
        return type(made), (made,)


def _mutator(kind: Kind, name: str) -> Callable[..., Any]:
    """Make the method of a tracked type that commits what a mutating method does."""
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
    """Sort a list; raise what a plain list raises if a key function or a comparison changes it."""
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
    """Make the tracked type of a kind of container."""
    name = kind.plain.__name__
    methods = {method: _mutator(kind, method) for method in kind.mutators}
    own = {
        "__slots__": ("_path", "_tracked_value"),
        "__doc__": f"A {name} in a store.",
        "__module__": __name__,
    }
    # Errors of Python name what its user has put there.
    return type(name, (_Container, kind.plain), {**own, **methods, **kind.overrides})


for _kind in KINDS.values():
    if _kind.is_tracked:
        _kind.tracked = _tracked_type(_kind)
        TRACKED_KINDS[_kind.tracked] = _kind


def _is_in_its_place(container: Any, step: Any, value: Any) -> bool:
    """Tell whether a container is assigned to where it already is, as ``d[k] += [x]`` does at its end."""
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
    """Tell whether a tracked value is assigned to the key whose value it already is."""
    if not isinstance(value, TrackedContainer):
        return False
    tracked: TrackedValue = value._tracked_value
    if tracked.value is not value or tracked.proxy is not proxy or tracked.key != key:
        return False
    return _last.is_assigned(value) or tracked.is_newest()


def unwrap(value: Any) -> Any:
    """Return the plain value for a tracked one or a shared global, and any other value as it is."""
    if isinstance(value, StandIn):
        return value._unwrap()
    return unwrap_container(value) if isinstance(value, TrackedContainer) else value


def detached(value: Any) -> Any:
    """Return a copy of a value that can be used several times, with nothing tracked in it."""
    if isinstance(value, (Iterator, KeysView, ValuesView, ItemsView)):
        value = listed(value)
    return detach(value)[0]


def wrap(
    proxy: Global, key: Any, value: Any, revision: Revision, view: Access | None = None
) -> tuple[Any, bool]:
    """Wrap a value that was read, to be handed out; say too whether it holds something untracked.

    Lists, dicts and sets in it become tracked ones, at any depth, also inside tuples.

    :param view: the transaction view in which it was read, if any.
    """
    if type(value) in FROZEN:
        return value, False
    if type(value) not in KINDS:
        return value, True
    tracked = TrackedValue(proxy, key, revision, view)
    try:
        tracked.value, tracked.has_untracked = wrap_containers(tracked, value)
    except RecursionError:
        return value, True  # It holds itself or is too deep; users change it with edit.
    return tracked.value, tracked.has_untracked
