"""The replica of a name that a dict-like object holds: nothing is kept, each read asks the object."""

from __future__ import annotations

from typing import Any

from ..stores.base import ABSENT
from ..stores.custom import DictLikeStore
from ..values.revision import Revision
from .objects import ObjectReplica


class PassThrough(ObjectReplica):
    """In every mode."""

    store: DictLikeStore

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.remembered = self.row

    def refresh(self) -> None:
        """Nothing is cached that could be stale."""

    def sync(self) -> None:
        """Nothing is cached that could be stale."""

    # --- reading --------------------------------------------------------------------------------

    def order(self) -> dict[Any, None]:
        with self.store.lock():
            found = self._object()
            return dict.fromkeys(found if self.store.holds_mappings else found.to_dict())

    def snapshot(self) -> dict[Any, Any]:
        with self.store.lock():
            found = self._object()
            if not self.store.holds_mappings:
                return dict(found.to_dict())
            try:
                return dict(found.items())
            except KeyError:
                # items() asks for each key again, and another process may have removed one meanwhile.
                items = {key: self._data(key, "") for key in list(found)}
                return {key: value for key, value in items.items() if value is not ABSENT}

    def holds(self, key: Any, value: Any) -> bool:
        with self.store.lock():
            return self._data(key, "") is value

    def show_own(self, key: Any, revision: Revision, value: Any, is_mutable: bool) -> None:
        """What was written is in the object."""

    def _has(self, key: Any, text: str) -> bool:
        return key in self._object()

    def _find(self, key: Any, text: str) -> Any:
        return self._data(key, text)

    def _data(self, key: Any, text: str) -> Any:
        found = self._object()
        # Asked first: what get gives for a missing key is up to the class.
        if key not in found:
            return ABSENT
        try:
            value = found[key] if self.store.holds_mappings else found.get(key)
        except KeyError:
            return ABSENT
        # Another process may have removed it in between.
        return ABSENT if value is None and key not in found else value

    # --- writing --------------------------------------------------------------------------------

    def _put(self, key: Any, text: str, data: Any) -> None:
        self._object()[key] = data

    def _put_if_absent(self, key: Any, text: str, data: Any) -> None:
        found = self._object()
        if self.store.shared and hasattr(found, "setdefault"):
            found.setdefault(key, data)
        elif key not in found:
            found[key] = data

    def _drop(self, key: Any, text: str) -> None:
        del self._object()[key]

    def _take(self, key: Any, text: str) -> Any:
        value = self._data(key, text)
        if value is ABSENT:
            return ABSENT
        found = self._object()
        try:
            if self.store.shared and hasattr(found, "pop"):
                return found.pop(key)
            del found[key]
        except KeyError:
            return ABSENT  # Another process came first.
        return value

    def _empty(self) -> None:
        self._object().clear()


PASS_THROUGH: dict[str, type[Any]] = dict.fromkeys(("request", "read", "manual"), PassThrough)
