"""`Edit`: a private copy of a value of any type, committed if nobody has changed the value meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from ..errors import ConflictError, EncodingError
from ..replicas.base import Global, alike, private
from ..stores.base import ABSENT, Mark
from ..values import keys
from ..values.revision import Revision

V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")


class Edit(Generic[V]):
    """A context manager, and with ``retry`` a decorator; see `SharedDict.edit`."""

    def __init__(self, proxy: Global, key: Any, default: Any, retry: int | None) -> None:
        self._proxy = proxy
        self._key = key
        self._text = keys.to_string(key)
        self._default = default
        self._retry = retry
        self._value: Any = None
        self._before: Any = None
        self._expected: Revision | Mark = ABSENT
        self._is_running = False

    def __enter__(self) -> V:
        if self._is_running:
            raise RuntimeError(f"one edit of {self._key!r} can't be used twice at the same time")
        here = self._proxy._here()
        value, self._expected = here.newest(self._key, self._text)
        here.note_read(self._key, self._expected)
        self._value = private(self._key, value, self._default, here.store.holds_objects)
        # In a store of objects, compare with the stored object itself; a default is not there yet.
        before = self._default if value is ABSENT else value
        self._before = before if here.store.holds_objects else self._encoded(self._value)
        self._is_running = True
        return self._value  # type: ignore[no-any-return]

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        value, self._value, self._is_running = self._value, None, False
        if error_type is None and self._has_changed(value):
            with self._proxy._gate:
                self._proxy._here().commit({self._key: value}, {self._key: self._expected})

    def _has_changed(self, value: Any) -> bool:
        if self._proxy._here().store.holds_objects:
            return not alike(value, self._before)
        return self._before is None or self._encoded(value) != self._before

    def _encoded(self, value: Any) -> bytes | None:
        try:
            return self._proxy._here().codec.encode(self._proxy._name, self._text, value)
        except EncodingError:
            return None  # Another program may have written what this encoding would not.

    def __call__(self, function: Callable[Concatenate[V, P], R]) -> Callable[P, R]:
        """A function that is given the private copy before its own arguments."""
        if self._retry is None:
            raise TypeError("edit is a decorator only with retry=: how often the function may run again")
        retries = self._retry
        if retries < 0:
            raise ValueError(f"retry is {retries}; it must be 0 or more")

        @functools.wraps(function)
        def edited(*args: P.args, **kwargs: P.kwargs) -> R:
            for attempt in range(retries + 1):
                edit: Edit[V] = Edit(self._proxy, self._key, self._default, None)
                try:
                    with edit as value:
                        return function(value, *args, **kwargs)
                except ConflictError:
                    if attempt == retries:
                        raise
            raise AssertionError("unreachable")

        return edited
