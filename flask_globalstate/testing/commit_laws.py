"""The laws of commits: all of a batch or nothing, under its conditions."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest

from ..errors import ConflictError
from ..stores.base import ABSENT, ANY, CHECK, DELETE, Store, Write
from ..values.revision import Revision
from .two_stores import OpenStore, TwoStores, in_threads, sample


class CommitLaws(TwoStores):
    """A part of `StoreSuite`."""

    #: how many names a commit is tried with
    MANY_NAMES = 10_000

    def test_what_was_committed_is_fetched(self, store: Store, other: Store) -> None:
        a, b = sample(store, 1), sample(store, 2)
        revision = store.commit([Write("N", "a", a), Write("M", "b", b)])
        for name, key, value in (("N", "a", a), ("M", "b", b)):
            found = other.fetch(name, [key, "absent"])
            assert found.revision == revision
            assert {k: tuple(entry) for k, entry in found.entries.items()} == {key: (value, revision.number)}

    def test_a_revision_grows_by_one_with_every_commit_to_any_name(self, store: Store, other: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        second = other.commit([Write("M", "a", sample(store, 1)), Write("M", "b", sample(store, 1))])
        third = store.drop("M")
        fourth = store.commit([Write("N", "a", DELETE)])
        assert [r.number - first.number for r in (first, second, third, fourth)] == [0, 1, 2, 3]
        assert len({r.epoch for r in (first, second, third, fourth)}) == 1

    def test_the_revision_of_a_name_moves_with_that_name_only(self, store: Store, other: Store) -> None:
        assert store.revision("N").number == 0
        first = store.commit([Write("N", "a", sample(store, 1))])
        store.commit([Write("M", "a", sample(store, 1))])
        assert other.revision("N") == first
        assert other.revisions(["N", "never"]) == [first, Revision(first.epoch, 0)]

    def test_a_batch_that_only_checks_commits_nothing(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        assert store.commit([Write("N", "a", CHECK, first), Write("N", "b", CHECK, ABSENT)]) == first
        assert store.commit([Write("N", "a", sample(store, 2))]).number == first.number + 1

    @pytest.mark.parametrize(
        "wrong", ["older", "absent", "epoch", "checked", "missing", "nought", "name", "name absent"]
    )
    def test_a_conflict_anywhere_in_a_batch_writes_nothing_at_all(
        self, store: Store, other: Store, wrong: str
    ) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        second = store.commit([Write("N", "a", sample(store, 2)), Write("N", "b", sample(store, 1))])
        writes = [Write("N", "new", sample(store, 3)), Write("M", "new", sample(store, 3))]
        nought = Revision(second.epoch, 0)
        names: dict[str, Any] = {}
        if wrong == "older":
            writes.append(Write("N", "a", sample(store, 3), first))
        elif wrong == "absent":
            writes.append(Write("N", "a", sample(store, 3), ABSENT))
        elif wrong == "epoch":
            writes.append(Write("N", "a", sample(store, 3), Revision("another epoch", second.number)))
        elif wrong == "checked":
            writes.append(Write("N", "b", CHECK, first))
        elif wrong == "missing":
            writes.append(Write("N", "missing", DELETE, second))
        elif wrong == "nought":
            writes.append(Write("N", "missing", CHECK, nought))
        elif wrong == "name":
            names["N"] = first
        else:
            names["N"] = ABSENT
        with pytest.raises(ConflictError) as caught:
            store.commit(writes, names)
        assert caught.value.name == "N"
        assert set(other.fetch("N").entries) == {"a", "b"}
        assert other.fetch("M").entries == {}
        assert other.revision("N") == second
        assert other.revision("M").number == 0

    def test_a_conflict_says_what_was_expected_and_what_was_found(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        second = store.commit([Write("N", "a", sample(store, 2))])
        with pytest.raises(ConflictError) as caught:
            store.commit([Write("N", "a", sample(store, 3), first)])
        conflict = caught.value
        assert (conflict.key, conflict.expected, conflict.found) == ("a", first.number, second.number)

    def test_a_batch_whose_conditions_hold_is_applied(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        store.commit(
            [
                Write("N", "a", sample(store, 2), first),
                Write("N", "b", sample(store, 2), ABSENT),
                Write("N", "c", sample(store, 2), ANY),
                Write("M", "a", CHECK, ABSENT),
            ],
            {"N": first, "never": ABSENT},
        )
        assert list(store.fetch("N").entries) == ["a", "b", "c"]

    def test_a_condition_on_a_name_holds_without_any_write(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        never = Revision(first.epoch, 0)
        assert store.commit([], {"N": first, "never": ABSENT, "nor": never}) == first
        wrong: list[tuple[str, Any]] = [
            ("N", never),
            ("N", ABSENT),
            ("N", Revision("another epoch", first.number)),
            ("never", first),
            ("never", Revision("another epoch", 0)),
        ]
        for name, expected in wrong:
            with pytest.raises(ConflictError) as caught:
                store.commit([Write("M", "a", sample(store, 1))], {name: expected})
            assert (caught.value.name, caught.value.key) == (name, None)
        assert store.names() == ["N"]

    def test_a_key_written_again_after_its_removal_is_another_one(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        store.commit([Write("N", "a", DELETE, first)])
        with pytest.raises(ConflictError):
            store.commit([Write("N", "a", CHECK, first)])
        store.commit([Write("N", "a", sample(store, 1), ABSENT)])
        with pytest.raises(ConflictError):
            store.commit([Write("N", "a", DELETE, first)])

    def test_a_name_that_was_only_checked_was_not_written(self, store: Store) -> None:
        store.commit([Write("M", "a", sample(store, 1)), Write("N", "a", CHECK, ABSENT)], {"L": ABSENT})
        assert store.names() == ["M"]
        assert (store.revision("N").number, store.revision("L").number) == (0, 0)
        store.commit([Write("N", "a", sample(store, 1))], {"N": ABSENT, "L": ABSENT})

    def test_a_drop_of_what_was_never_written_is_a_commit_too(self, store: Store) -> None:
        first = store.commit([Write("M", "a", sample(store, 1))])
        assert store.drop("N") == (first.epoch, first.number + 1) == store.revision("N")
        assert store.names() == ["M"]
        with pytest.raises(ConflictError):
            store.commit([Write("N", "a", sample(store, 1))], {"N": ABSENT})

    def test_a_commit_spans_as_many_names_as_one_likes(self, store: Store, other: Store) -> None:
        count = self.MANY_NAMES
        names = [str(n) for n in range(count)]
        revision = store.commit([Write(name, "a", sample(store, 1)) for name in names])
        assert other.revisions(names) == [revision] * count
        assert sorted(other.names()) == sorted(names)

    def test_a_dropped_name_was_written_once(self, store: Store) -> None:
        store.commit([Write("N", "a", sample(store, 1))], {"N": ABSENT})
        store.drop("N")
        with pytest.raises(ConflictError):
            store.commit([Write("N", "a", sample(store, 1))], {"N": ABSENT})

    def test_of_many_that_seed_a_name_one_wins(self, open_store: OpenStore) -> None:
        stores, won = [open_store() for _ in range(8)], []
        barrier = threading.Barrier(len(stores))

        def seed(n: int) -> None:
            barrier.wait(10)
            try:
                stores[n].commit([Write("N", "winner", sample(stores[n], n))], {"N": ABSENT})
                won.append(n)
            except ConflictError:
                pass

        in_threads([functools.partial(seed, n) for n in range(len(stores))])
        assert len(won) == 1
        assert stores[0].fetch("N").entries["winner"].data == sample(stores[0], won[0])
        for store in stores:
            store.close()
