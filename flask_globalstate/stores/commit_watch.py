"""Commits counted in shared memory, so that readers on the same host see that nothing was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ..errors import StoreUnavailableError
from ..system import forks
from ..system.seqcount import Commit, Fence, Seqcount, open_seqcount
from ..system.seqcount_file import bucket_of
from ..values import keys


class CommitWatch:
    """The seqcount of one store, in this process.

    A store calls `use` when it learns the id of its seqcount, `prepare` before each write, and holds `commit`
    while it writes.

    :param directory: where the file is.
    :param timeout: seconds to wait for a slot.
    :param get_ready: called before a slot is claimed, and when none could be: has called `use` when it
        returns, and raises if the directory is not the one that was in use.
    :param fence: called with the slot of a dead process; returns when no commit of it can happen any more.
    :param resolve: called with a commit of this process that was left without an end; returns when it has
        happened, or can't happen any more.
    :param is_exclusive: whether no two processes hold `commit` at once, so that a slot which is claimed there
        needs no fencing.
    :param prefix: of every name, where several states count in one file.
    """

    def __init__(
        self,
        directory: Path,
        timeout: float,
        *,
        get_ready: Callable[[], None],
        fence: Fence,
        resolve: Callable[[Commit], None],
        is_exclusive: bool = False,
        prefix: bytes = b"",
    ) -> None:
        #: what the store says of the seqcount, once it was asked; there may be none
        self.identity: str | None = None
        self.seqcount: Seqcount | None = None
        self._directory = directory
        self._timeout = timeout
        self._get_ready = get_ready
        self._fence = fence
        self._fence_in_commit = _fence_nothing if is_exclusive else fence
        self._resolve = resolve
        self._prefix = prefix
        self._first: dict[str, tuple[str, Seqcount | None]] = {}
        self._buckets: dict[str, int] = {}

    def use(self, identity: str) -> bool:
        """Map the seqcount of that id; return True if the first call says that nothing is counted.

        :raises StoreUnavailableError: if it can't be mapped, or another one was in use before.
        """
        is_first = self.identity is None
        if is_first:
            # One of two threads that come first gives its own to the other, in one step: no lock is held
            # where an exception of a signal handler could come, or the handler itself.
            first = self._first.setdefault(
                "first", (identity, open_seqcount(self._directory, identity, self._timeout))
            )
            # In this order: where the id is known, everything is counted.
            self.seqcount = first[1]
            self.identity = first[0]
        if self.identity != identity:
            raise StoreUnavailableError(
                f"the seqcount file of {self._directory} was made anew while this process had the older one; "
                "restart the application"
            )
        return is_first and self.seqcount is None

    @property
    def is_possible(self) -> bool:
        """True where commits are counted, as far as is known."""
        return self.identity is None or self.seqcount is not None

    def bucket(self, name: str) -> int:
        """The number of the row that a name counts in."""
        found = self._buckets.get(name)
        if found is None:
            found = self._buckets[name] = bucket_of(self._prefix + keys.to_bytes(name))
        return found

    # --- reading --------------------------------------------------------------------------------

    def row(self, name: str) -> memoryview | None:
        """Words of memory that change whenever ``name`` does, if there are such."""
        seqcount = self.seqcount
        return None if seqcount is None else seqcount.row(self.bucket(name))

    is_idle = staticmethod(Seqcount.is_idle)

    def end_abandoned(self, name: str) -> None:
        """Resolve the commits that this process has left in doubt, and repair the counts of dead processes.

        :param name: whose row was not idle.
        """
        seqcount = self.seqcount
        assert seqcount is not None
        forks.notice_fork()
        seqcount.resolve(self._resolve)
        for slot in seqcount.unfinished(self.bucket(name)):
            seqcount.repair(slot, self._fence)

    # --- writing --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Claim a slot, and resolve what an earlier write has left in doubt.

        :raises StoreUnavailableError: if that can't be.
        """
        if self.identity is None:
            self._get_ready()
            assert self.identity is not None, "what is written now would be counted nowhere"
        seqcount = self.seqcount
        if seqcount is None:
            return
        seqcount.resolve(self._resolve)
        if seqcount.slot is None:
            self._claim(seqcount)

    def _claim(self, seqcount: Seqcount) -> None:
        self._get_ready()
        try:
            seqcount.claim(self._fence)
        except StoreUnavailableError:
            self._get_ready()  # Says so, if that is because the directory was removed.
            raise

    def commit(self, names: Iterable[str], in_doubt: Sequence[Any] = ()) -> AbstractContextManager[None]:
        """Give what to hold in a ``with`` statement: readers see meanwhile that a commit is under way.

        :param in_doubt: where there is something at its end, it is not known whether the commit was made;
            ``resolve`` finds it out.
        """
        seqcount = self.seqcount
        if seqcount is None:
            return nullcontext()
        return seqcount.commit([self.bucket(name) for name in names], self._fence_in_commit, in_doubt)

    # --- life -----------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Leave the parent's slot to the parent."""
        if self.seqcount is not None:
            self.seqcount.after_fork()

    def close(self) -> None:
        """Give the slot back, as soon as nothing is under way."""
        if self.seqcount is not None:
            self.seqcount.close()


def _fence_nothing(slot: int) -> None:
    pass
