"""Stores made from dict-like classes: the laws, and what passes through."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate.stores.base import Store
from flask_globalstate.stores.custom import DictLikeStore
from flask_globalstate.testing import DictSuite
from tests.support import PATIENCE
from tests.support.authors import CustomStore, SharedMapping, create_custom_store
from tests.support.customs import custom


class TestDTaleStyle(DictSuite):
    lacks = frozenset({"encoding", "revisions"})

    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        store = DictLikeStore(CustomStore, create_custom_store)
        return lambda: store


@pytest.mark.slow
@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
class TestMappings(DictSuite):
    lacks = frozenset({"encoding", "revisions"})

    @pytest.fixture
    def open_store(self, kind: type[Any]) -> Callable[[], Store]:
        store = DictLikeStore(kind)
        return lambda: store


@pytest.mark.slow
class TestSharedMapping(DictSuite):
    lacks = frozenset({"atomic", "encoding", "revisions"})

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: DictLikeStore(SharedMapping, folder=tmp_path)


# --- what passes through --------------------------------------------------------------------------


def test_objects_and_keys_pass_through_as_they_are() -> None:
    held: list[CustomStore] = []

    def factory(name: str) -> CustomStore:
        held.append(CustomStore())
        return held[-1]

    data = custom(factory).dict("DATA")
    thing = object()
    data[1, "a"] = thing
    assert data[1, "a"] is thing
    (store,) = [store for store in held if store.data]
    assert store.data == {(1, "a"): thing}
    store.data["behind our back"] = 5
    assert data["behind our back"] == 5


@pytest.mark.parametrize("missing", [None, 0, KeyError])
def test_what_get_gives_for_a_missing_key_is_not_seen(missing: Any) -> None:
    class Odd(CustomStore):
        def get(self, key: Any) -> Any:
            if key not in self.data:
                if missing is KeyError:
                    raise KeyError(key)
                return missing
            return self.data[key]

    data = custom(lambda name: Odd()).dict("DATA", initial={"none": None})
    assert data["none"] is None
    assert (data.get("a"), data.get("a", 5), data.pop("a", 6), "a" in data) == (None, 5, 6, False)
    for use in (lambda: data["a"], lambda: data.pop("a"), lambda: data.__delitem__("a")):
        with pytest.raises(KeyError):
            use()
    assert data.setdefault("a", 0) == 0
    assert dict(data) == {"none": None, "a": 0}


def test_a_default_factory_makes_nothing_when_a_key_is_read() -> None:
    data = custom(lambda name: defaultdict(list), defaultdict).dict("DATA")
    assert data.get("a", 5) == 5
    with pytest.raises(KeyError):
        data["a"]
    assert dict(data) == {}


def test_what_the_object_raises_reaches_the_caller() -> None:
    class Full(CustomStore):
        def __setitem__(self, key: Any, value: Any) -> None:
            raise OSError("disk full")

    data = custom(lambda name: Full()).dict("DATA")
    with pytest.raises(OSError, match="disk full"):
        data["a"] = 1


def test_an_object_is_never_called_by_two_threads_at_once() -> None:
    class Fragile(CustomStore):
        busy = False

        def __contains__(self, key: Any) -> bool:
            assert not self.busy
            self.busy = True
            time.sleep(0)
            self.busy = False
            return super().__contains__(key)

        def __setitem__(self, key: Any, value: Any) -> None:
            key in self  # noqa: B015
            super().__setitem__(key, value)

    data = custom(lambda name: Fragile()).dict("DATA")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(300):
                data.increment("n")
                data.get("n")
                data["m"] = 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert data["n"] == 1200


def test_a_function_may_use_other_names_while_it_changes_one() -> None:
    """Two threads that each change one name by what is in the other don't wait for each other."""
    state = custom()
    names = [state.dict("A", initial={"n": 1}), state.dict("B", initial={"n": 1})]
    met = threading.Barrier(2)

    def work(mine: Any, other: Any) -> None:
        met.wait(PATIENCE)
        for _ in range(200):
            mine._replica.replace("n", lambda value: value + other["n"] * 0 + 1)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [data["n"] for data in names] == [201, 201]
