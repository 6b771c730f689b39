"""Moving a state from one store to another, with its data, while it is in use.

What the new store holds already stays as it is, name by name; the old store is left as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import ConflictError, EncodingError
from ..replicas.base import Access
from ..replicas.factory import make_replica
from ..stores.base import ABSENT, DELETE, Backend, Entry, Store, Write
from ..values.envelope import Codec
from ..values.revision import Revision

logger = logging.getLogger("flask_globalstate")

#: what was written where, to be undone
Done = list[tuple[Access, Any]]


class Move:
    """Copies all names of one store to another.

    Others may write to the old store while `begin` runs; `finish` copies what they have written since, and
    nothing may be written from then on until the new store is used. Either may be called again after it has
    failed, and continues from there.

    :param old: the store to copy from, and the codec that opens its values.
    :param new: the store to copy to, and the codec that seals them.
    """

    def __init__(self, old: tuple[Backend, Codec], new: tuple[Backend, Codec]) -> None:
        self._old, self._old_codec = old
        self._new, self._new_codec = new
        #: both, if both know revisions
        self._stores: tuple[Store, Store] | None = None
        if isinstance(self._old, Store) and isinstance(self._new, Store):
            self._stores = self._old, self._new
        #: the names that were copied, each with the revision of the old store that the copy is of
        self._copied: dict[str, Revision] = {}
        self._kept: set[str] = set()

    def begin(self) -> None:
        """Copy what `finish` can bring up to date later.

        :raises EncodingError: for a value that the new store can't take, naming its key; nothing was written.
        """
        if self._stores is not None:
            self._copy_at_once(*self._stores)

    def finish(self) -> None:
        """Copy the rest; both stores hold the same then, as long as nobody writes.

        :raises EncodingError: as `begin`.
        """
        if self._stores is None:
            self._copy_one_by_one()
            return
        # Until nothing is left: another process may write meanwhile, this one doesn't.
        self._copy_at_once(*self._stores)
        while self._copy_changes(*self._stores):
            self._copy_at_once(*self._stores)

    # --- between stores that know revisions -------------------------------------------------------

    def _copy_at_once(self, old: Store, new: Store) -> None:
        """Copy all names in one commit, so that nobody on the new store sees a part of them."""
        writes: dict[str, list[Write]] = {}
        revisions: dict[str, Revision] = {}
        for name in set(old.names()) - self._copied.keys() - self._kept:
            revisions[name], entries = old.fetch(name)
            writes[name] = [self._write(name, key, entry) for key, entry in entries.items()]
        while writes:
            try:
                new.commit([w for name in writes for w in writes[name]], dict.fromkeys(writes, ABSENT))
                self._copied.update({name: revisions[name] for name in writes})
                return
            except ConflictError as error:
                self._keep(error.name)
                del writes[error.name]

    def _keep(self, name: str) -> None:
        logger.info("%s: kept what the new store holds already", name)
        self._kept.add(name)

    def _copy_changes(self, old: Store, new: Store) -> bool:
        """Copy what was changed since; whether there was anything."""
        writes: list[Write] = []
        revisions: dict[str, Revision] = {}
        for name, since in self._copied.items():
            changes = old.changes(name, since)
            if changes.revision == since:
                continue
            _, entries = old.fetch(name)
            touched = {*changes.changed, *changes.removed}
            if changes.reset:
                touched = {*entries, *new.keys(name)[1]}
            for key in sorted(touched):
                held = entries.get(key)
                writes.append(Write(name, key, DELETE) if held is None else self._write(name, key, held))
            revisions[name] = changes.revision
        if writes:
            new.commit(writes)
        self._copied.update(revisions)
        return bool(writes)

    def _write(self, name: str, key: str, entry: Entry) -> Write:
        value = self._old_codec.open(name, key, entry.data)
        return Write(name, key, self._new_codec.seal(name, key, value))

    # --- to or from objects of a user's class -----------------------------------------------------

    def _copy_one_by_one(self) -> None:
        done: Done = []
        try:
            for name in self._old.names():
                items = self._access(self._old, self._old_codec, name).snapshot()
                target = self._access(self._new, self._new_codec, name)
                if target.order():
                    self._keep(name)
                else:
                    self._put(name, target, items, done)
        except BaseException:
            for target, key in reversed(done):
                target.commit({key: DELETE})
            raise

    def _put(self, name: str, target: Access, items: Mapping[Any, Any], done: Done) -> None:
        for key, value in items.items():
            try:
                target.commit({key: value})
            except Exception as error:
                raise EncodingError(
                    f"key {key!r} of {name!r}: {self._new.label} refuses this value of type "
                    f"{type(value).__qualname__} ({type(error).__name__}); nothing was moved"
                ) from error
            done.append((target, key))

    def _access(self, store: Backend, codec: Codec, name: str) -> Access:
        return make_replica("read", name, store, codec)
