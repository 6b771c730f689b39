"""A search for an order that explains a history, after Wing and Gong (1993) and Lowe (2017).

An operation happened at one moment between its start and its end. So of all that is not yet in order,
the next is one that started before any other of them ended. Configurations that were met before are not
looked at again.

Two things keep the search short. An operation that only looks, and sees what is there, is taken at once.
And one without an answer is taken only right before somebody who sees what it did: nobody can tell that
it happened earlier, and if nobody ever sees it, it need not have happened.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

#: configurations looked at before giving up
BUDGET = 300_000


class Verdict(NamedTuple):
    """What a search has found.

    :ivar is_good: None if it was given up.
    :ivar reason: where no order leads further, or why it was given up.
    """

    is_good: bool | None
    reason: str = ""


class Model(Protocol):
    """What is there and what operations do to it. States are hashable, and made once each."""

    initial: Any

    def step(self, state: Any, operation: Any) -> tuple[bool, Any]:
        """Whether the operation can have been answered so in a state, and the state after it."""

    def needs(self, operation: Any) -> Iterable[Any]:
        """The one state in which it can have been answered so, or nothing if there are several."""

    def makes(self, operation: Any) -> Iterable[Any]:
        """The state that it may lead to, if it changes anything."""

    def helpers(
        self, state: Any, operation: Any, unanswered: Sequence[tuple[int, Any]]
    ) -> Iterator[tuple[int, ...]]:
        """Numbers of unanswered operations that, one after the other, lead to where it can be answered so."""


class RegisterModel:
    """A key that is read, written, and compared and set; every written value is another one."""

    def __init__(self, initial: Any = None) -> None:
        self.initial = initial

    def step(self, state: Any, operation: Any) -> tuple[bool, Any]:
        if operation.kind == "read":
            return operation.answer == state, state
        if operation.kind == "write":
            return True, operation.argument
        expected, new = operation.argument
        happens = state == expected
        return happens == operation.answer, new if happens else state

    def needs(self, operation: Any) -> Iterable[Any]:
        if operation.kind == "read":
            return [operation.answer]
        return [operation.argument[0]] if operation.kind == "cas" and operation.answer else []

    def makes(self, operation: Any) -> Iterable[Any]:
        if operation.kind == "write":
            return [operation.argument]
        # Without an answer it may have been set; refused, it was not.
        is_refused = operation.is_answered and not operation.answer
        return [operation.argument[1]] if operation.kind == "cas" and not is_refused else []

    def helpers(
        self, state: Any, operation: Any, unanswered: Sequence[tuple[int, Any]]
    ) -> Iterator[tuple[int, ...]]:
        makers = {value: pair for pair in unanswered for value in self.makes(pair[1])}
        for wanted in self.needs(operation):
            yield from self._chain(state, wanted, makers)
        if operation.kind == "cas" and not operation.answer:
            for value in makers:
                yield from self._chain(state, value, makers)

    @staticmethod
    def _chain(state: Any, wanted: Any, makers: dict[Any, tuple[int, Any]]) -> Iterator[tuple[int, ...]]:
        chain: list[int] = []
        while wanted != state:
            if wanted not in makers or makers[wanted][0] in chain:
                return
            number, maker = makers[wanted]
            chain.insert(0, number)
            if maker.kind == "write":
                break
            wanted = maker.argument[0]
        yield tuple(chain)


class CounterModel:
    """A number that is read and added to; all additions add the same, and answer the sum."""

    def __init__(self, initial: int = 0) -> None:
        self.initial = initial

    def step(self, state: int, operation: Any) -> tuple[bool, int]:
        if operation.kind == "read":
            return operation.answer == state, state
        return operation.answer == state + operation.argument, state + operation.argument

    def needs(self, operation: Any) -> Iterable[int]:
        return [operation.answer - (operation.argument if operation.kind == "add" else 0)]

    def makes(self, operation: Any) -> Iterable[int]:
        return [operation.answer] if operation.kind == "add" and operation.is_answered else []

    def helpers(
        self, state: int, operation: Any, unanswered: Sequence[tuple[int, Any]]
    ) -> Iterator[tuple[int, ...]]:
        additions = [pair for pair in unanswered if pair[1].kind == "add"]
        (wanted,) = self.needs(operation)
        if wanted <= state or not additions:
            return
        count, rest = divmod(wanted - state, additions[0][1].argument)
        if not rest and count <= len(additions):
            # All are alike: those that have begun first leave the others for later.
            yield tuple(number for number, _ in additions[:count])


class Configuration(NamedTuple):
    """What is in order so far: all before ``base``, those in ``mask`` after it, and unanswered ones."""

    base: int
    mask: int
    used: int
    state: Any


class Search:
    """A search of the history of one key.

    :param operations: of it; an operation has ``start``, ``end`` and ``is_answered``.
    :param model: what the key is.
    """

    def __init__(self, operations: Iterable[Any], model: Model) -> None:
        ordered = sorted(operations, key=lambda operation: operation.start)
        self.model = model
        self.answered = [operation for operation in ordered if operation.is_answered]
        self.unanswered = [one for one in ordered if not one.is_answered and one.kind != "read"]
        self.observers: dict[Any, list[int]] = defaultdict(list)
        for number, operation in enumerate(self.answered):
            for state in model.needs(operation):
                self.observers[state].append(number)
        makers: Multiset[Any] = Multiset([model.initial])
        makers.update(state for operation in ordered for state in model.makes(operation))
        self.made_once = {state for state, times in makers.items() if times == 1}

    def run(self, budget: int) -> Verdict:
        """Whether there is an order."""
        first = Configuration(0, 0, 0, self.model.initial)
        met = {first}
        path = [self.next_of(first)]
        furthest = first
        while path:
            here = next(path[-1], None)
            if here is None:
                path.pop()
                continue
            if here in met:
                continue
            if here.base == len(self.answered):
                return Verdict(True)
            met.add(here)
            if len(met) > budget:
                return Verdict(None, f"given up after {budget} configurations of {len(self.answered)}")
            if self._length(here) > self._length(furthest):
                furthest = here
            path.append(self.next_of(here))
        return Verdict(not self.answered, self._describe(furthest))

    def next_of(self, here: Configuration) -> Iterator[Configuration]:
        """Every configuration with one more answered operation."""
        candidates, limit = self._candidates(here)
        possible, impossible = [], []
        for number in candidates:
            fits, state = self.model.step(here.state, self.answered[number])
            if fits and state == here.state:
                yield self._with(here, number, here.used, state)
                return
            (possible if fits else impossible).append((number, state))
        for number, state in possible:
            if not self._is_needed(here, number):
                yield self._with(here, number, here.used, state)
        pending = [
            (number, operation)
            for number, operation in enumerate(self.unanswered)
            if operation.start <= limit and not here.used >> number & 1
        ]
        if not pending or self._is_needed(here, -1):
            return
        for number, _ in impossible:
            yield from self._with_help(here, number, pending)

    def _with_help(
        self, here: Configuration, number: int, pending: list[tuple[int, Any]]
    ) -> Iterator[Configuration]:
        operation = self.answered[number]
        for helpers in self.model.helpers(here.state, operation, pending):
            state, used = here.state, here.used
            for helper in helpers:
                state = self._after(state, self.unanswered[helper])
                used |= 1 << helper
            fits, state = self.model.step(state, operation)
            if fits:
                yield self._with(here, number, used, state)

    def _after(self, state: Any, operation: Any) -> Any:
        """The state after an operation without an answer that has happened."""
        if operation.kind == "cas":
            return operation.argument[1]
        return operation.argument if operation.kind == "write" else state + operation.argument

    def _candidates(self, here: Configuration) -> tuple[list[int], float]:
        """What may come next, what must come soonest first; and the end that limits it."""
        limit, found = inf, []
        mask = here.mask
        for number in range(here.base, len(self.answered)):
            operation = self.answered[number]
            if operation.start > limit:
                break
            if not mask >> (number - here.base) & 1:
                found.append(number)
                limit = min(limit, operation.end)
        return sorted(found, key=lambda number: self.answered[number].end), limit

    def _is_needed(self, here: Configuration, by: int) -> bool:
        """Whether another operation has yet to see this state, which will not come again."""
        if here.state not in self.made_once:
            return False
        return any(number != by and not self._is_in(here, number) for number in self.observers[here.state])

    @staticmethod
    def _is_in(here: Configuration, number: int) -> bool:
        return number < here.base or bool(here.mask >> (number - here.base) & 1)

    @staticmethod
    def _with(here: Configuration, number: int, used: int, state: Any) -> Configuration:
        base, mask = here.base, here.mask | 1 << (number - here.base)
        while mask & 1:
            base, mask = base + 1, mask >> 1
        return Configuration(base, mask, used, state)

    @staticmethod
    def _length(here: Configuration) -> int:
        return here.base + here.mask.bit_count()

    def _describe(self, here: Configuration) -> str:
        candidates, _ = self._candidates(here)
        lines = [f"{self._length(here)} of {len(self.answered)} explained; then it holds {here.state!r}, and"]
        return "\n    ".join([*lines, *(str(self.answered[number]) for number in candidates[:12])])


def search(operations: Iterable[Any], model: Model, budget: int = BUDGET) -> Verdict:
    """Whether operations of one key happened at one moment each."""
    return Search(operations, model).run(budget)
