"""The laws of the proxies over a store, compared with the plain objects that they replace."""

from __future__ import annotations

import copy
import operator
import pickle
from collections import ChainMap
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ..proxies.value import SharedValue
from ..replicas.modes import Mode
from ..stores.base import ABSENT, Backend
from .change_laws import ChangeLaws
from .encoding_laws import EncodingLaws
from .machine import DictMachine
from .workers import NAME, SECRET, contents, shared_dict


class Word(str):
    """Equal to the str of the same letters, as a member of a StrEnum is."""


class OnlyKeys:
    """As much of a mapping as `dict.update` needs."""

    def keys(self) -> list[str]:
        """The keys."""
        return ["k"]

    def __getitem__(self, key: str) -> str:
        return key.upper()


class Anything(dict[Any, Any]):
    """A dict that compares in its own way."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict)

    __hash__ = None


def _outcome(use: Callable[[Any], Any], found: Any) -> Any:
    try:
        return use(found)
    except Exception as error:
        return type(error)


class DictSuite(ChangeLaws, EncodingLaws):
    """Tests of the proxies on a store, to be inherited by a test class; see `flask_globalstate.testing`."""

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
        "key",
        [
            *("a", "", "\0", "\0s", 5, -5, 2**100, 1.5, float("inf"), None, b"", ((), (1,))),
            *(date(2026, 2, 28), datetime(2026, 2, 28, 12, 30), datetime(2026, 2, 28, 12, 30, tzinfo=UTC)),
            *(time(12, 30), timedelta(days=-1, microseconds=1), UUID(int=5), Decimal("0.1")),
            *(frozenset(), frozenset({1, "a", (2, frozenset({3}))})),
        ],
    )
    def test_keys_come_back_as_they_were(self, data: Any, theirs: Any, key: Any) -> None:
        data[key] = 1
        assert list(theirs) == [key]
        assert theirs[key] == 1

    @pytest.mark.parametrize("key", [[], {}, {1}, object(), (1, []), float("nan"), print])
    def test_a_bad_key_is_a_type_error_and_nothing_is_written(
        self, data: Any, stores: list[Backend], key: Any
    ) -> None:
        data["a"] = 1
        before = contents(stores[0])
        for use in (
            lambda: data.__setitem__(key, 1),
            lambda: data.setdefault(key, 1),
            lambda: data.update([("b", 2), (key, 1)]),
            lambda: data.increment(key),
            lambda: data.compare_and_set(key, ABSENT, 1),
        ):
            with pytest.raises(TypeError):
                use()
        assert contents(stores[0]) == before

    @pytest.mark.parametrize("key", [[], {1}, (1, []), object(), (object(),), float("nan"), print])
    @pytest.mark.parametrize("whole", [False, True])
    def test_to_look_for_a_bad_key_is_as_in_a_dict_whatever_was_read_before(
        self, data: Any, key: Any, whole: bool
    ) -> None:
        plain = {"a": 1}
        data["a"] = 1
        if whole:
            assert dict(data) == plain
        uses: list[Callable[[Any], Any]] = [
            lambda found: found[key],
            lambda found: key in found,
            lambda found: found.get(key),
            lambda found: found.get(key, 5),
            lambda found: found.pop(key),
            lambda found: found.pop(key, None),
            lambda found: found.__delitem__(key),
            lambda found: key in found.keys(),  # noqa: SIM118
            lambda found: (key, 1) in found.items(),
        ]
        for use in uses:
            assert _outcome(use, data) == _outcome(use, plain)
        assert dict(data) == plain

    def test_a_str_that_only_looks_different_is_the_same_key(self, data: Any, theirs: Any) -> None:
        data["a"] = 1
        assert theirs[Word("a")] == 1
        theirs[Word("a")] = 2
        data[Word("b")] = 3
        assert dict(data) == {"a": 2, "b": 3}
        assert theirs["b"] == 3

    @pytest.mark.parametrize("other", [None, 5, [1], [("a",)], ["abc"], [("a", 1), 5], object()])
    def test_what_cant_update_a_dict_cant_update_this(
        self, data: Any, stores: list[Backend], other: Any
    ) -> None:
        before = contents(stores[0])
        uses: list[Callable[[Any], Any]] = [lambda d: d.update(other), lambda d: operator.ior(d, other)]
        for use in uses:
            raised = []
            targets: list[Any] = [{}, data]
            for mapping in targets:
                with pytest.raises((TypeError, ValueError)) as caught:
                    use(mapping)
                raised.append(caught.type)
            assert raised[0] is raised[1]
        assert contents(stores[0]) == before

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

    def test_the_name_stays_bound_to_the_shared_dict(self, data: Any) -> None:
        same = data
        same |= {"a": 1}
        same |= [("b", 2)]
        same |= OnlyKeys()
        assert same is data
        assert data == {"a": 1, "b": 2, "k": "K"}

    def test_operators_give_plain_dicts(self, data: Any) -> None:
        data.update(a=1, b=2)
        assert data | {"b": 3, "c": 4} == {"a": 1, "b": 3, "c": 4}
        assert list({"b": 3, "c": 4} | data) == ["b", "c", "a"]
        assert type(data | {}) is type({} | data) is dict
        assert data == {"b": 2, "a": 1}
        assert data != {"a": 1}
        assert data == {"a": 1, "b": 2}
        assert data != [("a", 1)]
        assert data == Anything()
        assert data == ChainMap({"a": 1}, {"b": 2})
        with pytest.raises(TypeError):
            data | [1]
        with pytest.raises(TypeError):
            hash(data)

    def test_a_shared_global_that_is_stored_is_the_plain_object_that_it_stands_for(
        self, data: Any, theirs: Any
    ) -> None:
        data["a"] = 1
        data["itself"] = data
        data.update(again=data)
        data.setdefault("more", data)
        data["a"] = 2
        assert theirs["itself"] == {"a": 1}
        assert theirs["again"] == {"a": 1, "itself": {"a": 1}}
        assert type(data["itself"]) is not type(data)
        assert list(theirs["more"]) == ["a", "itself", "again"]

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

    def test_a_value_is_rebound_for_everybody(self, stores: list[Backend]) -> None:
        theme, their_theme = (SharedValue[Any]("T", store, secret=SECRET) for store in stores)
        assert theme.value is None
        for value in ("light", None, 0, [1]):
            theme.value = value
            assert their_theme.value == value

    @pytest.mark.parametrize("mode", ["read", "request", "manual"])
    def test_any_program_does_what_it_does_to_a_dict(
        self, open_store: Callable[[], Backend], mode: Mode
    ) -> None:
        stores = [open_store(), open_store()]

        class Machine(DictMachine):
            workers = tuple(shared_dict(store, mode) for store in stores)
            syncs_itself = mode != "manual"
            atomic = stores[0].atomic

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
