"""The laws of the proxies over a store, compared with the plain objects that they replace."""

from __future__ import annotations

import copy
import operator
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ..counter import SharedCounter
from ..errors import DecodingError, EncodingError
from ..mapping import SharedDict
from ..stores.base import ABSENT, Store, Write
from ..value import SharedValue
from .machine import DictMachine

NAME = "DATA"
SECRET = b"secret"


def shared_dict(store: Store, mode: str = "read") -> SharedDict[Any, Any]:
    """A `SharedDict` on a store."""
    return SharedDict(NAME, store, sync=mode, secret=SECRET)


class Unreadable:
    """Can be pickled and not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


class Word(str):
    """Equal to the str of the same letters, as a member of a StrEnum is."""


class OnlyKeys:
    """As much of a mapping as `dict.update` needs."""

    def keys(self) -> list[str]:
        """The keys."""
        return ["k"]

    def __getitem__(self, key: str) -> str:
        return key.upper()


class DictSuite:
    """What the proxies must do on every store; see `flask_globalstate.testing`."""

    @pytest.fixture
    def stores(self, open_store: Callable[[], Store]) -> Iterator[list[Store]]:
        """Two workers' stores."""
        stores = [open_store(), open_store()]
        yield stores
        for store in stores:
            store.close()

    @pytest.fixture
    def data(self, stores: list[Store]) -> SharedDict[Any, Any]:
        """A dict."""
        return shared_dict(stores[0])

    @pytest.fixture
    def theirs(self, stores: list[Store]) -> SharedDict[Any, Any]:
        """The same dict in another worker."""
        return shared_dict(stores[1])

    def test_two_workers_see_each_other(self, data: Any, theirs: Any) -> None:
        data["a"] = 1
        assert theirs["a"] == 1
        theirs["a"] = 2
        assert data["a"] == 2
        del data["a"]
        assert "a" not in theirs
        assert theirs.get("a") is None
        data.update(a=5, b=6)
        assert dict(theirs) == {"a": 5, "b": 6}
        theirs.clear()
        assert (len(data), list(data), dict(data)) == (0, [], {})

    @pytest.mark.parametrize("value", [None, 0, 0.0, False, "", b"", [], {}, (), set()])
    def test_falsy_values_are_values(self, data: Any, theirs: Any, value: Any) -> None:
        data["a"] = value
        assert theirs["a"] == value
        assert isinstance(theirs["a"], type(value))
        assert theirs.get("a", 5) == value
        assert theirs.setdefault("a", 5) == value
        assert "a" in theirs
        assert theirs.pop("a", 5) == value
        assert data.pop("a", value) == value

    def test_missing_keys_are_as_in_a_dict(self, data: Any) -> None:
        uses: list[Callable[[Any], Any]] = [
            lambda d: d["a"],
            lambda d: d.pop("a"),
            lambda d: d.popitem(),
            lambda d: d.__delitem__("a"),
        ]
        plain: dict[Any, Any] = {}
        for use in uses:
            for mapping in (data, plain):
                with pytest.raises(KeyError):
                    use(mapping)
        assert (data.get("a"), data.get("a", 1), data.pop("a", None), data.setdefault("a")) == (
            None,
            1,
            None,
            None,
        )
        assert dict(data) == {"a": None}

    def test_equal_keys_are_one_key(self, data: Any, theirs: Any) -> None:
        data[1] = "int"
        theirs[1.0] = "float"
        assert data[True] == "float"
        assert len(data) == 1
        data[0] = "zero"
        assert theirs[False] == theirs[-0.0] == "zero"
        for key in ("1", b"1", (1,), None, "None"):
            assert key not in theirs

    @pytest.mark.parametrize(
        "key", ["a", "", "\0", "\0s", 5, -5, 2**100, 1.5, float("inf"), None, b"", ((), (1,))]
    )
    def test_keys_come_back_as_they_were(self, data: Any, theirs: Any, key: Any) -> None:
        data[key] = 1
        assert list(theirs) == [key]
        assert theirs[key] == 1

    @pytest.mark.parametrize("key", [[], {}, {1}, frozenset(), object(), (1, []), float("nan"), print])
    def test_a_bad_key_is_a_type_error_and_nothing_is_written(
        self, data: Any, stores: list[Store], key: Any
    ) -> None:
        data["a"] = 1
        before = stores[0].revision(NAME)
        for use in (
            lambda: data.__setitem__(key, 1),
            lambda: data.setdefault(key, 1),
            lambda: data.update([("b", 2), (key, 1)]),
            lambda: data.increment(key),
            lambda: data.compare_and_set(key, ABSENT, 1),
        ):
            with pytest.raises(TypeError):
                use()
        assert stores[0].revision(NAME) == before

    @pytest.mark.parametrize("key", [[], {1}, frozenset(), object(), (1, []), float("nan")])
    @pytest.mark.parametrize("whole", [False, True])
    def test_a_bad_key_is_a_type_error_whatever_was_read_before(
        self, data: Any, key: Any, whole: bool
    ) -> None:
        data["a"] = 1
        if whole:
            assert dict(data) == {"a": 1}
        uses: list[Callable[[], Any]] = [
            lambda: data[key],
            lambda: key in data,
            lambda: data.get(key),
            lambda: data.pop(key),
            lambda: data.pop(key, None),
            lambda: data.__delitem__(key),
        ]
        for use in uses:
            with pytest.raises(TypeError):
                use()

    def test_a_str_that_only_looks_different_is_the_same_key(self, data: Any, theirs: Any) -> None:
        data["a"] = 1
        assert theirs[Word("a")] == 1
        theirs[Word("a")] = 2
        data[Word("b")] = 3
        assert dict(data) == {"a": 2, "b": 3}
        assert theirs["b"] == 3

    @pytest.mark.parametrize("other", [None, 5, [1], [("a",)], ["abc"], [("a", 1), 5], object()])
    def test_what_cant_update_a_dict_cant_update_this(
        self, data: Any, stores: list[Store], other: Any
    ) -> None:
        before = stores[0].revision(NAME)
        uses: list[Callable[[Any], Any]] = [lambda d: d.update(other), lambda d: operator.ior(d, other)]
        for use in uses:
            raised = []
            targets: list[Any] = [{}, data]
            for mapping in targets:
                with pytest.raises((TypeError, ValueError)) as caught:
                    use(mapping)
                raised.append(caught.type)
            assert raised[0] is raised[1]
        assert stores[0].revision(NAME) == before

    def test_every_form_of_update(self, data: Any, theirs: Any) -> None:
        plain: dict[Any, Any] = {}
        targets: list[Any] = [data, plain]
        for mapping in targets:
            mapping.update()
            mapping.update({"a": 1}, a=2, self=3, other=4)
            mapping.update([("b", 1), ("b", 2), ["c", 3]])
            mapping.update((n, n) for n in range(3))
            mapping.update({"x": 1}.items())
            mapping.update(OnlyKeys())
        assert list(theirs.items()) == list(plain.items())

    def test_every_bulk_write_is_one_commit(self, data: Any, stores: list[Store]) -> None:
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

    def test_the_name_stays_bound_to_the_shared_dict(self, data: Any) -> None:
        same = data
        same |= {"a": 1}
        same |= [("b", 2)]
        assert same is data
        assert data == {"a": 1, "b": 2}

    def test_operators_give_plain_dicts(self, data: Any) -> None:
        data.update(a=1, b=2)
        assert data | {"b": 3, "c": 4} == {"a": 1, "b": 3, "c": 4}
        assert list({"b": 3, "c": 4} | data) == ["b", "c", "a"]
        assert type(data | {}) is type({} | data) is dict
        assert data == {"b": 2, "a": 1}
        assert data != {"a": 1}
        assert data == {"a": 1, "b": 2}
        assert data != [("a", 1)]
        with pytest.raises(TypeError):
            data | [1]
        with pytest.raises(TypeError):
            hash(data)

    def test_copies_are_plain_dicts(self, data: Any) -> None:
        data.update(a=[1], b=2)
        for plain in (data.copy(), copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
            assert type(plain) is dict
            assert plain == {"a": [1], "b": 2}
        plain["c"] = 3
        assert "c" not in data

    def test_order_and_its_reverse(self, data: Any, theirs: Any) -> None:
        plain: dict[str, int] = {}
        for mapping in (data, plain):
            mapping.update(z=1, y=2)
            mapping["a"] = 3
            mapping["z"] = 4
            del mapping["y"]
            mapping["y"] = 5
        assert list(theirs) == list(plain) == ["z", "a", "y"]
        assert list(reversed(theirs)) == list(reversed(plain))
        assert list(reversed(theirs.items())) == list(reversed(plain.items()))
        assert theirs.popitem() == plain.popitem() == ("y", 5)

    def test_views(self, data: Any) -> None:
        data.update(a=1, b=2)
        assert data.keys() & {"a", "x"} == {"a"}
        assert data.keys() | {"x"} == {"a", "b", "x"}
        assert data.keys() - {"a"} == {"b"}
        assert data.keys() ^ {"a", "x"} == {"b", "x"}
        assert {"a", "x"} & data.keys() == {"a"}
        assert data.keys() == {"a": 0, "b": 0}.keys()
        assert data.keys().isdisjoint({"x"})
        assert not data.items().isdisjoint({"b": 2}.items())
        assert data.items() >= {("a", 1)}
        assert 2 in data.values()
        assert 5 not in data.values()
        assert ("a", 1) in data.items()
        assert ("a", 2) not in data.items()
        assert [list(view) for view in (data.keys(), data.values(), data.items())] == [
            ["a", "b"],
            [1, 2],
            [("a", 1), ("b", 2)],
        ]
        assert list(reversed(data.keys())) == ["b", "a"]
        assert list(reversed(data.values())) == [2, 1]
        assert len(data.values()) == 2

    def test_a_change_during_iteration_disturbs_nothing(self, data: Any, theirs: Any) -> None:
        data.update(a=1, b=2)
        seen = []
        for key, value in data.items():
            theirs[f"new {key}"] = value
            data.pop("b", None)
            seen.append((key, value))
        assert seen == [("a", 1), ("b", 2)]

    def test_a_snapshot_is_read_only_and_stays(self, data: Any, theirs: Any) -> None:
        data.update(a=1, b=2)
        snapshot = data.snapshot()
        theirs["a"] = 5
        assert (dict(snapshot), list(snapshot)) == ({"a": 1, "b": 2}, ["a", "b"])
        with pytest.raises(TypeError):
            snapshot["a"] = 1

    def test_a_repr_shows_its_contents_bounded(self, data: Any) -> None:
        data["a"] = 1
        assert "'a': 1" in repr(data)
        assert NAME in repr(data)
        data.update(dict.fromkeys(range(1000), "x" * 1000))
        assert len(repr(data)) < 2000

    def test_increment(self, data: Any, theirs: Any) -> None:
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

    def test_compare_and_set(self, data: Any, theirs: Any) -> None:
        assert data.compare_and_set("a", ABSENT, [1])
        assert not theirs.compare_and_set("a", ABSENT, [2])
        assert theirs.compare_and_set("a", [1], None)
        assert data.compare_and_set("a", None, 5)
        assert not data.compare_and_set("b", None, 5)
        assert dict(theirs) == {"a": 5}

    @pytest.fixture
    def meanwhile(
        self, stores: list[Store], monkeypatch: pytest.MonkeyPatch
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

    def test_popitem_gives_the_newest_item_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any
    ) -> None:
        data.update(a=1, b=2)
        meanwhile("keys", lambda: theirs.update(c=3))
        assert data.popitem() == ("c", 3)
        meanwhile("fetch", lambda: theirs.update(d=4))
        assert data.popitem() == ("d", 4)
        meanwhile("fetch", lambda: theirs.update(b=5))
        assert data.popitem() == ("b", 5)
        assert dict(theirs) == {"a": 1}

    def test_pop_gives_what_it_removes_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any
    ) -> None:
        data["a"] = 1
        pending = meanwhile("fetch", lambda: theirs.update(a=2))
        assert data.pop("a") == 2
        assert not pending
        data["a"] = 1
        pending = meanwhile("fetch", lambda: theirs.clear())
        assert data.pop("a", "default") == "default"
        assert not pending

    def test_setdefault_gives_what_is_there_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any
    ) -> None:
        assert "a" not in data
        pending = meanwhile("fetch", lambda: theirs.update(a=2))
        assert data.setdefault("a", 1) == 2
        assert not pending
        assert dict(theirs) == {"a": 2}

    def test_compare_and_set_compares_with_what_is_there_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any
    ) -> None:
        data["a"] = 1
        pending = meanwhile("fetch", lambda: theirs.update(a=2))
        assert not data.compare_and_set("a", 1, 5)
        assert not pending
        pending = meanwhile("fetch", lambda: theirs.update(b=2))
        assert not data.compare_and_set("b", ABSENT, 5)
        assert not pending
        assert dict(theirs) == {"a": 2, "b": 2}

    def test_an_increment_is_exact_whatever_comes_between(
        self, data: Any, theirs: Any, meanwhile: Any
    ) -> None:
        for expected in (11, 22):
            pending = meanwhile("fetch", lambda: theirs.increment("n", 10))
            data.increment("n")
            if pending:
                pending.pop()()  # This store adds without reading first.
            assert data["n"] == theirs["n"] == expected

    def test_a_counter_stands_for_its_number(self, stores: list[Store]) -> None:
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

    def test_a_value_is_rebound_for_everybody(self, stores: list[Store]) -> None:
        theme, their_theme = (SharedValue[Any]("T", store, secret=SECRET) for store in stores)
        assert theme.value is None
        for value in ("light", None, 0, [1]):
            theme.value = value
            assert their_theme.value == value

    def test_a_value_that_cant_be_encoded_is_an_error_and_nothing_is_written(
        self, data: Any, stores: list[Store]
    ) -> None:
        if stores[0].holds_objects:
            return  # Any object can be held, and there is nothing to decode.
        data["a"] = 1
        before = stores[0].revision(NAME)
        generator: Iterator[int] = (n for n in range(0))
        unwritable: list[Any] = [lambda: 1, Unreadable(), [Unreadable()], generator]
        for bad in unwritable:
            for write in (
                lambda bad=bad: data.__setitem__("a", bad),
                lambda bad=bad: data.update(b=1, c=bad),
                lambda bad=bad: data.setdefault("d", bad),
                lambda bad=bad: data.compare_and_set("a", 1, bad),
            ):
                with pytest.raises(EncodingError, match=NAME):
                    write()
        assert stores[0].revision(NAME) == before

    def test_an_object_whose_class_is_in_main_is_refused(
        self, data: Any, stores: list[Store], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if stores[0].holds_objects:
            return  # Any object can be held.
        thing = type("Thing", (), {"__module__": "__main__", "__qualname__": "Thing"})
        monkeypatch.setattr(sys.modules["__main__"], "Thing", thing, raising=False)
        for bad in (thing(), thing, [thing()]):
            assert pickle.dumps(bad)
            with pytest.raises(EncodingError, match="__main__"):
                data["a"] = bad
        assert stores[0].revision(NAME).number == 0

    def test_an_entry_that_cant_be_decoded_can_be_deleted(self, data: Any, stores: list[Store]) -> None:
        if stores[0].holds_objects:
            return  # There is nothing to decode.
        data.update(a=1, b=2)
        stores[0].commit([Write(NAME, "b", b"damaged")])
        del data["b"]
        assert dict(data) == {"a": 1}
        with pytest.raises(KeyError):
            del data["b"]

    def test_an_entry_that_cant_be_decoded_breaks_no_other(
        self, data: Any, theirs: Any, stores: list[Store]
    ) -> None:
        if stores[0].holds_objects:
            return  # Any object can be held, and there is nothing to decode.
        data.update(a=1, b=2, c=3)
        stores[0].commit([Write(NAME, "b", b"damaged")])
        with pytest.raises(DecodingError, match="'b'"):
            theirs["b"]
        assert (theirs["a"], theirs["c"], len(theirs), list(theirs)) == (1, 3, 3, ["a", "b", "c"])
        assert "b" in theirs
        theirs["b"] = 5
        assert dict(data) == {"a": 1, "b": 5, "c": 3}

    @pytest.mark.parametrize("mode", ["read", "request", "manual"])
    def test_any_program_does_what_it_does_to_a_dict(
        self, open_store: Callable[[], Store], mode: str
    ) -> None:
        stores = [open_store(), open_store()]

        class Machine(DictMachine):
            workers = tuple(shared_dict(store, mode) for store in stores)
            syncs_itself = mode != "manual"

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=25,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            for store in stores:
                store.close()
