"""The laws of values that can't be stored, or can't be read again."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..errors import DecodingError, EncodingError
from ..stores.base import Backend, Write
from .excuses import needs
from .workers import NAME, TwoWorkers, contents


class Unreadable:
    """Can be pickled and not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


class EncodingLaws(TwoWorkers):
    """A part of `DictSuite`."""

    @needs("encoding")
    def test_a_value_that_cant_be_encoded_is_an_error_and_nothing_is_written(
        self, data: Any, stores: list[Backend]
    ) -> None:
        data["a"] = 1
        before = contents(stores[0])
        generator: Iterator[int] = (n for n in range(0))
        unwritable: list[Any] = [lambda: 1, Unreadable(), [Unreadable()], generator]
        for bad in unwritable:
            writes: list[Callable[[], Any]] = [
                lambda bad=bad: data.__setitem__("a", bad),  # type: ignore[misc]
                lambda bad=bad: data.update(b=1, c=bad),  # type: ignore[misc]
                lambda bad=bad: data.setdefault("d", bad),  # type: ignore[misc]
            ]
            if stores[0].atomic:
                writes.append(lambda bad=bad: data.compare_and_set("a", 1, bad))  # type: ignore[misc]
            for write in writes:
                with pytest.raises(EncodingError, match=NAME):
                    write()
        assert contents(stores[0]) == before

    @needs("encoding")
    def test_an_object_whose_class_is_in_main_is_refused(
        self, data: Any, stores: list[Backend], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        thing = type("Thing", (), {"__module__": "__main__", "__qualname__": "Thing"})
        monkeypatch.setattr(sys.modules["__main__"], "Thing", thing, raising=False)
        for bad in (thing(), thing, [thing()]):
            assert pickle.dumps(bad)
            with pytest.raises(EncodingError, match="__main__"):
                data["a"] = bad
        assert dict(data) == {}

    @needs("encoding", "revisions")
    def test_an_entry_that_cant_be_decoded_can_be_deleted(self, data: Any, stores: list[Any]) -> None:
        data.update(a=1, b=2)
        stores[0].commit([Write(NAME, "b", b"damaged")])
        del data["b"]
        assert dict(data) == {"a": 1}
        with pytest.raises(KeyError):
            del data["b"]

    @needs("encoding", "revisions")
    def test_an_entry_that_cant_be_decoded_breaks_no_other(
        self, data: Any, theirs: Any, stores: list[Any]
    ) -> None:
        data.update(a=1, b=2, c=3)
        stores[0].commit([Write(NAME, "b", b"damaged")])
        with pytest.raises(DecodingError, match="'b'"):
            theirs["b"]
        assert (theirs["a"], theirs["c"], len(theirs), list(theirs)) == (1, 3, 3, ["a", "b", "c"])
        assert "b" in theirs
        theirs["b"] = 5
        assert dict(data) == {"a": 1, "b": 5, "c": 3}
