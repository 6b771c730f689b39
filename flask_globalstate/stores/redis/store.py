"""A store on a Redis (or Valkey) server that several hosts can share.

Each operation is one Lua script, one round trip. The scripts stand beside this file; ``prelude.lua``
says how the data lies. All keys of a state share one hash tag, so that a cluster keeps them together.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import resources
from typing import Any

from ...errors import (
    ConfigurationError,
    ConflictError,
    GlobalStateError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from ...system import forks
from ...values import keys as keys_module
from ...values.revision import Revision
from .. import require
from ..addresses import shown
from ..base import ABSENT, ANY, CHECK, DELETE, Changes, Entry, Expected, Fetched, Store, Write, not_an_integer
from .settings import connection_settings

logger = logging.getLogger("flask_globalstate")

REMOVALS_KEPT = 1000
#: a bulk of the protocol is limited to 512 MiB; 8 bytes of it are the revision
LARGEST_VALUE = 512 * 1024 * 1024 - 8
#: the protocol takes 1024 * 1024 arguments
MOST_ARGUMENTS = 1_000_000
#: how many changed values come along with a sync, and how many bytes each may have
ALONG = (b"16", b"1024")
REVISION_SIZE = 8
#: how what is kept of a name ends, while it is not dropped
LIVE = b"\1"
#: sessions whose last answers are kept
SESSIONS_KEPT = 4096
OPERATIONS = {DELETE: b"d", CHECK: b"c"}


#: how often what stands in the way of a script is seen to before it is given up
MENDINGS = 10
#: what scripts begin with, where it is not ``prelude.lua``
BEGINNINGS = {"epoch": "", "settle": "", "put": "one_name.lua", "increment": "one_name.lua"}


class Script:
    """A Lua script beside this file, and the SHA1 by which a server remembers it."""

    def __init__(self, name: str) -> None:
        folder = resources.files(__package__)
        beginning = BEGINNINGS.get(name, "prelude.lua")
        parts = [part for part in (beginning, f"{name}.lua") if part]
        self.text = "".join((folder / part).read_text("utf-8") for part in parts).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


COMMIT, PUT, INCREMENT, FETCH, CHANGES, REVISIONS, EPOCH, MEND, SETTLE = map(
    Script, ["commit", "put", "increment", "fetch", "changes", "revisions", "epoch", "mend", "settle"]
)


class Session:
    """A connection, the server that it leads to, and the number of its last attempt to write."""

    def __init__(self, connection: Any, redis: Any) -> None:
        self.connection = connection
        self._redis = redis
        self.id = secrets.token_bytes(8)
        self.sequence = 0
        self.run_id = b""
        #: whether the store keeps the answer to its last attempt to write
        self.is_known = False
        #: the slot of the seqcount whose name it bears
        self.named_for: int | None = None
        self.is_closed = False

    def close(self) -> None:
        """For good: redis-py would open it again, to a server of which nothing is known."""
        self.is_closed = True
        self.connection.disconnect()

    def ask(self, *command: Any) -> Any:
        """The answer to one command."""
        self.connection.send_command(*command)
        return self._answer()

    def ask_packed(self, *command: bytes) -> Any:
        """The same for bytes only, in less time."""
        packed = [b"*%d\r\n" % len(command)]
        for word in command:
            packed += (b"$%d\r\n" % len(word), word, b"\r\n")
        self.connection.send_packed_command([b"".join(packed)], check_health=False)
        return self._answer()

    def _answer(self) -> Any:
        try:
            return self.connection.read_response()
        except self._redis.InvalidResponse as error:
            raise self._redis.ConnectionError("its answer can't be read") from error


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
    networked = True
    #: how often a call is tried again on a new connection
    RETRIES = 1
    #: connections that are kept open for the next call; a burst of threads closes the others behind it
    MOST_IDLE = 16

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
        self._allow_eviction = allow_eviction
        self._has_warned = False
        self._redis = require("redis", extra="redis")
        self._connection_class, self._settings = self._connection_settings(
            url, client, socket_timeout, options
        )
        # Opens nothing, but lets redis-py import what it imports with its first connection: a child
        # forked while another thread is importing waits for ever (seen on Python 3.13.0).
        self._redis.Connection()
        self._prefix = keys_module.to_bytes(f"flask_globalstate:{{{state_id}}}")
        self._sessions_key = self._prefix + b":sessions"
        #: the keys of each name that was used
        self._known_keys: dict[str, list[bytes]] = {}
        self._down_since: float | None = None
        self._begin()
        forks.renew_after_fork(self)

    def _begin(self) -> None:
        """What belongs to one process."""
        self._idle: deque[Session] = deque()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        inherited = self._idle
        self._begin()
        for session in inherited:
            session.close()

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
            revision, flat = self._read(FETCH, name, b"all")
            return Fetched(revision, _entries(flat))
        wanted = list(keys)
        revision, values = self._read(FETCH, name, b"some", *map(_bytes, wanted))
        pairs = zip(wanted, values, strict=True)
        return Fetched(revision, {key: _entry(held) for key, held in pairs if held is not None})

    def keys(self, name: str) -> tuple[Revision, list[str]]:
        revision, found = self._read(FETCH, name, b"keys")
        return revision, [_text(key) for key in found]

    def names(self) -> list[str]:
        flat = self._with_session(lambda session: session.ask("HGETALL", self._prefix))
        fields = zip(flat[::2], flat[1::2], strict=True)
        return [_text(field[2:]) for field, held in fields if field[:2] == b"n:" and held[-1:] == LIVE]

    def changes(self, name: str, since: Revision) -> Changes:
        revision, *answer = self._read(CHANGES, name, since.epoch.encode(), _number(since.number), *ALONG)
        if answer[0] == b"RESET":
            return Changes(revision, {}, {}, reset=True)
        _, changed, removed, along = answer
        try:
            return Changes(revision, _scores(changed), _scores(removed), entries=_entries(along))
        except ValueError:
            # Another program has written to the log; what it means is not known.
            return Changes(revision, {}, {}, reset=True)

    def revision(self, name: str) -> Revision:
        return self.revisions([name])[0]

    def revisions(self, names: Sequence[str]) -> list[Revision]:
        answer = self._run(REVISIONS, names, [self._prefix], list(map(_bytes, names)))
        epoch = answer[1].decode()
        return [Revision(epoch, int(number)) for number in answer[2:]]

    def increment(self, name: str, key: str, amount: int) -> tuple[Revision, int]:
        answer = self._attempt(INCREMENT, (name,), (name,), [_bytes(name), _bytes(key), _decimal(amount)])
        if answer[0] == b"NOT INTEGER":
            raise not_an_integer(name, key)
        if answer[0] == b"TOO LARGE":
            return super().increment(name, key, amount)
        return Revision(answer[1].decode(), int(answer[2])), int(answer[3])

    def ping(self) -> None:
        session = self._open_session()
        try:
            with self._errors():
                session.ask("PING")
        finally:
            session.close()

    def close(self) -> None:
        self._disconnect_idle()

    def _disconnect_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    # --- writing --------------------------------------------------------------------------------

    def _encode(self, write: Write) -> tuple[str, bytes, bytes, bytes, str | None]:
        expected, epoch = b"any", None
        if write.expected is ABSENT:
            expected = b"absent"
        elif isinstance(write.expected, Revision):
            expected, epoch = _number(write.expected.number), write.expected.epoch
        operation, data = (b"s", write.data) if type(write.data) is bytes else (OPERATIONS[write.data], b"")
        _refuse_large(write.name, write.key, data)
        return write.name, b"%s %s" % (operation, expected), _bytes(write.key), data, epoch

    def _put(self, writes: Sequence[Write]) -> Revision:
        """Commit sets of one name: what is done most, in fewer steps than any commit."""
        name, epoch = writes[0].name, b""
        arguments: list[Any] = [_bytes(name), epoch]
        for _, key, data, expected in writes:
            _refuse_large(name, key, data)
            condition = b"" if expected is ANY else _condition(expected)  # type: ignore[arg-type]
            if isinstance(expected, Revision):
                arguments[1] = expected.epoch.encode()
            arguments += (_bytes(key), data, condition)
        answer = self._attempt(PUT, (name,), (name,), arguments)
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
        arguments = [epochs.pop().encode() if epochs else b"", _number(REMOVALS_KEPT), _number(len(names))]
        for name in names:
            expected = conditions.get(name)
            condition = b"" if expected is None else _condition(expected)
            arguments += (_bytes(name), condition)
        for name, operation, key, data, _ in writes:
            arguments += (b"%d %s" % (numbers[name], operation), key, data)
        if len(arguments) > MOST_ARGUMENTS:
            raise UnsupportedOperationError(
                f"a commit of {len(writes)} keys is more than a Redis server takes at once; "
                "write it in parts of 300,000"
            )
        answer = self._attempt(COMMIT, written, names, arguments)
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

    def _attempt(
        self, script: Script, names: Iterable[str], places: Sequence[str], arguments: list[Any]
    ) -> list[Any]:
        """Run a script that writes, exactly once.

        :param names: what it changes.
        :param places: the names whose keys it needs.
        """
        forks.notice_fork()
        unsettled: list[Session] = []
        try:
            with self._counted(names, unsettled):
                return self._write(script, places, arguments, unsettled)
        except StoreUnavailableError as error:
            error.may_be_written = error.may_be_written or bool(unsettled)
            raise

    def _write(
        self, script: Script, places: Sequence[str], arguments: list[Any], unsettled: list[Session]
    ) -> list[Any]:
        """The answer of a script; an attempt whose answer was lost is settled before another is made.

        :param unsettled: holds the session of an attempt of which it is not known whether it was applied.
        """
        keys = [self._prefix, *itertools.chain(*map(self._name_keys, places)), self._sessions_key]
        for retry in itertools.count():
            session = self._take()
            try:
                self._prepare_to_write(session)
                session.sequence += 1
                unsettled.append(session)
                answer = self._converse(
                    session, script, places, keys, [session.id, _number(session.sequence), *arguments]
                )
            except (self._redis.ConnectionError, self._redis.TimeoutError) as error:
                self._lost(session)
                settled = self._settle(session, error) if unsettled else None
                unsettled.clear()
                if settled is not None:
                    return settled
                if retry >= self.RETRIES:
                    raise self._unavailable(error) from error
                continue
            except GlobalStateError:
                unsettled.clear()  # The server has refused it.
                self._give_back(session)
                raise
            except BaseException:
                session.close()
                raise
            unsettled.clear()
            self._give_back(session)
            return answer
        raise AssertionError("unreachable")

    def _settle(self, lost: Session, error: Exception) -> list[Any] | None:
        """The answer to the last attempt of a session that was lost, or None if it will never be applied."""
        try:
            answer = self._with_session(
                lambda session: self._evaluate(
                    session, SETTLE, [self._prefix, self._sessions_key], [lost.id, _number(lost.sequence)]
                )
            )
        except StoreUnavailableError as unavailable:
            raise StoreUnavailableError(
                f"{unavailable}. Whether the last write was applied is not known"
            ) from error
        if answer[0] == b"UNKNOWN":
            raise StoreUnavailableError(
                f"{self._unavailable(error)}. Whether the last write was applied is not known"
            ) from error
        return answer if answer[0] == b"DONE" else None

    def _counted(self, names: Iterable[str], unsettled: Sequence[Session]) -> AbstractContextManager[None]:
        """For the time in which something is sent that may change ``names``.

        :param unsettled: where there is something at its end, it is not known whether that was applied;
            `_settle` finds it out.
        """
        return nullcontext()

    def _prepare_to_write(self, session: Session) -> None:
        """Called before each write of a session."""
        if not session.is_known:
            self._enter(session)

    # --- talking --------------------------------------------------------------------------------

    def _read(self, script: Script, name: str, *arguments: bytes) -> tuple[Any, ...]:
        """The revision of a name, and the rest of the answer of a script that reads of it."""
        answer = self._run(
            script, (name,), [self._prefix, *self._name_keys(name)], [_bytes(name), *arguments]
        )
        return Revision(answer[1].decode(), int(answer[2])), *answer[3:]

    def _run(
        self, script: Script, names: Sequence[str], store_keys: list[bytes], arguments: list[Any]
    ) -> list[Any]:
        return self._with_session(
            lambda session: self._converse(session, script, names, store_keys, arguments)
        )

    def _with_session(self, talk: Callable[[Session], list[Any]]) -> list[Any]:
        """What ``talk`` answers; it only reads, so it may be asked again on a new connection."""
        for retry in itertools.count():
            session = self._take()
            try:
                with self._errors(keep_connection_errors=True):
                    answer = talk(session)
            except self._redis.TimeoutError as error:
                self._lost(session)
                raise self._unavailable(error) from error
            except self._redis.ConnectionError as error:
                self._lost(session)
                if retry >= self.RETRIES:
                    raise self._unavailable(error) from error
                continue
            except GlobalStateError:
                self._give_back(session)
                raise
            except BaseException:
                session.close()
                raise
            self._give_back(session)
            return answer
        raise AssertionError("unreachable")

    def _converse(
        self,
        session: Session,
        script: Script,
        names: Sequence[str],
        store_keys: list[bytes],
        arguments: list[Any],
    ) -> list[Any]:
        """The answer of a script that knows of epochs; begins one where the data has none, or has a gap."""
        for _ in range(MENDINGS):
            answer = self._evaluate(session, script, store_keys, [session.run_id, *arguments])
            if answer[0] == b"SPENT":
                raise self._redis.ConnectionError("an earlier attempt was settled")
            if answer[0] == b"HALF":
                raise self._half_written(answer[1])
            if answer[0] == b"TORN":
                self._mend(session, names[answer[1] - 1])
            elif answer[0] == b"EPOCH":
                self._identify(session)
                self._enter(session)
            else:
                return answer
        raise StoreUnavailableError(
            f"{type(self).__name__} at {self.address()} can't be used: what is stored of the state "
            f"{self.state_id!r} is changed by another program; leave its keys to this package"
        )

    def _evaluate(
        self, session: Session, script: Script, store_keys: list[bytes], arguments: list[Any]
    ) -> list[Any]:
        tail = (b"%d" % len(store_keys), *store_keys, *arguments)
        redis = self._redis
        for head in ((b"EVALSHA", script.sha), (b"EVAL", script.text)):
            try:
                answer: list[Any] = session.ask_packed(*head, *tail)
            except redis.exceptions.NoScriptError:
                continue
            except (redis.ConnectionError, redis.TimeoutError):
                raise
            except redis.RedisError as error:
                # The server has answered, with a refusal; the connection is in order.
                raise self._unavailable(error) from error
            return answer
        raise AssertionError("unreachable")

    def _half_written(self, problem: bytes) -> StoreUnavailableError:
        error = self._unavailable(self._redis.ResponseError(problem.decode(errors="replace")))
        error = StoreUnavailableError(
            f"{error}. The server has refused a write in the middle of it: a part of it was made, and every "
            "worker reads anew"
        )
        error.may_be_written = True
        return error

    def _mend(self, session: Session, name: str) -> None:
        """Begin an epoch with what is left of a name of which the server has lost a part."""
        answer = self._evaluate(
            session,
            MEND,
            [self._prefix, *self._name_keys(name)],
            [session.run_id, _bytes(name), secrets.token_hex(8).encode()],
        )
        if answer[0] == b"DONE":
            logger.warning(
                "%s at %s has lost a part of %r, by eviction or by hand; what is left counts, and every "
                "worker reads it anew",
                type(self).__name__,
                self.address(),
                name,
            )

    def _identify(self, session: Session) -> None:
        """Learn which server this is."""
        with self._errors(keep_connection_errors=True):
            information: bytes = session.ask("INFO", "server")
        session.run_id = information.partition(b"run_id:")[2].split(None, 1)[0]

    def _enter(self, session: Session) -> None:
        """Let the store know the session, and begin an epoch if the data is not of this server.

        Not before the first write: on a full disk who only reads goes on.
        """
        self._evaluate(
            session,
            EPOCH,
            [self._prefix, self._sessions_key, self._prefix + b":never"],
            [session.run_id, secrets.token_hex(8).encode(), session.id, _number(SESSIONS_KEPT)],
        )
        session.is_known = True

    def _take(self) -> Session:
        forks.notice_fork()
        try:
            session = self._idle.pop()
        except IndexError:
            session = None
        return self._open_session() if session is None else session

    def _open_session(self) -> Session:
        session = Session(self._make_connection(), self._redis)
        with self._errors():
            try:
                self._connect(session)
            except BaseException:
                session.close()
                raise
        self._down_since = None
        return session

    def _make_connection(self) -> Any:
        return self._connection_class(**self._settings)

    def _connect(self, session: Session) -> None:
        try:
            session.connection.connect()
            self._identify(session)
            if not self._allow_eviction:
                self._refuse_eviction(session)
        except (GlobalStateError, self._redis.RedisError):
            raise
        except OSError as error:
            raise self._unavailable(error) from error
        except Exception as error:
            # The cause may quote what it was given, a password too.
            raise ConfigurationError(
                f"STORE_OPTIONS: redis-py can't connect to {self.address()} with these: "
                f"{type(error).__name__}"
            ) from None

    def _refuse_eviction(self, session: Session) -> None:
        """:raises StoreUnavailableError: if the server may remove any key when its memory is full."""
        try:
            information = session.ask("INFO", "memory")
        except self._redis.ResponseError:
            information = b""
        lines = (line.partition(b":")[::2] for line in information.split(b"\r\n"))
        found = {name: value.decode(errors="replace") for name, value in lines}
        policy, most = found.get(b"maxmemory_policy"), found.get(b"maxmemory", "")
        if policy is None or not most.isdecimal():
            self._warn_of_eviction()
        elif policy.startswith("allkeys-") and int(most) > 0:
            raise StoreUnavailableError(
                f"{type(self).__name__} at {self.address()} can't be used: when its memory is full, the "
                f"server removes any keys, and so shared globals (maxmemory-policy {policy}, maxmemory "
                f"{most}). Set maxmemory-policy to noeviction or to one of volatile-*, use another server, "
                'or, where what is shared may be lost, say STORE_OPTIONS={"allow_eviction": True}'
            )

    def _warn_of_eviction(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s at %s doesn't tell whether it removes keys when its memory is full (INFO memory): see to "
                "it that its maxmemory-policy is noeviction or one of volatile-*",
                type(self).__name__,
                self.address(),
            )

    def _give_back(self, session: Session) -> None:
        if len(self._idle) >= self.MOST_IDLE:
            session.close()
        elif not session.is_closed:
            self._idle.append(session)

    def _lost(self, session: Session) -> None:
        """Close a connection that failed, and the idle ones, which were opened to the same server."""
        session.close()
        self._disconnect_idle()

    @contextmanager
    def _errors(self, keep_connection_errors: bool = False) -> Iterator[None]:
        """The border that no error of redis-py crosses."""
        try:
            yield
        except GlobalStateError:
            raise
        except (self._redis.ConnectionError, self._redis.TimeoutError) as error:
            if keep_connection_errors and not isinstance(error, self._redis.AuthenticationError):
                raise
            raise self._unavailable(error) from error
        except self._redis.RedisError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        now = time.time()
        self._down_since = self._down_since or now
        if user := self._settings.get("username"):
            # A server says who may not do it.
            error.args = (str(error).replace(f"User {user} ", "User *** "),)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._down_since))
        return StoreUnavailableError(
            f"{type(self).__name__} at {self.address()} can't be used since {since} "
            f"({type(error).__name__}: {error}); {self._advice()}"
        )

    def _advice(self) -> str:
        return "check that the server runs there and accepts writes from this host"

    def address(self) -> str:
        """Where the server is, without user name and password."""
        connection = self._make_connection()
        if hasattr(connection, "path"):
            return shown(f"unix://{connection.path}")
        scheme = "rediss" if isinstance(connection, self._redis.SSLConnection) else "redis"
        host = f"[{connection.host}]" if ":" in connection.host else connection.host
        return shown(f"{scheme}://{host}:{connection.port}/{connection.db}")

    def _connection_settings(
        self, url: str | None, client: Any, socket_timeout: float, options: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """A class of connections, and what it is called with."""
        return connection_settings(self._redis, url, client, socket_timeout, options)

    def _name_keys(self, name: str) -> list[bytes]:
        found = self._known_keys.get(name)
        if found is None:
            tail = _bytes(name)
            found = [self._prefix + kind + tail for kind in (b":data:", b":log:", b":gone:", b":order:")]
            self._known_keys[name] = found
        return found


def _are_sets_of_one_name(writes: Sequence[Write]) -> bool:
    """Whether there is nothing else among the writes, no key twice, and revisions of one epoch at most."""
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


def _condition(expected: Expected) -> bytes:
    return b"absent" if expected is ABSENT else _number(expected.number)


def _number(number: int) -> bytes:
    return b"%d" % number


def _entry(held: bytes) -> Entry:
    if len(held) < REVISION_SIZE or held[0]:
        return Entry(held, 0)  # No revision is so large: another program has written this.
    return Entry(held[REVISION_SIZE:], int.from_bytes(held[:REVISION_SIZE], "big"))


def _entries(flat: list[bytes]) -> dict[str, Entry]:
    return {_text(key): _entry(held) for key, held in zip(flat[::2], flat[1::2], strict=True)}


def _scores(flat: list[bytes]) -> dict[str, int]:
    return {_text(key): int(score) for key, score in zip(flat[::2], flat[1::2], strict=True)}


def _decimal(number: int) -> bytes:
    # More digits than a script takes are not worth formatting; any such text means "too large".
    return b"%d" % number if number.bit_length() < 64 else b"9" * 20


_bytes = keys_module.to_bytes
_text = keys_module.from_bytes
