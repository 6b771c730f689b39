"""The laws of the change log: what it tells is complete, or a reset."""

from __future__ import annotations

from random import Random

import pytest

from ..stores.base import DELETE, Store, Write
from ..values.revision import Revision
from .two_stores import TwoStores, sample


class LogLaws(TwoStores):
    """A part of `StoreSuite`."""

    def test_changes_are_what_was_written_since(self, store: Store, other: Store) -> None:
        first = store.commit([Write("N", key, sample(store, 1)) for key in "abc"])
        second = store.commit([Write("N", "a", sample(store, 2)), Write("M", "x", sample(store, 1))])
        third = store.commit([Write("N", "b", DELETE)])
        fourth = store.commit([Write("N", "d", sample(store, 1))])
        assert other.changes("N", first)[:4] == (
            fourth,
            {"a": second.number, "d": fourth.number},
            {"b": third.number},
            False,
        )
        assert other.changes("N", third)[:4] == (fourth, {"d": fourth.number}, {}, False)
        assert other.changes("N", fourth)[:4] == (fourth, {}, {}, False)

    def test_what_comes_along_with_changes_is_what_is_held(self, store: Store, other: Store) -> None:
        first = store.commit([Write("N", key, sample(store, 1)) for key in "abcd"])
        store.commit([Write("N", "a", sample(store, 2))])
        store.commit([Write("N", "b", DELETE), Write("N", "c", DELETE)])
        store.commit([Write("N", "c", sample(store, 3))])
        found = other.changes("N", first)
        assert set(found.entries) <= set(found.changed)
        for key, entry in found.entries.items():
            assert entry == store.fetch("N", [key]).entries[key]

    def test_a_key_removed_and_written_again_is_named_as_both(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        removed = store.commit([Write("N", "a", DELETE)])
        again = store.commit([Write("N", "a", sample(store, 1))])
        assert store.changes("N", first)[:4] == (again, {"a": again.number}, {"a": removed.number}, False)

    def test_removing_what_is_absent_is_no_change_of_a_key(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        store.commit([Write("N", "absent", DELETE)])
        assert store.changes("N", first)[1:4] == ({}, {}, False)

    def test_changes_since_another_epoch_are_a_reset(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        assert store.changes("N", Revision("another epoch", first.number)).reset

    def test_changes_since_before_a_drop_are_a_reset(self, store: Store, other: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        dropped = store.drop("N")
        assert other.fetch("N") == (dropped, {})
        assert other.keys("N") == (dropped, [])
        assert other.changes("N", first).reset
        assert other.changes("N", dropped)[:4] == (dropped, {}, {}, False)
        again = store.commit([Write("N", "b", sample(store, 1))])
        assert other.changes("N", first).reset
        assert other.changes("N", dropped).changed == {"b": again.number}
        assert other.keys("N")[1] == ["b"]

    def test_the_log_of_removals_is_bounded(self, store: Store) -> None:
        keys = [str(n) for n in range(3000)]
        first = store.commit([Write("N", key, sample(store, 1)) for key in keys])
        for start in range(0, 3000, 100):
            last = store.commit([Write("N", key, DELETE) for key in keys[start : start + 100]])
        assert store.changes("N", first).reset
        recent = store.changes("N", Revision(last.epoch, last.number - 1))
        assert not recent.reset
        assert recent.removed.keys() == set(keys[-100:])

    def test_the_log_of_changes_is_as_long_as_the_name_is_large(self, store: Store) -> None:
        first = store.commit([Write("N", "a", sample(store, 1))])
        for n in range(50):
            removed = store.commit([Write("N", "a", DELETE)])
            last = store.commit([Write("N", "a", sample(store, n)), Write("N", "b", sample(store, n))])
        assert store.changes("N", first)[:4] == (
            last,
            {"a": last.number, "b": last.number},
            {"a": removed.number},
            False,
        )

    @pytest.mark.parametrize("seed", range(3))
    def test_changes_are_complete_or_a_reset(self, store: Store, other: Store, seed: int) -> None:
        random = Random(seed)
        keys = [str(n) for n in range(1500)]
        live: set[str] = set()
        # What each commit wrote and removed, and the commits that a log need not reach back over.
        history: list[tuple[Revision, set[str], set[str]]] = []
        for _ in range(60):
            if random.random() < 0.05:
                history = [(store.drop("N"), set(), set())]
                live.clear()
                continue
            chosen = random.sample(keys, random.choice([1, 2, 5, 200]))
            gone = set(chosen if random.random() < 0.4 else chosen[:1])
            writes = [Write("N", k, DELETE if k in gone else sample(store, 1)) for k in chosen]
            history.append((store.commit(writes), set(chosen) - gone, gone & live))
            live = (live - gone) | (set(chosen) - gone)
        resets = 0
        for place, (since, _, _) in enumerate(history):
            changed: dict[str, int] = {}
            removed: dict[str, int] = {}
            for revision, put, gone in history[place + 1 :]:
                changed.update(dict.fromkeys(put, revision.number))
                removed.update(dict.fromkeys(gone, revision.number))
                changed = {key: number for key, number in changed.items() if key not in gone}
            found = other.changes("N", since)
            resets += found.reset
            if not found.reset:
                assert found[:4] == (history[-1][0], changed, removed, False)
        assert resets < len(history)
