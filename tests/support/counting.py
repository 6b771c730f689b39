"""Clients of one file of counters, and commits that have begun."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from flask_globalstate import GlobalState
from flask_globalstate.system.seqcount import Seqcount
from tests.support import PATIENCE


def nobody(slot: int) -> None:
    """Stands for making sure that a dead owner's commit can't happen; here there is none."""


def open_in(directory: Path, identity: str) -> Seqcount:
    """Another client of the file in a directory."""
    return Seqcount(directory, identity, timeout=PATIENCE)


class Begun:
    """A commit that has begun, and whose block is not left until `end` is called, or this goes away."""

    def __init__(
        self,
        seqcount: Seqcount,
        buckets: Iterable[int],
        fence: Callable[[int], None] = nobody,
        in_doubt: Sequence[Any] = (),
    ) -> None:
        self.commit = seqcount.commit(buckets, fence, in_doubt)
        self._exit = self.commit.__exit__
        self.commit.__enter__()

    def end(self) -> None:
        self._exit(None, None, None)


def count(seqcount: Seqcount, *buckets: int) -> None:
    """A commit from its beginning to its end."""
    Begun(seqcount, buckets).end()


def die(seqcount: Seqcount) -> None:
    """What the kernel does at the end of a process."""
    assert seqcount._slot is not None
    seqcount._slot.close()


def row(seqcount: Seqcount, bucket: int) -> memoryview:
    return memoryview(seqcount.row(bucket).tobytes()).cast("Q")


def is_idle(seqcount: Seqcount, bucket: int) -> bool:
    return seqcount.is_idle(row(seqcount, bucket))


def in_child(body: Callable[[], Any]) -> int:
    """Run something in a forked child; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def end(state: GlobalState) -> None:
    """Close the last state on a store, and wait for the end of its server."""
    server = state.store._server  # type: ignore[attr-defined]
    state.close()
    assert server.gone(PATIENCE)
