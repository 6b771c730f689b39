"""Random programs of changes of nested values, to be run on tracked and on plain ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ..errors import ConflictError
from ..tracking.kinds import KINDS, kind_of

scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "b", "", "naïve"]))
keys = st.sampled_from(["a", "b", "c", 1, (1, "a"), None])
hashables = st.one_of(scalars, st.tuples(scalars, scalars))
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(scalars, st.sets(hashables, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4), st.tuples(inner, inner)
    ),
    max_leaves=12,
)
indexes = st.integers(-3, 3)
slices = st.builds(slice, st.none() | indexes, st.none() | indexes, st.none() | st.sampled_from([1, 2, -1]))


class Step(NamedTuple):
    """One change.

    :ivar where: which container is meant; each kind has a call of its own.
    :ivar name: the item of a dict of containers that is meant instead.
    """

    where: int
    calls: dict[type, tuple[str, tuple[Any, ...]]]
    name: str = ""


def _call(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(name), st.tuples(*arguments))


list_calls = [
    _call("append", values),
    _call("extend", st.lists(values, max_size=3)),
    _call("__iadd__", st.lists(values, max_size=3)),
    _call("remove", scalars),
    _call("pop"),
    _call("clear"),
]
positional_calls = [
    _call("insert", indexes, values),
    _call("pop", indexes),
    _call("reverse"),
    _call("sort"),
    _call("__setitem__", indexes, values),
    _call("__setitem__", slices, st.lists(values, max_size=3)),
    _call("__delitem__", indexes),
    _call("__delitem__", slices),
    _call("__imul__", st.integers(0, 1)),
]
dict_calls = [
    _call("__setitem__", keys, values),
    _call("__delitem__", keys),
    _call("pop", keys),
    _call("pop", keys, scalars),
    _call("popitem"),
    _call("setdefault", keys, values),
    _call("update", st.dictionaries(keys, values, max_size=3)),
    _call("__ior__", st.dictionaries(keys, values, max_size=3)),
    _call("clear"),
]
some_hashables = st.sets(hashables, max_size=3)
set_calls = [
    _call("add", hashables),
    _call("discard", hashables),
    _call("remove", hashables),
    _call("update", some_hashables, some_hashables),
    _call("difference_update", some_hashables),
    _call("__ior__", some_hashables),
    _call("__iand__", some_hashables),
    _call("__isub__", some_hashables),
    _call("__ixor__", some_hashables),
    _call("clear"),
]
#: the changes of each kind of container; those that mean positions are no matter of two workers at a time
CALLS: dict[type, list[Any]] = {list: list_calls, dict: dict_calls, set: set_calls}
POSITIONAL_CALLS: dict[type, list[Any]] = {list: positional_calls}
TYPES = [kind.plain for kind in KINDS.values() if kind.is_tracked]
#: changes of whatever container is met
steps = st.lists(
    st.builds(
        Step,
        st.integers(0, 50),
        st.fixed_dictionaries(
            {plain: st.one_of(*CALLS[plain], *POSITIONAL_CALLS.get(plain, ())) for plain in TYPES}
        ),
        st.just(""),
    ),
    max_size=8,
)
#: the containers that two workers change at the same time
NAMES: dict[str, type] = {plain.__name__: plain for plain in TYPES}
programs = st.lists(
    st.sampled_from(list(NAMES)).flatmap(
        lambda name: st.builds(
            Step,
            st.just(0),
            st.fixed_dictionaries({plain: st.one_of(*CALLS[plain]) for plain in TYPES}),
            st.just(name),
        )
    ),
    min_size=1,
    max_size=3,
)


def containers(value: Any) -> list[Any]:
    """Every container in a value but tuples, in an order that depends on its content only."""
    return list(_containers(value))


def _containers(value: Any) -> Iterator[Any]:
    kind = kind_of(value)
    if kind is None:
        return
    if kind.is_tracked:
        yield value
    for item in kind.items(value) if kind.holds_containers else ():
        yield from _containers(item)


def orders(value: Any) -> list[list[Any]]:
    """The keys of every dict in a value."""
    return [list(container) for container in containers(value) if isinstance(container, dict)]


def attached(value: Any, part: Any) -> bool:
    """Whether that very container is in a value."""
    return any(container is part for container in _containers(value))


def answers(target: Any, step: Step) -> Any:
    """What a change answers, or the type of its error."""
    method, arguments = step.calls[next(plain for plain in TYPES if isinstance(target, plain))]
    before = copy.copy(target)
    try:
        answer = getattr(target, method)(*copy.deepcopy(arguments))
    except Exception as error:
        if type(target) is list:
            target[:] = (
                before  # A sort that fails leaves a plain list in disorder, and a shared one as it was.
            )
        return type(error)
    return "itself" if answer is target else copy.deepcopy(answer)


def is_interleaving(start: dict[str, Any], done: list[list[tuple[Step, Any]]], end: Any) -> bool:
    """Whether two programs, run on plain values in some order, give the answers and the end that were seen.

    What ended as a conflict has done nothing.
    """
    first, second = ([pair for pair in part if pair[1] is not ConflictError] for part in done)
    return _is_interleaving(start, first, second, end)


def _is_interleaving(state: Any, first: list[Any], second: list[Any], end: Any) -> bool:
    if not first and not second:
        return bool(state == end)
    for mine, others in ((first, second), (second, first)):
        if mine:
            (step, answer), *rest = mine
            after = copy.deepcopy(state)
            if answers(after[step.name], step) == answer and _is_interleaving(after, rest, others, end):
                return True
    return False
