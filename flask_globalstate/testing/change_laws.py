"""The laws of changes that depend on what is there: nobody comes between, or the change is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ..errors import UnsupportedOperationError
from ..proxies.counter import SharedCounter
from ..stores.base import ABSENT, Backend
from .excuses import needs, without
from .workers import NAME, SECRET, TwoWorkers, contents


class ChangeLaws(TwoWorkers):
    """A part of `DictSuite`."""

    @needs("revisions")
    def test_every_bulk_write_is_one_commit(self, data: Any, stores: list[Any]) -> None:
        data.update({"a": 1, "b": 2}, c=3)
        number = stores[0].revision(NAME).number
        for change in (
            lambda: data.update({"a": 2, "b": 3}),
            lambda: data.update([("x", 1), ("y", 2)]),
            lambda: data.update(z=1),
            lambda: data.__ior__({"q": 1, "r": 2}),
            data.popitem,
            lambda: data.pop("a"),
            lambda: data.setdefault("s", 1),
            data.clear,
        ):
            change()
            number += 1
            assert stores[1].revision(NAME).number == number
        data.update({})
        data.setdefault("t", 1)
        assert data.setdefault("t", 2) == 1
        assert stores[1].revision(NAME).number == number + 1

    @needs("atomic")
    def test_increment(self, data: Any, theirs: Any, stores: list[Backend]) -> None:
        assert data.increment("n") == 1
        assert theirs.increment("n", 41) == 42
        assert data.increment("n", by=-2) == 40
        data["n"] = 7
        assert theirs.increment("n") == 8
        data["s"] = "text"
        data["t"] = True
        for key, by in (("s", 1), ("t", 1), ("n", 1.5), ("n", True), ("n", "1")):
            with pytest.raises(TypeError):
                theirs.increment(key, by)
        assert dict(data) == {"n": 8, "s": "text", "t": True}

    @needs("atomic")
    def test_compare_and_set(self, data: Any, theirs: Any, stores: list[Backend]) -> None:
        assert data.compare_and_set("a", ABSENT, [1])
        assert not theirs.compare_and_set("a", ABSENT, [2])
        assert theirs.compare_and_set("a", [1], None)
        assert data.compare_and_set("a", None, 5)
        assert not data.compare_and_set("b", None, 5)
        assert dict(theirs) == {"a": 5}

    @pytest.fixture
    def meanwhile(
        self, stores: list[Backend], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str, Callable[[], Any]], list[Any]]:
        """Lets the other worker act once, after a method of our store has answered and before we hear it.

        It gives a list that is empty when that has happened.
        """

        def between(method: str, act: Callable[[], Any]) -> list[Any]:
            ask, pending = getattr(stores[0], method), [act]

            def late(*arguments: Any) -> Any:
                answer = ask(*arguments)
                if pending:
                    pending.pop()()
                return answer

            monkeypatch.setattr(stores[0], method, late)
            return pending

        return between

    @needs("revisions")
    def test_popitem_gives_the_newest_item_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any, stores: list[Backend]
    ) -> None:
        data.update(a=1, b=2)
        meanwhile("keys", lambda: theirs.update(c=3))
        assert data.popitem() == ("c", 3)
        meanwhile("fetch", lambda: theirs.update(d=4))
        assert data.popitem() == ("d", 4)
        meanwhile("fetch", lambda: theirs.update(b=5))
        assert data.popitem() == ("b", 5)
        assert dict(theirs) == {"a": 1}

    @needs("revisions")
    def test_pop_gives_what_it_removes_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any, stores: list[Backend]
    ) -> None:
        data["a"] = 1
        pending = meanwhile("fetch", lambda: theirs.update(a=2))
        assert data.pop("a") == 2
        assert not pending
        data["a"] = 1
        pending = meanwhile("fetch", lambda: theirs.clear())
        assert data.pop("a", "default") == "default"
        assert not pending

    @needs("revisions")
    def test_setdefault_gives_what_is_there_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any, stores: list[Any]
    ) -> None:
        assert "a" not in data
        pending = meanwhile("fetch", lambda: theirs.update(a=2))
        assert data.setdefault("a", 1) == 2
        assert not pending
        assert dict(theirs) == {"a": 2}

    @needs("revisions")
    def test_compare_and_set_compares_with_what_is_there_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any, stores: list[Backend]
    ) -> None:
        data["a"] = 1
        pending = meanwhile("fetch", lambda: theirs.update(a=2))
        assert not data.compare_and_set("a", 1, 5)
        assert not pending
        pending = meanwhile("fetch", lambda: theirs.update(b=2))
        assert not data.compare_and_set("b", ABSENT, 5)
        assert not pending
        assert dict(theirs) == {"a": 2, "b": 2}

    @needs("revisions")
    def test_an_increment_is_exact_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any, stores: list[Backend]
    ) -> None:
        for expected in (11, 22):
            pending = meanwhile("fetch", lambda: theirs.increment("n", 10))
            data.increment("n")
            if pending:
                pending.pop()()  # This store adds without reading first.
            assert data["n"] == theirs["n"] == expected

    @needs("atomic")
    def test_operators_that_assign_keep_a_counters_name_bound_and_are_one_commit(
        self, stores: list[Backend]
    ) -> None:
        hits, theirs = (SharedCounter("H", store, secret=SECRET) for store in stores)
        same = hits
        same += 7
        same *= 3
        theirs.increment(-1)
        same //= 2
        same **= 2
        same %= 7
        assert same is hits
        assert theirs.value == hits.value == 2
        with pytest.raises(TypeError, match="int"):
            same /= 2
        with pytest.raises(TypeError, match="int"):
            same *= 1.5
        assert theirs.value == hits.value == 2

    @needs("atomic")
    def test_a_counter_stands_for_its_number(self, stores: list[Backend]) -> None:
        hits, their_hits = (SharedCounter("H", store, secret=SECRET) for store in stores)
        same = hits
        same += 5
        same -= 2
        assert same is hits
        assert their_hits.value == int(their_hits) == their_hits == 3
        assert (
            their_hits > 2,
            their_hits <= hits,
            hits + 1,
            10 - hits,
            hits * 2,
            f"{hits:03d}",
            str(hits),
        ) == (
            True,
            True,
            4,
            7,
            6,
            "003",
            "3",
        )
        assert ([0, 1, 2, 3][hits], bool(hits), -hits, abs(hits), hits / 2, divmod(hits, 2)) == (
            3,
            True,
            -3,
            3,
            1.5,
            (1, 1),
        )
        their_hits.set(0)
        assert not hits
        unfit: list[Any] = [1.5, True, "1"]
        for bad in unfit:
            with pytest.raises(TypeError):
                hits += bad

    @without("atomic")
    def test_what_a_store_cant_do_atomically_it_refuses(self, data: Any, stores: list[Backend]) -> None:
        data["n"] = 1
        before = contents(stores[0])
        for use in (
            lambda: data.increment("n"),
            lambda: data.increment("absent"),
            lambda: data.compare_and_set("n", 1, 2),
            lambda: data.compare_and_set("absent", ABSENT, 2),
            lambda: SharedCounter("H", stores[0], secret=SECRET).increment(),
        ):
            with pytest.raises(UnsupportedOperationError, match=stores[0].label):
                use()
        assert contents(stores[0]) == before
