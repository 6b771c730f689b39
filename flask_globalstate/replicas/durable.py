"""The replica of a name that a `DurableStore` object holds: loaded whole when ``last_updated()`` differs.

The entries are kept as they were loaded, and opened when they are read: so one that can't be decoded
breaks no other. ``last_updated()`` is asked before ``durables()``: a write in between makes the next
sync load again. A write of one's own is noted here too, so that it is seen before the next sync; where the
class encodes by itself, what it has made of the value is not known, and the next read loads again in any
mode. In ``manual`` mode it does so after every write, or what is shown would be of no moment: new what was
written here, and old what others have written before that.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

from ..stores.base import ABSENT
from ..stores.custom import AdaptedStore
from ..system.clock import now
from ..values import keys
from ..values.revision import Revision
from .base import NEVER, stored_key
from .objects import ObjectReplica, mark_of
from .requests import Request, request_here


class ReloadedReplica(ObjectReplica):
    """``read`` mode: ``last_updated()`` is asked at each read."""

    def __init__(self, name: str, store: AdaptedStore, *arguments: Any, **named: Any) -> None:
        super().__init__(name, store, *arguments, **named)
        self._entries: dict[str, Any] = {}
        # What it was loaded from, and when that was last updated.
        self._loaded_from: Any = None
        self._updated: Any = None
        #: whether what is in the object is known to be, or may be, something else than what is here
        self._must_load = False

    # --- freshness ------------------------------------------------------------------------------

    def refresh(self) -> None:
        if self._loaded_from is None:
            self.sync()
            return
        with self._outage.tolerated():
            self.sync()

    def sync(self) -> None:
        with self.store.lock():
            found = self._object()
            # Asked before the content: a write in between must make us load again.
            updated = found.last_updated()
            is_the_same = found is self._loaded_from and updated is not None and updated == self._updated
            if self._must_load or not is_the_same:
                self._must_load = True  # Until it is done.
                self._keep(dict(found.durables()))
                self._loaded_from, self._updated, self._must_load = found, updated, False

    def _keep(self, entries: dict[str, Any]) -> None:
        """Take over what was loaded; what was opened of it stays if it is the same."""
        texts = {key: keys.to_string(key) for key in self.values}
        # First, and so that it fits both the old entries and the new: a fork may come in between.
        self.values = {
            key: value
            for key, value in self.values.items()
            if _are_same_bytes(self._entries.get(texts[key]), entries.get(texts[key]))
        }
        self._entries = entries

    # --- reading --------------------------------------------------------------------------------

    def order(self) -> dict[Any, None]:
        self.refresh()
        with self.store.lock():
            return dict.fromkeys(stored_key(self.name, text) for text in self._entries)

    def snapshot(self) -> dict[Any, Any]:
        self.refresh()
        with self.store.lock():
            texts = {stored_key(self.name, text): text for text in self._entries}
            return {key: self._find(key, text) for key, text in texts.items()}

    def holds(self, key: Any, value: Any) -> bool:
        return self.values.get(key) is value

    def _has(self, key: Any, text: str) -> bool:
        return text in self._entries

    def _find(self, key: Any, text: str) -> Any:
        if text not in self._entries:
            return ABSENT
        if key not in self.values:
            value, mark = self._value(key, text), mark_of(self._entries[text])
            if self._wrap is not None and isinstance(mark, Revision):
                value, _ = self._wrap(key, value, mark, None)
            self.values[key] = value
        return self.values[key]

    def _data(self, key: Any, text: str) -> Any:
        return self._entries.get(text, ABSENT)

    # --- writing --------------------------------------------------------------------------------

    def show_own(self, key: Any, revision: Revision, value: Any, is_mutable: bool) -> None:
        with self.store.lock():
            if mark_of(self._data(key, keys.to_string(key))) == revision:
                self.values[key] = value

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call what writes, and let every worker know."""
        try:
            return method(*arguments)
        except BaseException:
            self._forget_all()  # What it has done nobody knows.
            raise
        finally:
            found = self._object()
            if found.cache is not None:
                found.touch_last_updated()

    def _put(self, key: Any, text: str, data: Any) -> None:
        self._call(self._object().persist, text, data)
        self._note(key, text, data)

    def _put_if_absent(self, key: Any, text: str, data: Any) -> None:
        if text in self._entries:
            return
        set_default = getattr(self._object(), "_setdefault", None)
        if set_default is None:
            self._put(key, text, data)
        else:
            self._note(key, text, self._call(set_default, text, data))

    def _drop(self, key: Any, text: str) -> None:
        self._call(self._object().depersist, text)
        self._note(key, text, ABSENT)

    def _take(self, key: Any, text: str) -> Any:
        value = self._value(key, text)
        pop = getattr(self._object(), "_pop", None)
        if value is ABSENT or pop is None:
            if value is not ABSENT:
                self._drop(key, text)
            return value
        missing = ABSENT if self.store.holds_objects else None
        try:
            data = self._call(pop, text, missing)
        except KeyError:
            data = missing
        self._note(key, text, ABSENT)
        return ABSENT if data is missing else self.codec.open(self.name, text, data)

    def _empty(self) -> None:
        for text in list(self._entries):
            self._drop(stored_key(self.name, text), text)

    def _note(self, key: Any, text: str, data: Any) -> None:
        """Remember what was written here, or `ABSENT`, until the next load."""
        self.values.pop(key, None)
        if data is ABSENT:
            self._entries.pop(text, None)
        else:
            self._entries[text] = data
        if self.store.holds_objects:
            self._forget_all()

    def _forget_all(self) -> None:
        """Let the next read load again, whatever the mode."""
        self._must_load = True


class RequestReloaded(ReloadedReplica):
    """``request`` mode: asked at the first read in a request, and again when that is old; outside of one at
    each read.
    """

    def __init__(self, name: str, store: AdaptedStore, *arguments: Any, **named: Any) -> None:
        super().__init__(name, store, *arguments, **named)
        self._asked_at: WeakKeyDictionary[Request, float] = WeakKeyDictionary()

    def refresh(self) -> None:
        request, at = request_here(), now()
        if request is None or self._must_load:
            super().refresh()
        elif at - self._asked_at.get(request, -inf) >= self._staleness.limit:
            super().refresh()
            self._asked_at[request] = at


class ManualReloaded(ReloadedReplica):
    """``manual`` mode: loaded at first use, and by ``sync()``; reads never ask."""

    def refresh(self) -> None:
        if self._loaded_from is None or self._must_load:
            self.sync()

    def sync(self) -> None:
        with self.store.lock():
            super().sync()
            # What a hit compares is equal from now on.
            self.remembered = self.row

    def _note(self, key: Any, text: str, data: Any) -> None:
        super()._note(key, text, data)
        self._forget_all()

    def _forget_all(self) -> None:
        super()._forget_all()
        self.remembered = NEVER


def _are_same_bytes(old: Any, new: Any) -> bool:
    # Of other types a comparison may cost anything, or fail.
    return type(old) is bytes and type(new) is bytes and old == new


RELOADED: dict[str, type[Any]] = {
    "request": RequestReloaded,
    "read": ReloadedReplica,
    "manual": ManualReloaded,
}
