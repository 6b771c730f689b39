"""Random programs of two workers on one name, of which each step must do what it does to a dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ..proxies.mapping import SharedDict
from ..replicas.requests import Request
from ..stores.base import ABSENT
from ..system.clock import now

KEYS = st.one_of(
    st.sampled_from(["a", "b", "c", "", "\0", 0, 1, 2, -1, 1.0, 1.5, True, False, None, b"a", ("a", 1), ()]),
    st.text(max_size=3),
    st.integers(-3, 3),
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


class DictMachine(RuleBasedStateMachine):
    """Random operations by two workers on one name, compared with a dict."""

    workers: tuple[SharedDict[Any, Any], ...]
    #: whether a read outside a request is fresh
    syncs_itself = True
    #: whether changes that depend on what is there are not refused
    atomic = True

    def __init__(self) -> None:
        super().__init__()
        self.workers[0].clear()
        self.model: dict[Any, Any] = {}
        self.data = self.workers[0]
        self.request: Any = None

    def teardown(self) -> None:
        self._end_request()

    def _end_request(self) -> None:
        if self.request is not None:
            self.request.end()
            self.request = None

    def both(self, operation: Callable[[Any], Any]) -> None:
        """The answer, or the type of the error, must be the same; then another request begins."""
        outcomes = []
        for mapping in (self.model, self.data):
            try:
                outcomes.append(operation(mapping))
            except (KeyError, TypeError) as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]
        assert isinstance(outcomes[1], (type(outcomes[0]), SharedDict))

    @rule(worker=st.integers(0, 1), in_request=st.booleans())
    def another_worker(self, worker: int, in_request: bool) -> None:
        self._end_request()
        self.data = self.workers[worker]
        if in_request or not self.syncs_itself:
            self.data.sync()
        if in_request:
            request = Request()
            request.fresh_at[self.data._replica.store] = now()
            request.begin()
            self.request = request

    @rule(key=KEYS, value=VALUES)
    def set(self, key: Any, value: Any) -> None:
        self.both(lambda d: d.__setitem__(key, value))

    @rule(key=KEYS)
    def delete(self, key: Any) -> None:
        self.both(lambda d: d.__delitem__(key))

    @rule(key=KEYS)
    def get(self, key: Any) -> None:
        self.both(lambda d: d[key])
        self.both(lambda d: d.get(key, "default"))
        self.both(lambda d: key in d)

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: Any, value: Any) -> None:
        self.both(lambda d: d.setdefault(key, value))

    @rule(key=KEYS)
    def pop(self, key: Any) -> None:
        self.both(lambda d: d.pop(key))

    @rule(key=KEYS, value=VALUES)
    def pop_default(self, key: Any, value: Any) -> None:
        self.both(lambda d: d.pop(key, value))

    @rule()
    def popitem(self) -> None:
        self.both(lambda d: d.popitem())

    @rule(items=st.dictionaries(KEYS, VALUES, max_size=4))
    def update(self, items: dict[Any, Any]) -> None:
        self.both(lambda d: d.update(items))

    @rule(items=st.lists(st.tuples(KEYS, VALUES), max_size=4))
    def update_pairs(self, items: list[tuple[Any, Any]]) -> None:
        self.both(lambda d: d.update(items))

    @precondition(lambda self: len(self.model) > 3)
    @rule()
    def clear(self) -> None:
        self.both(lambda d: d.clear())

    @precondition(lambda self: self.atomic)
    @rule(key=KEYS, by=st.integers(-5, 5))
    def increment(self, key: Any, by: int) -> None:
        if type(self.model.get(key, 0)) is int:
            self.model[key] = self.model.get(key, 0) + by
            assert self.data.increment(key, by) == self.model[key]

    @rule(items=st.dictionaries(KEYS, VALUES, max_size=3))
    def update_in_place(self, items: dict[Any, Any]) -> None:
        self.both(lambda d: d.__ior__(items))

    @precondition(lambda self: self.atomic)
    @rule(key=KEYS, expected=st.one_of(VALUES, st.just(ABSENT)), new=VALUES, right=st.booleans())
    def compare_and_set(self, key: Any, expected: Any, new: Any, right: bool) -> None:
        held = self.model.get(key, ABSENT)
        if right:
            expected = held
        fits = held is expected if ABSENT in (held, expected) else held == expected
        assert self.data.compare_and_set(key, expected, new) is fits
        if fits:
            self.model[key] = new

    @rule()
    def copy(self) -> None:
        assert self.data.copy() == self.model == self.data.snapshot()
        assert self.data == self.model

    @rule(bad=st.sampled_from([[], {}, {1}]))
    def bad_key(self, bad: Any) -> None:
        self.both(lambda d: d.get(bad))
        self.both(lambda d: d.__setitem__(bad, 1))

    @invariant()
    def same_content_in_the_same_order(self) -> None:
        assert list(self.data) == list(self.model)
        assert list(self.data.items()) == list(self.model.items())
        assert len(self.data) == len(self.model)
        assert list(reversed(self.data)) == list(reversed(self.model))
