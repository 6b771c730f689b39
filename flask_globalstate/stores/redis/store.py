"""A store on a Redis (or Valkey) server that several hosts can share.

Each operation is one Lua script, one round trip. All keys of a state share one hash tag, so that a cluster
keeps them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import ConfigurationError, ConflictError, UnsupportedOperationError
from ...system import forks
from ...values import keys as keys_module
from ...values.revision import Revision
from .. import require
from ..base import ABSENT, ANY, CHECK, DELETE, Changes, Expected, Fetched, Store, Write, not_an_integer
from ..commit_watch import CommitWatch
from . import scripts
from .runner import ScriptRunner
from .scripts import CHANGES, COMMIT, FETCH, INCREMENT, PUT, REVISIONS
from .session import Sessions
from .settings import connection_settings

REMOVALS_KEPT = 1000
#: a bulk of the protocol is limited to 512 MiB; 8 bytes of it are the revision
LARGEST_VALUE = 512 * 1024 * 1024 - 8
#: the protocol takes 1024 * 1024 arguments
MOST_ARGUMENTS = 1_000_000
#: how many changed values come along with a sync, and how many bytes each may have
ALONG = (b"16", b"1024")
#: how what is kept of a name ends, while it is not dropped
LIVE = b"\1"
OPERATIONS = {DELETE: b"d", CHECK: b"c"}


class RedisStore(Store):
    """A Redis server that several processes and hosts share.

    :param url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
    :param state_id: several states live side by side in one server.
    :param client: an existing ``redis.Redis``, whose settings are taken.
    :param socket_timeout: seconds to wait for an answer.
    :param allow_eviction: use a server that removes keys of any kind when its memory is full: then what is
        shared may be lost at any time, and every worker notices.
    :param unsigned_pickles: trust whoever can write to the server with running code in every worker.
    :param options: any other keyword argument of ``redis.Redis``: ``host``, ``port``, ``db``, ``password``...
    :raises ConfigurationError: for a URL or an option that redis-py doesn't know.
    :raises MissingDependencyError: if redis-py is not installed.
    """

    shared = True
    durable = True
    #: counts its commits, where every client is on this host
    _watch: CommitWatch | None = None

    def __init__(
        self,
        url: str | None = None,
        *,
        state_id: str = "default",
        client: Any = None,
        socket_timeout: float = 5.0,
        unsigned_pickles: bool = False,
        allow_eviction: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(state_id, str) or not state_id or set("{}") & set(state_id):
            raise ConfigurationError(f"STORE_ID must not be empty or hold braces, not {state_id!r}")
        self.state_id = state_id
        self.unsigned_pickles = unsigned_pickles
        self._sessions = self._make_sessions(url, client, socket_timeout, allow_eviction, options)
        self._scripts = ScriptRunner(self._sessions, self._watch)
        forks.renew_after_fork(self)

    def _make_sessions(
        self,
        url: str | None,
        client: Any,
        socket_timeout: float,
        allow_eviction: bool,
        options: dict[str, Any],
    ) -> Sessions:
        redis = require("redis", extra="redis")
        made = connection_settings(redis, url, client, socket_timeout, options)
        return Sessions(redis, self.label, self.state_id, *made, allow_eviction=allow_eviction)

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._sessions.after_fork()

    def address(self) -> str:
        """The address of the server, without user name and password."""
        return self._sessions.address()

    # --- the contract ---------------------------------------------------------------------------

    def commit(self, writes: Sequence[Write], names: Mapping[str, Expected] | None = None) -> Revision:
        if not names and _are_sets_of_one_name(writes):
            return self._put(writes)
        return self._commit(
            [self._encode(write) for write in writes], {write.name for write in writes}, dict(names or {})
        )

    def drop(self, name: str) -> Revision:
        return self._commit([(name, b"x any", b"", b"", None)], {name}, {})

    def fetch(self, name: str, keys: Iterable[str] | None = None) -> Fetched:
        if keys is None:
            revision, flat = self._scripts.read(FETCH, name, b"all")
            return Fetched(revision, scripts.entries(flat))
        wanted = list(keys)
        revision, values = self._scripts.read(FETCH, name, b"some", *map(_bytes, wanted))
        pairs = zip(wanted, values, strict=True)
        return Fetched(revision, {key: scripts.entry(held) for key, held in pairs if held is not None})

    def keys(self, name: str) -> tuple[Revision, list[str]]:
        revision, found = self._scripts.read(FETCH, name, b"keys")
        return revision, [_text(key) for key in found]

    def names(self) -> list[str]:
        flat = self._sessions.ask_any(lambda session: session.ask("HGETALL", self._scripts.prefix))
        fields = zip(flat[::2], flat[1::2], strict=True)
        return [_text(field[2:]) for field, held in fields if field[:2] == b"n:" and held[-1:] == LIVE]

    def changes(self, name: str, since: Revision) -> Changes:
        revision, *answer = self._scripts.read(
            CHANGES, name, since.epoch.encode(), b"%d" % since.number, *ALONG
        )
        if answer[0] == b"RESET":
            return Changes(revision, {}, {}, reset=True)
        _, changed, removed, along = answer
        try:
            return Changes(
                revision, scripts.scores(changed), scripts.scores(removed), entries=scripts.entries(along)
            )
        except ValueError:
            # Another program has written to the log; what it means is not known.
            return Changes(revision, {}, {}, reset=True)

    def revision(self, name: str) -> Revision:
        return self.revisions([name])[0]

    def revisions(self, names: Sequence[str]) -> list[Revision]:
        answer = self._scripts.run(REVISIONS, names, [], list(map(_bytes, names)))
        epoch = answer[1].decode()
        return [Revision(epoch, int(number)) for number in answer[2:]]

    def increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        answer = self._scripts.write(
            INCREMENT, (name,), (name,), [_bytes(name), _bytes(key), scripts.decimal(amount)]
        )
        if answer[0] == b"NOT INTEGER":
            raise not_an_integer(name, key)
        if answer[0] == b"TOO LARGE":
            return super().increment(name, key, amount)
        return Revision(answer[1].decode(), int(answer[2])), int(answer[3])

    def ping(self) -> None:
        session = self._sessions.open()
        try:
            with self._sessions.errors():
                session.ask("PING")
        finally:
            session.close()

    def close(self) -> None:
        self._sessions.close()

    # --- writing --------------------------------------------------------------------------------

    def _encode(self, write: Write) -> tuple[str, bytes, bytes, bytes, str | None]:
        expected, epoch = b"any", None
        if write.expected is ABSENT:
            expected = b"absent"
        elif isinstance(write.expected, Revision):
            expected, epoch = b"%d" % write.expected.number, write.expected.epoch
        operation, data = (b"s", write.data) if type(write.data) is bytes else (OPERATIONS[write.data], b"")
        _refuse_large(write.name, write.key, data)
        return write.name, b"%s %s" % (operation, expected), _bytes(write.key), data, epoch

    def _put(self, writes: Sequence[Write]) -> Revision:
        """Commit sets of one name: the most frequent commit, in fewer steps than others."""
        name, epoch = writes[0].name, b""
        arguments: list[Any] = [_bytes(name), epoch]
        for _, key, data, expected in writes:
            _refuse_large(name, key, data)
            condition = b"" if expected is ANY else scripts.condition(expected)  # type: ignore[arg-type]
            if isinstance(expected, Revision):
                arguments[1] = expected.epoch.encode()
            arguments += (_bytes(key), data, condition)
        answer = self._scripts.write(PUT, (name,), (name,), arguments)
        if answer[0] == b"CONFLICT":
            raise self._conflict(answer, [name], [self._encode(write) for write in writes], {})
        return Revision(answer[1].decode(), int(answer[2]))

    def _commit(
        self,
        writes: list[tuple[str, bytes, bytes, bytes, str | None]],
        written: set[str],
        conditions: dict[str, Expected],
    ) -> Revision:
        names = sorted(written | set(conditions))
        numbers = {name: number for number, name in enumerate(names, 1)}
        epochs = {write[4] for write in writes if write[4] is not None}
        epochs |= {expected.epoch for expected in conditions.values() if isinstance(expected, Revision)}
        if len(epochs) > 1:
            raise ConflictError(names[0], None, "revisions of one epoch", "revisions of several")
        arguments = [epochs.pop().encode() if epochs else b"", b"%d" % REMOVALS_KEPT, b"%d" % len(names)]
        for name in names:
            expected = conditions.get(name)
            condition = b"" if expected is None else scripts.condition(expected)
            arguments += (_bytes(name), condition)
        for name, operation, key, data, _ in writes:
            arguments += (b"%d %s" % (numbers[name], operation), key, data)
        if len(arguments) > MOST_ARGUMENTS:
            raise UnsupportedOperationError(
                f"a commit of {len(writes)} keys is more than a Redis server takes at once; "
                "write it in parts of 300,000"
            )
        answer = self._scripts.write(COMMIT, written, names, arguments)
        if answer[0] == b"CONFLICT":
            raise self._conflict(answer, names, writes, conditions)
        return Revision(answer[1].decode(), int(answer[2]))

    def _conflict(
        self, answer: list[Any], names: list[str], writes: list[Any], conditions: dict[str, Expected]
    ) -> ConflictError:
        name = names[answer[1] - 1]
        found = answer[3].decode() if answer[3] == b"absent" else int(answer[3])
        if not answer[4]:
            expected = conditions[name]
            wanted = "absent" if expected is ABSENT else expected.number
            return ConflictError(name, None, wanted, found)
        wanted = next(w[1].split()[1].decode() for w in writes if w[0] == name and w[2] == answer[2])
        key = keys_module.from_string(_text(answer[2]))
        return ConflictError(name, key, wanted if wanted == "absent" else int(wanted), found)


def _are_sets_of_one_name(writes: Sequence[Write]) -> bool:
    """Return whether there is nothing else in a batch, no key twice, and revisions of one epoch at most."""
    if len(writes) == 1:
        return type(writes[0].data) is bytes
    return (
        0 < len(writes) <= MOST_ARGUMENTS // 3 - 10
        and all(type(write.data) is bytes for write in writes)
        and len({write.name for write in writes}) == 1
        and len({write.key for write in writes}) == len(writes)
        and len({write.expected.epoch for write in writes if isinstance(write.expected, Revision)}) < 2
    )


def _refuse_large(name: str, key: str, data: bytes) -> None:
    if len(data) > LARGEST_VALUE:
        raise UnsupportedOperationError(
            f"key {key!r} of {name!r} has {len(data)} bytes; a Redis server takes values "
            f"of up to {LARGEST_VALUE}"
        )


_bytes = keys_module.to_bytes
_text = keys_module.from_bytes
