"""The laws of a store that is shared by threads and processes, closed and opened again."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ..errors import ConflictError
from ..stores.base import Store, Write
from ..values.revision import Revision
from .two_stores import OpenStore, TwoStores, in_threads, sample


class LifeLaws(TwoStores):
    """A part of `StoreSuite`."""

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

        in_threads([functools.partial(work, which) for which in (store, store, other, other)])
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

        in_threads([read, write])
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
