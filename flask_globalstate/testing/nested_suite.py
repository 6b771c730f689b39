"""The laws of nested values, edits and transactions: what a store must do for them."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..errors import ConflictError
from ..proxies.counter import SharedCounter
from ..proxies.mapping import SharedDict
from ..replicas.transaction import Transaction
from ..stores.base import Backend
from ..system.gate import Gate
from .excuses import needs
from .programs import (
    NAMES,
    Step,
    answers,
    attached,
    containers,
    is_interleaving,
    orders,
    programs,
    steps,
    values,
)
from .workers import SECRET, TwoWorkers

some = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@contextlib.contextmanager
def transaction(*proxies: Any) -> Iterator[None]:
    """A transaction over proxies of one store."""
    replicas = [proxy._replica for proxy in proxies]
    made = Transaction(replicas[0].store, Gate(), lambda: False)
    for replica in replicas:
        replica.begin_transaction(made)
    made.begin()
    try:
        yield
    except BaseException:
        made.end()
        raise
    else:
        made.end()
        made.commit()
    finally:
        for replica in replicas:
            replica.end_transaction(made)


def transacted(function: Callable[[], Any], *proxies: Any) -> None:
    """Call a function in a transaction over proxies of one store."""
    with transaction(*proxies):
        function()


def elsewhere(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a function answers outside of the transactions of this context."""
    return contextvars.Context().run(function, *arguments, **named)


def other_dict(store: Backend) -> SharedDict[Any, Any]:
    """A second dict on a store."""
    return SharedDict("OTHER", store, secret=SECRET)


class NestedSuite(TwoWorkers):
    """Tests of nested values on a store with revisions, to be inherited; see `flask_globalstate.testing`."""

    # --- nested values --------------------------------------------------------------------------

    def test_a_random_program_of_changes_does_what_it_does_to_plain_values(
        self, data: Any, theirs: Any
    ) -> None:
        is_plain = theirs._replica.store.holds_objects

        @given(value=values, program=steps)
        @some
        def run(value: Any, program: list[Step]) -> None:
            plain = {"top": copy.deepcopy(value)}
            data["k"] = {"top": copy.deepcopy(value)}
            held: list[tuple[Any, Any]] = []
            for step in program:
                held += zip(containers(plain), containers(data["k"]), strict=True)
                model, tracked = held[step.where % len(held)]
                is_there = is_plain or attached(plain, model)
                expected, answer = answers(model, step), answers(tracked, step)
                assert (
                    answer == expected if is_there else answer in (ConflictError, TypeError, NotImplemented)
                )
                assert theirs["k"] == data["k"] == plain
            assert orders(data["k"]) == orders(theirs["k"]) == orders(plain)

        run()

    @needs("encoding")
    def test_a_program_of_two_workers_ends_as_some_interleaving_of_its_operations(
        self, stores: list[Backend], data: Any, theirs: Any
    ) -> None:
        start: dict[str, Any] = {name: kind() for name, kind in NAMES.items()}

        @given(mine=programs, others=programs, schedule=st.lists(st.booleans(), max_size=8))
        @some
        def run(mine: list[Step], others: list[Step], schedule: list[bool]) -> None:
            data["k"] = copy.deepcopy(start)
            workers = [Worker(data["k"], mine), Worker(theirs["k"], others)]
            plan = iter(schedule)
            with before_commit(stores[0], lambda: next(plan, False) and workers[1].step()):
                while workers[0].step():
                    pass
            while workers[1].step():
                pass
            assert data["k"] == theirs["k"]
            assert is_interleaving(start, [worker.done for worker in workers], theirs["k"])

        run()

    def test_workers_that_append_at_the_same_time_lose_nothing(
        self, open_store: Callable[[], Backend], data: Any
    ) -> None:
        count = 25
        data["k"] = {"log": []}
        stores = [open_store() for _ in range(3)]
        barrier = threading.Barrier(len(stores))

        def work(number: int) -> None:
            own: Any = SharedDict("DATA", stores[number], secret=SECRET)
            barrier.wait(10)
            for n in range(count):
                own["k"]["log"].append((number, n))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        log = data["k"]["log"]
        for number in range(len(stores)):
            assert [n for who, n in log if who == number] == list(range(count))
        for store in stores:
            store.close()

    def test_a_reference_follows_what_others_change(self, data: Any, theirs: Any) -> None:
        data["k"] = {"rows": [{"id": 1}], "l": []}
        row, held = data["k"]["rows"][0], data["k"]["l"]
        theirs["k"]["l"].append("theirs")
        held.append("mine")
        row["name"] = "one"
        assert data["k"] == theirs["k"] == {"rows": [{"id": 1, "name": "one"}], "l": ["theirs", "mine"]}
        assert held == ["theirs", "mine"]

    @needs("encoding")
    def test_a_reference_that_lost_its_place_is_a_conflict(self, data: Any, theirs: Any) -> None:
        data["k"] = {"l": ["theirs"]}
        held = data["k"]["l"]
        del theirs["k"]["l"]
        with pytest.raises(ConflictError, match=r"\['l'\]"):
            held.append(1)

    def test_an_edit_is_a_commit_and_a_conflict_if_somebody_came_between(
        self, data: Any, theirs: Any
    ) -> None:
        with data.edit("k", default=[]) as value:
            value.append({1: (2, {3})})
        assert theirs["k"] == [{1: (2, {3})}]
        edit = data.edit("k")
        edit.__enter__().append(1)
        theirs["k"] = "theirs"
        with pytest.raises(ConflictError):
            edit.__exit__(None, None, None)
        assert data["k"] == "theirs"

    # --- transactions ---------------------------------------------------------------------------

    def test_a_transaction_commits_all_or_nothing_and_nobody_sees_it_before(
        self, stores: list[Backend], data: Any, theirs: Any
    ) -> None:
        other, count = other_dict(stores[0]), SharedCounter("COUNT", stores[0], secret=SECRET)
        their_other, their_count = other_dict(stores[1]), SharedCounter("COUNT", stores[1], secret=SECRET)
        data["k"] = {"l": [0]}

        def work() -> None:
            data["k"]["l"].append(1)
            other.update(a=1, b=2)
            count.increment(5)
            assert (data["k"], dict(other), count.value) == ({"l": [0, 1]}, {"a": 1, "b": 2}, 5)
            seen = elsewhere(lambda: (theirs["k"], dict(their_other), their_count.value))
            assert seen == ({"l": [0]}, {}, 0)

        def fail() -> None:
            work()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            transacted(fail, data, other, count)
        assert (theirs["k"], dict(their_other), their_count.value) == ({"l": [0]}, {}, 0)
        transacted(work, data, other, count)
        assert (theirs["k"], dict(their_other), their_count.value) == ({"l": [0, 1]}, {"a": 1, "b": 2}, 5)

    @pytest.mark.parametrize("reads", [lambda d: list(d.values()), lambda d: [d["ann"], d["bob"]]])
    def test_write_skew_does_not_happen(self, data: Any, theirs: Any, reads: Any) -> None:
        data.update(ann="on call", bob="on call")

        def leave(proxy: Any, name: str) -> None:
            if reads(proxy).count("on call") > 1:
                proxy[name] = "off"

        def both() -> None:
            leave(data, "ann")
            elsewhere(transacted, lambda: leave(theirs, "bob"), theirs)

        with pytest.raises(ConflictError):
            transacted(both, data)
        assert dict(theirs) == {"ann": "on call", "bob": "off"}

    @pytest.mark.parametrize("before", [{}, {"old": 1}])
    @pytest.mark.parametrize("looks", [len, list, lambda d: "new" in d, lambda d: d.get("new"), bool])
    def test_what_is_not_there_is_a_condition_too(
        self, data: Any, theirs: Any, looks: Any, before: dict[str, int]
    ) -> None:
        data.update(before)

        def attempt() -> None:
            looks(data)
            elsewhere(theirs.update, {"new": 1})
            data["mine"] = 1

        with pytest.raises(ConflictError):
            transacted(attempt, data)
        assert dict(theirs) == {**before, "new": 1}

    def test_a_name_that_was_never_written_is_a_condition(self, stores: list[Backend], data: Any) -> None:
        other, their_other = other_dict(stores[0]), other_dict(stores[1])

        def attempt() -> None:
            assert list(other) == []
            data.increment("n")

        def attempt_late() -> None:
            attempt()
            elsewhere(their_other.update, {"x": 1})

        transacted(attempt, data, other)
        with pytest.raises(ConflictError):
            transacted(attempt_late, data, other)
        assert data["n"] == 1

    @pytest.mark.parametrize("second", [lambda d: d["a"], dict, len, lambda d: d.get("absent")])
    def test_reads_are_of_one_revision_also_in_a_transaction_that_fails(
        self, stores: list[Backend], data: Any, theirs: Any, second: Any
    ) -> None:
        other, their_other = other_dict(stores[0]), other_dict(stores[1])
        data["a"], other["a"] = 0, 0
        seen = []

        def change_both() -> None:
            theirs["a"] += 1
            their_other["a"] += 1

        def read_both() -> None:
            assert data["a"] == 0
            elsewhere(transacted, change_both, theirs, their_other)
            seen.append(second(other))

        with pytest.raises(ConflictError):
            transacted(read_both, data, other)
        assert seen == []
        with transaction(data, other):
            assert (data["a"], other["a"]) == (1, 1)

    def test_writes_that_depend_on_nothing_do_not_conflict(self, data: Any, theirs: Any) -> None:
        with transaction(data):
            data["mine"] = 1
            data.update(a=1)
            elsewhere(theirs.update, {"theirs": 1, "a": 2})
        assert dict(theirs) == {"theirs": 1, "a": 1, "mine": 1}

    def test_reading_only_conflicts_with_nobody_at_the_end(self, data: Any, theirs: Any) -> None:
        data["a"] = 1
        with transaction(data):
            assert data["a"] == 1
            elsewhere(theirs.update, {"a": 2})
            assert data["a"] == 1
        assert data["a"] == 2

    def test_removed_and_written_again_is_the_last_one(self, data: Any, theirs: Any) -> None:
        data.update(a=1, b=2, c=3)
        with transaction(data):
            data["a"] = data.pop("a")
            del data["b"]
            assert list(data) == ["c", "a"]
            assert data.popitem() == ("a", 1)
            data.update(d=4, b=5)
            expected = [("c", 3), ("d", 4), ("b", 5)]
            assert list(data.items()) == expected
        assert list(theirs.items()) == list(data.items()) == expected
        with transaction(data):
            data.clear()
            data.update(b=1, c=2)
            assert list(data) == ["b", "c"]
        assert list(theirs) == list(data) == ["b", "c"]

    @needs("encoding")
    def test_a_reference_of_a_transaction_is_right_after_it(self, data: Any, theirs: Any) -> None:
        data["k"] = {"l": [1]}
        with transaction(data):
            committed = data["k"]["l"]
            committed.append(2)
        rolled_back = []

        def fail() -> None:
            rolled_back.append(data["k"]["l"])
            rolled_back[0].append("never")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            transacted(fail, data)
        assert data["k"] == theirs["k"] == {"l": [1, 2]}
        committed.append(3)
        rolled_back[0].append(4)
        assert data["k"] == theirs["k"] == {"l": [1, 2, 3, 4]}
        assert rolled_back[0] == [1, 2, 3, 4]

    def test_transfers_at_the_same_time_keep_the_total(
        self, open_store: Callable[[], Backend], data: Any
    ) -> None:
        data.update({str(n): 100 for n in range(4)})
        stores = [open_store() for _ in range(3)]
        barrier, totals = threading.Barrier(len(stores)), []

        def work(number: int) -> None:
            own: Any = SharedDict("DATA", stores[number], secret=SECRET)
            barrier.wait(10)
            pairs = itertools.cycle(itertools.permutations("0123", 2))
            for source, target in itertools.islice(pairs, number, number + 15):
                while True:
                    with contextlib.suppress(ConflictError), transaction(own):
                        totals.append(sum(own.values()))
                        own[source] -= 1
                        own[target] += 1
                        break

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert set(totals) == {400}
        assert sum(data.values()) == 400
        for store in stores:
            store.close()


class Worker:
    """One that runs a program with references that it has taken before.

    :ivar done: the steps that it has done, with their answers.
    """

    def __init__(self, value: Any, program: list[Step]) -> None:
        self.done: list[tuple[Step, Any]] = []
        self._held = {name: value[name] for name in NAMES}
        self._waiting = iter(program)

    def step(self) -> bool:
        """Do one more; false if there is none."""
        for step in self._waiting:
            self.done.append((step, answers(self._held[step.name], step)))
            return True
        return False


@contextlib.contextmanager
def before_commit(store: Any, function: Callable[[], Any]) -> Iterator[None]:
    """Let something happen before each commit of a store object."""
    commit = store.commit

    def commit_late(*arguments: Any) -> Any:
        function()
        return commit(*arguments)

    store.commit = commit_late
    try:
        yield
    finally:
        del store.commit
