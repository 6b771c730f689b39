"""The laws of the store contract."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from ..errors import ConflictError
from ..stores.base import ABSENT, ANY, CHECK, DELETE, Store, Write
from ..values.revision import Revision

OpenStore = Callable[[], Store]

ODD_TEXTS = [
    "",
    "a b",
    "\0",
    "new\nline",
    "naïve ☃ 🐍",
    "\ud800",
    "x" * 10_000,
    "a{b}c",
    "..",
    "a/b",
    "%s",
    "0",
]
MANY = 20_000


def sample(store: Store, n: int) -> Any:
    """An opaque value: bytes, or an object where the store holds objects."""
    return ("object", n) if store.holds_objects else b"value %d" % n


class StoreSuite:
    """What every store must do; see `flask_globalstate.testing`."""

    #: how many names a commit is tried with
    MANY_NAMES = 10_000

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[Store]:
        """A store object."""
        store = open_store()
        yield store
        store.close()

    @pytest.fixture
    def other(self, open_store: OpenStore) -> Iterator[Store]:
        """Another store object over the same data: another worker."""
        store = open_store()
        yield store
        store.close()

    # --- commit ---------------------------------------------------------------------------------

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

        _in_threads([functools.partial(seed, n) for n in range(len(stores))])
        assert len(won) == 1
        assert stores[0].fetch("N").entries["winner"].data == sample(stores[0], won[0])
        for store in stores:
            store.close()

    # --- order, keys, names ---------------------------------------------------------------------

    def test_the_order_is_that_of_creation(self, store: Store, other: Store) -> None:
        store.commit([Write("N", key, sample(store, 1)) for key in "zyx"])
        store.commit([Write("N", "a", sample(store, 1))])
        store.commit([Write("N", "z", sample(store, 2))])
        assert other.keys("N")[1] == list(other.fetch("N").entries) == ["z", "y", "x", "a"]
        store.commit([Write("N", "z", DELETE)])
        revision = store.commit([Write("N", "z", sample(store, 3))])
        assert other.keys("N") == (revision, ["y", "x", "a", "z"])

    def test_what_is_fetched_is_what_was_asked_for(self, store: Store) -> None:
        revision = store.commit([Write("N", key, sample(store, 1)) for key in "abc"])
        entry = (sample(store, 1), revision.number)
        assert store.fetch("N", []) == (revision, {})
        assert store.fetch("N", iter(["c", "absent", "a", "a"])) == (revision, {"c": entry, "a": entry})
        assert store.fetch("never", ["a"]) == ((revision.epoch, 0), {})
        assert store.fetch("never") == ((revision.epoch, 0), {})
        assert store.keys("never") == ((revision.epoch, 0), [])
        assert store.names() == ["N"]

    def test_names_are_those_written_and_not_dropped(self, store: Store, other: Store) -> None:
        store.commit([Write(name, "a", sample(store, 1)) for name in ("N", "M", "L")])
        store.fetch("only read")
        store.commit([Write("M", "a", DELETE)])
        store.drop("L")
        assert sorted(other.names()) == ["M", "N"]
        store.commit([Write("L", "a", sample(store, 1))])
        assert sorted(other.names()) == ["L", "M", "N"]

    @pytest.mark.parametrize("text", ODD_TEXTS)
    def test_any_text_is_a_name_and_a_key(self, store: Store, other: Store, text: str) -> None:
        revision = store.commit([Write(text, text, sample(store, 1)), Write("N", "n", sample(store, 1))])
        assert other.fetch(text, [text]).entries[text].data == sample(store, 1)
        assert other.keys(text) == (revision, [text])
        assert sorted(other.names()) == sorted({text, "N"})
        store.commit([Write(text, text, DELETE)])
        assert other.changes(text, revision).removed.keys() == {text}

    def test_values_come_back_as_they_were(self, store: Store) -> None:
        if store.holds_objects:
            thing = object()
            store.commit([Write("N", "a", thing)])
            assert store.fetch("N", ["a"]).entries["a"].data is thing
            return
        for data in (b"", bytes(range(256)), b"\r\n" * 100, b"x" * 5_000_000):
            store.commit([Write("N", "a", data)])
            assert store.fetch("N", ["a"]).entries["a"].data == data

    def test_a_batch_of_many_keys_is_one_commit(self, store: Store, other: Store) -> None:
        before = store.commit([Write("N", "first", sample(store, 1))])
        after = store.commit([Write("N", str(n), sample(store, n)) for n in range(MANY)])
        assert after.number == before.number + 1
        assert other.keys("N")[1] == ["first", *map(str, range(MANY))]
        some = [str(n) for n in range(0, MANY, 2)]
        assert list(other.fetch("N", some).entries) == some
        assert len(other.fetch("N").entries) == MANY + 1

    # --- the change log -------------------------------------------------------------------------

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

    # --- increment ------------------------------------------------------------------------------

    def test_an_increment_of_what_is_absent_begins_at_nought(self, store: Store, other: Store) -> None:
        revision, value = store.increment("N", "a", 5)
        assert value == 5
        assert other.revision("N") == revision
        assert other.increment("N", "a", -7)[1] == -2
        assert other.keys("N")[1] == ["a"]

    def test_increments_are_exact_far_beyond_a_float(self, store: Store) -> None:
        value = 0
        for amount in (2**52, 2**52, 1, 1, 2**53, 2**62, 2**63, 2**64, 10**40, -(10**40), 1, -(2**64), 3):
            value += amount
            assert store.increment("N", "a", amount)[1] == value

    def test_an_increment_of_something_else_is_an_error_and_writes_nothing(self, store: Store) -> None:
        others = [
            sample(store, 1),
            *([True, 1.0, "1"] if store.holds_objects else [b"i", b"x1i", b"1_0i"]),
        ]
        for key, value in zip("abcde", others, strict=False):
            revision = store.commit([Write("N", key, value)])
            with pytest.raises(TypeError, match="integer"):
                store.increment("N", key, 1)
            assert store.revision("N") == revision

    def test_an_increment_is_in_the_change_log(self, store: Store) -> None:
        first, _ = store.increment("N", "a", 1)
        second, _ = store.increment("N", "a", 1)
        assert store.changes("N", first).changed == {"a": second.number}

    # --- threads, processes, life ---------------------------------------------------------------

    def test_threads_of_two_workers_lose_nothing(self, store: Store, other: Store) -> None:
        store.commit([Write("N", "swapped", sample(store, 0))])

        def work(store: Store) -> None:
            for _ in range(50):
                store.increment("N", "added", 1)
                while True:
                    revision, entries = store.fetch("N", ["swapped"])
                    entry = entries["swapped"]
                    number = entry.data[1] if store.holds_objects else int(entry.data.split()[1])
                    expected = Revision(revision.epoch, entry.number)
                    try:
                        store.commit([Write("N", "swapped", sample(store, number + 1), expected)])
                        break
                    except ConflictError:
                        continue

        _in_threads([functools.partial(work, which) for which in (store, store, other, other)])
        assert store.increment("N", "added", 0)[1] == 200
        assert store.fetch("N", ["swapped"]).entries["swapped"].data == sample(store, 200)

    @pytest.mark.parametrize("at", range(4))
    def test_of_two_that_depend_on_one_revision_one_wins(self, store: Store, other: Store, at: int) -> None:
        first = store.commit([Write("N", "a", sample(store, 0))])
        won: list[Any] = []

        def write(worker: Store, value: Any, kind: type[list[Any]] = list) -> None:
            with contextlib.suppress(ConflictError):
                worker.commit(kind([Write("N", "a", value, first)]))
                won.append(value)

        theirs = threading.Thread(target=write, args=(other, sample(store, 1)))

        class Interrupted(list[Any]):
            """Lets the other go on while it is being read for the first, second... time."""

            times = 0

            def __iter__(self) -> Iterator[Any]:
                if self.times == at:
                    theirs.start()
                    theirs.join(0.1)  # In vain where a lock is held.
                self.times += 1
                return super().__iter__()

        write(store, sample(store, 2), Interrupted)
        if theirs.ident is None:
            theirs.start()
        theirs.join(10)
        assert len(won) == 1
        assert store.fetch("N").entries["a"].data == won[0]

    def test_a_reader_never_sees_half_a_commit(self, store: Store, other: Store) -> None:
        store.commit([Write("N", key, sample(store, 0)) for key in "ab"])
        done = threading.Event()
        seen: list[tuple[Any, Any]] = []

        def read() -> None:
            while not done.is_set():
                entries = other.fetch("N").entries
                seen.append((entries["a"], entries["b"]))

        def write() -> None:
            for n in range(200):
                store.commit([Write("N", key, sample(store, n)) for key in "ab"])
            done.set()

        _in_threads([read, write])
        assert all(a == b for a, b in seen)

    def test_a_store_survives_a_fork(self, store: Store) -> None:
        store.increment("N", "a", 1)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=_increment, args=(store, 20)) for _ in range(3)]
        for child in children:
            child.start()
        _increment(store, 20)
        for child in children:
            child.join(30)
            assert child.exitcode == 0
        # What a store private to its process was told in a child stays there.
        assert store.increment("N", "a", 0)[1] == (81 if store.shared else 21)

    def test_a_store_that_was_closed_is_opened_again_by_use(self, store: Store) -> None:
        revision = store.commit([Write("N", "a", sample(store, 1))])
        store.close()
        store.close()
        assert store.fetch("N", ["a"]).revision == revision

    def test_a_new_store_object_sees_what_was_written(self, store: Store, open_store: OpenStore) -> None:
        revision = store.commit([Write("N", "a", sample(store, 1))])
        later = open_store()
        assert later.fetch("N", ["a"]).revision == revision
        later.close()

    def test_ping_and_check_change_nothing(self, store: Store) -> None:
        revision = store.commit([Write("N", "a", sample(store, 1))])
        store.ping()
        store.check()
        assert store.revision("N") == revision


def _increment(store: Store, times: int) -> None:
    for _ in range(times):
        store.increment("N", "a", 1)


def _in_threads(bodies: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
