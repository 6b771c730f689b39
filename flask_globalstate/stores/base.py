"""The contract of stores: all that states, replicas and proxies know of one.

A store holds names; a name holds entries, each under a key string (see `flask_globalstate.values.keys`).
What an entry holds is opaque to the store: bytes, or any object where ``holds_objects`` is true.
Each entry keeps the revision of the last commit that changed it, and its place in the order of creation.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NamedTuple, NoReturn, Protocol, runtime_checkable

from ..errors import ConfigurationError, ConflictError, UnsupportedOperationError
from ..system.directory import Directory
from ..values import keys
from ..values.envelope import INTEGER, integer_data, read_integer
from ..values.revision import Revision


class Mark(enum.Enum):
    """The words that stand in a write where there is no value or no revision."""

    DELETE = "delete"
    CHECK = "check"
    ABSENT = "absent"
    ANY = "any"

    def __repr__(self) -> str:
        return self.name


DELETE: Final = Mark.DELETE
CHECK: Final = Mark.CHECK
ABSENT: Final = Mark.ABSENT
ANY: Final = Mark.ANY

Expected = Revision | Literal[Mark.ABSENT]


class Write(NamedTuple):
    """One entry of a commit.

    :ivar name: the global.
    :ivar key: the key string in it.
    :ivar data: what to store, or `DELETE`, or `CHECK` (write nothing, only verify ``expected``).
    :ivar expected: the key's revision that this write depends on, `ABSENT`, or `ANY`.
    """

    name: str
    key: str
    data: Any
    expected: Revision | Mark = ANY


class Entry(NamedTuple):
    """The data under a key, and the number of the commit that last changed it.

    :ivar data: bytes, or an object where ``holds_objects`` is true.
    :ivar number: of that commit, an int.
    """

    data: Any
    number: int


class Fetched(NamedTuple):
    """An answer of `Store.fetch`.

    :ivar revision: the revision of the name, which the entries are of.
    :ivar entries: the entries that exist, by their key strings.
    """

    revision: Revision
    entries: dict[str, Entry]


class Changes(NamedTuple):
    """An answer of `Store.changes`.

    :ivar revision: the revision of the name.
    :ivar changed: for each key written since, the number of the commit that last wrote it.
    :ivar removed: for each key removed since, the number of the commit that last removed it, also
        when it was written again later and so stands at another place in the order.
    :ivar reset: the log doesn't reach back to what was asked; forget everything.
    :ivar entries: what is held under some of the changed keys at that revision: none of them must be
        here, and those are which would cost another round trip and are small.
    """

    revision: Revision
    changed: dict[str, int]
    removed: dict[str, int]
    reset: bool = False
    entries: Mapping[str, Entry] = MappingProxyType({})


class Backend(ABC):
    """A place where data lives: what states and proxies ask of every kind.

    Every method is safe to call from any thread. A backend survives a fork: the child makes connections and
    locks of its own. A constructor only parses and checks; it opens nothing.
    """

    #: visible to other processes
    shared: bool = False
    #: data outlives the process
    durable: bool = False
    #: entries are the objects themselves, not bytes
    holds_objects: bool = False
    #: a change that depends on what is there (increment, compare_and_set) is atomic for all who share it
    atomic: bool = True
    #: commits may depend on revisions, so that there are transactions
    conditional: ClassVar[bool] = False
    #: which replicas its names have: one of ``flask_globalstate.replicas.factory.REPLICAS``
    replica_kind: ClassVar[str]

    #: the class that only looks at the data of such a store, and is made from one, as
    #: ``"package.module:Class"``: it starts nothing, takes no lease, and keeps no writer waiting; None where
    #: the store itself can be used for that
    spectator: ClassVar[str | None] = None
    #: one that is private to the process is an error, not a warning, under several workers
    strict: bool = False
    #: several states live side by side in one backend; what is signed is signed for one of them
    state_id: str = "default"
    #: pickles may be written and read unsigned
    unsigned_pickles: bool = False

    @property
    def label(self) -> str:
        """The name of it in errors and the log, a str without secrets."""
        return type(self).__name__

    def open(self) -> None:
        """Get ready now rather than at first use; leave no connection open, so that the caller may fork.

        What needs no preparation has nothing to do here.

        :raises StoreUnavailableError: if it can't be brought up.
        """
        return

    @abstractmethod
    def ping(self) -> None:
        """Ask once whether it can be reached, on a connection that is closed again.

        :raises StoreUnavailableError: if it can't.
        """

    def check(self) -> None:
        """Raise now what would be raised at first use; leave nothing open and write nothing.

        :raises ConfigurationError: if what it was given can't be used.
        :raises StoreUnavailableError: if it can't be reached.
        """
        self.ping()

    @abstractmethod
    def close(self) -> None:
        """Give back connections, leases and files of this process. The next call opens them again."""

    @abstractmethod
    def names(self) -> list[str]:
        """The names that some process has written, and none has dropped since.

        :returns: each name once, a str, in any order.
        :raises StoreUnavailableError: if it can't be reached.
        """

    def secret(self) -> bytes | None:
        """A secret that is kept here for all its users, such as one in a private file.

        :returns: bytes that sign what is stored, or None if it keeps none.
        :raises StoreUnavailableError: if it can't be reached.
        """
        return None

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for what this backend can't do.

        :param what: it in words, such as "tell revisions".
        :raises UnsupportedOperationError: always, naming this backend and ``what``.
        """
        raise UnsupportedOperationError(f"{self.label} can't {what}")


class Store(Backend):
    """A backend that commits, and tells revisions.

    Every method is linearizable, and raises `StoreUnavailableError` when the store can't be reached.
    """

    conditional = True
    replica_kind = "revisions"
    #: every client is on this host, so that a seqcount in shared memory can tell of changes
    host_local: ClassVar[bool] = False
    #: how many values of a name a replica keeps; None for all that were read
    cache_size: int | None = None

    @abstractmethod
    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        """Apply a batch, all of it or nothing; nobody sees a part of it.

        :param writes: a `Write` for each entry: at most one for each key of each name.
        :param names: for whole names, the revision that the batch depends on; `ABSENT` is a name that
            was never written.
        :returns: the `Revision` of this commit; that of the store as it is, if the batch only checks.
        :raises ConflictError: naming what differed; nothing was written.
        :raises StoreUnavailableError: if the store can't be reached; its ``may_be_written`` says whether
            the batch may have been applied all the same.
        """

    @abstractmethod
    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        """Entries of a name, all of one revision; one round trip.

        :param name: the name, a str.
        :param keys: key strings, in any order; None for all that there are.
        :returns: the revision, and those of the entries that exist; all of them in the order of creation.
        :raises StoreUnavailableError: if the store can't be reached.
        """

    @abstractmethod
    def keys(self, name: str) -> tuple[Revision, list[str]]:
        """The keys of a name, in the order of creation; one round trip.

        :param name: the name, a str.
        :returns: the revision of the name, and its key strings.
        :raises StoreUnavailableError: if the store can't be reached.
        """

    @abstractmethod
    def drop(self, name: str) -> Revision:
        """Remove every entry of a name in one commit. That it existed, and its revision, remain.

        :param name: the name, a str.
        :returns: the `Revision` of this commit.
        :raises StoreUnavailableError: as of `commit`.
        """

    @abstractmethod
    def changes(self, name: str, since: Revision) -> Changes:
        """The keys of a name that changed after a revision: all of them, or a reset.

        :param name: the name, a str.
        :param since: a revision of the name that the caller was told of before.
        :returns: what changed, and the revision that it brings the caller to.
        :raises StoreUnavailableError: if the store can't be reached.
        """

    @abstractmethod
    def revision(self, name: str) -> Revision:
        """The revision of a name: the cheapest check for changes.

        :param name: the name, a str.
        :returns: the `Revision` of the last commit that changed it; its number is 0 if there was none.
        :raises StoreUnavailableError: if the store can't be reached.
        """

    def revisions(self, names: Sequence[str]) -> list[Revision]:
        """The revisions of several names; a store that can do so answers in one round trip.

        :param names: the names, each a str.
        :returns: their revisions, in the same order.
        :raises StoreUnavailableError: if the store can't be reached.
        """
        return [self.revision(name) for name in names]

    def increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        """Add to an integer in one commit; exact, however many workers do it at once.

        :param name: the name, a str.
        :param key: the key string in it; one that is absent counts as 0.
        :param amount: what to add, an int of any size.
        :returns: the revision of the commit, and the new value.
        :raises TypeError: if what is stored is not an integer; nothing was written.
        :raises StoreUnavailableError: as of `commit`.
        """
        while True:
            revision, entries = self.fetch(name, [key])
            entry = entries.get(key)
            value = amount if entry is None else self._read_integer(name, key, entry.data) + amount
            expected = ABSENT if entry is None else Revision(revision.epoch, entry.number)
            try:
                return self.commit([Write(name, key, self._integer_data(value), expected)]), value
            except ConflictError:
                continue

    def watch(self, name: str) -> memoryview | None:
        """Words of shared memory that change whenever a name does.

        :param name: the name, a str.
        :returns: a view of the memory, or None if there is none, or the store isn't up.
        """
        return None

    def is_idle(self, name: str, row: memoryview) -> bool:
        """Return whether the words of a name were read while no commit was under way.

        :param name: the name, a str.
        :param row: a copy of what `watch` gave.
        :returns: True if the copy can be trusted.
        """
        return True

    def _integer_data(self, value: int) -> Any:
        return value if self.holds_objects else integer_data(value)

    def _read_integer(self, name: str, key: str, data: Any) -> int:
        if self.holds_objects:
            if type(data) is int:
                return data
        elif data[-1:] == INTEGER:
            with suppress(ValueError):
                return read_integer(data[:-1])
        raise not_an_integer(name, key)


@runtime_checkable
class Leased(Protocol):
    """A backend with a directory of which each client process holds a lease, and a server's master may."""

    @property
    def leased_directory(self) -> Directory:
        """The directory in which the leases are."""
        ...


@runtime_checkable
class SealsForeign(Protocol):
    """A backend that other programs may write bare pickles to, while nobody uses it.

    :ivar seal_foreign: seals one, given name, key and pickle; set by whoever opens the backend.
    """

    seal_foreign: Callable[[str, str, bytes], bytes] | None


def newer_format(place: str, found: int, known: int) -> ConfigurationError:
    """The error for what a newer release has stored, and this one can't read.

    :param place: what the error calls it.
    :param found: the number of the format that it is in.
    :param known: the newest format that this release reads.
    :returns: the error, to be raised.
    """
    return ConfigurationError(
        f"{place} is stored in format {found}, and this release of flask-globalstate knows formats up to "
        f"{known}; upgrade it in every process that uses this store, or choose another store"
    )


def require_revision(name: str, key: str | None, expected: Expected, epoch: str, found: int | None) -> None:
    """Return if an entry, or a whole name, is at the revision that a commit depends on; else raise.

    :param name: the name, a str.
    :param key: the key string, or None for the name.
    :param expected: the revision that it must be at, or `ABSENT`.
    :param epoch: of the store.
    :param found: the number of the entry or of the name, or None if there is none.
    :raises ConflictError: if it is at another one.
    """
    if expected is ABSENT:
        holds = found is None
    else:
        # A name that was never written is at revision 0.
        holds = expected == (epoch, 0 if found is None and key is None else found)
    if not holds:
        wanted = "absent" if expected is ABSENT else expected.number
        raise ConflictError(name, user_key(key), wanted, "absent" if found is None else found)


def user_key(text: str | None) -> Any:
    """The key that a key string stands for, for an error.

    :param text: the key string, or None.
    :returns: the key; the text itself, if it stands for none.
    """
    try:
        return None if text is None else keys.from_string(text)
    except ValueError:
        return text


def not_an_integer(name: str, key: str) -> TypeError:
    """The error for an increment of something that is not an integer.

    :param name: the name, a str.
    :param key: the key string in it.
    :returns: an error to raise.
    """
    return TypeError(f"key {key!r} of {name!r} does not hold an integer, and can't be incremented")
