"""Looking at a shelve store: nothing is made, no lease is taken, and writers are not kept waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

from ...errors import StoreUnavailableError, UnsupportedOperationError
from .absent import NoFile
from .errors import errors
from .file import OpenFile
from .store import ShelveStore

T = TypeVar("T")


class ShelveSpectator(ShelveStore):
    """The files of a shelve store, for reading only.

    What another program has written there is not seen before a worker has taken it over, and a commit over
    several names may be seen in one of them first.

    :param store: the store that is looked at, which is not opened by that.
    """

    spectator = None

    def __init__(self, store: ShelveStore) -> None:
        super().__init__(store._root.path, state_id=store.state_id, timeout=store._timeout)

    def names(self) -> list[str]:
        self._prepare()
        with errors(self._folder.path):
            return list(self._connections.names(as_it_is=True))

    def _prepare(self) -> None:
        with errors(self._root.path):
            if self._root.path.is_dir():
                self._root.require_owner()
            if not self._internal.path.is_dir():
                raise StoreUnavailableError(f"{self._folder.path} holds no shelve store yet")
            self._header.require_known_format()
            self._header.read()

    def _read(self, name: str, read: Callable[[OpenFile | NoFile], T]) -> T:
        self._prepare()
        with self._connections.open(name, as_it_is=True) as file:
            return read(file)

    def _writing(self) -> NoReturn:
        raise UnsupportedOperationError("who only looks at a store can't write to it")
