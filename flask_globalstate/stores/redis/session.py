"""Connections to a Redis server, checked when they are made; no error of redis-py leaves this file."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import ConfigurationError, GlobalStateError, StoreUnavailableError
from ...system import forks
from ..addresses import shown
from .format import is_known, unknown_format
from .scripts import Script, state_key

logger = logging.getLogger("flask_globalstate")


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
        """Close it for good: redis-py would open it again, to a server of which nothing is known."""
        self.is_closed = True
        self.connection.disconnect()

    def ask(self, *command: Any) -> Any:
        """The answer to one command."""
        self.connection.send_command(*command)
        return self._answer()

    def ask_together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The answers to several commands, in one round trip; a refusal is raised when all have come."""
        self.connection.send_packed_command(self.connection.pack_commands(commands))
        answers = [self._answer_or_refusal() for _ in commands]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _answer_or_refusal(self) -> Any:
        try:
            return self._answer()
        except self._redis.ResponseError as refusal:
            return refusal

    def ask_packed(self, *command: bytes) -> Any:
        """The answer to one command of bytes, in less time."""
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


class Sessions:
    """The sessions of one process with a server, each used by one thread at a time.

    :param redis: the module redis-py.
    :param label: what errors call the store.
    :param state_id: the state that is used.
    :param connection_class: of redis-py.
    :param settings: what it is called with.
    :param retries: how often a call is tried again on a new connection.
    :param allow_eviction: use a server that removes keys of any kind when its memory is full.
    """

    #: connections that are kept open for the next call; a burst of threads closes the others behind it
    MOST_IDLE = 16

    def __init__(
        self,
        redis: Any,
        label: str,
        state_id: str,
        connection_class: Any,
        settings: dict[str, Any],
        *,
        retries: int = 1,
        allow_eviction: bool = False,
    ) -> None:
        self.redis = redis
        self.label = label
        self.state_id = state_id
        self.state_key = state_key(state_id)
        self.retries = retries
        self._connection_class = connection_class
        self._settings = settings
        self._allow_eviction = allow_eviction
        self._has_warned = False
        self._down_since: float | None = None
        # Opens nothing, but lets redis-py import what it imports with its first connection: a child
        # forked while another thread is importing waits for ever (seen on Python 3.13.0).
        redis.Connection()
        self._begin()

    def _begin(self) -> None:
        """Begin with no connection, as each process does."""
        self.idle: deque[Session] = deque()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        inherited = self.idle
        self._begin()
        for session in inherited:
            session.close()

    # --- using one ------------------------------------------------------------------------------

    def ask_any(self, talk: Callable[[Session], list[Any]]) -> list[Any]:
        """The answer of ``talk``, which only reads, so that it may be asked again on a new connection."""
        for retry in itertools.count():
            session = self.take()
            try:
                with self.errors(keep_connection_errors=True):
                    answer = talk(session)
            except self.redis.TimeoutError as error:
                self.lose(session)
                raise self.unavailable(error) from error
            except self.redis.ConnectionError as error:
                self.lose(session)
                if retry >= self.retries:
                    raise self.unavailable(error) from error
                continue
            except GlobalStateError:
                self.give_back(session)
                raise
            except BaseException:
                session.close()
                raise
            self.give_back(session)
            return answer
        raise AssertionError("unreachable")

    def evaluate(
        self, session: Session, script: Script, store_keys: list[bytes], arguments: list[Any]
    ) -> list[Any]:
        """The answer of a script, which is sent if the server doesn't know it."""
        tail = (b"%d" % len(store_keys), *store_keys, *arguments)
        redis = self.redis
        for head in ((b"EVALSHA", script.sha), (b"EVAL", script.text)):
            try:
                answer: list[Any] = session.ask_packed(*head, *tail)
            except redis.exceptions.NoScriptError:
                continue
            except (redis.ConnectionError, redis.TimeoutError):
                raise
            except redis.RedisError as error:
                # The server has answered, with a refusal; the connection is in order.
                raise self.unavailable(error) from error
            return answer
        raise AssertionError("unreachable")

    def take(self) -> Session:
        """A session for the caller alone: an idle one if there is one."""
        forks.notice_fork()
        try:
            session = self.idle.pop()
        except IndexError:
            session = None
        return self.open() if session is None else session

    def give_back(self, session: Session) -> None:
        """Keep it for the next call, if its connection is in order and not too many are kept."""
        if len(self.idle) >= self.MOST_IDLE:
            session.close()
        elif not session.is_closed:
            self.idle.append(session)

    def lose(self, session: Session) -> None:
        """Close a connection that failed, and the idle ones, which were opened to the same server."""
        session.close()
        self.close()

    def close(self) -> None:
        """Close the idle ones."""
        while self.idle:
            self.idle.pop().close()

    # --- connecting -----------------------------------------------------------------------------

    def open(self) -> Session:
        """A new session, with a server that was checked."""
        session = Session(self.make_connection(), self.redis)
        with self.errors():
            try:
                self._connect(session)
            except BaseException:
                session.close()
                raise
        self._down_since = None
        return session

    def make_connection(self) -> Any:
        """A connection that is not open yet."""
        return self._connection_class(**self._settings)

    def _connect(self, session: Session) -> None:
        try:
            session.connection.connect()
            self.identify(session)
            if not self._allow_eviction:
                self._refuse_eviction(session)
        except (GlobalStateError, self.redis.RedisError):
            raise
        except OSError as error:
            raise self.unavailable(error) from error
        except Exception as error:
            # The cause may quote what it was given, a password too.
            raise ConfigurationError(
                f"STORE_OPTIONS: redis-py can't connect to {self.address()} with these: "
                f"{type(error).__name__}"
            ) from None

    def identify(self, session: Session) -> None:
        """Learn which server this is, and refuse a state of a format that is not known."""
        questions = ("INFO", "server"), ("HMGET", self.state_key, "format")
        with self.errors(keep_connection_errors=True):
            information, (found,) = session.ask_together(*questions)
        self.require_known(found)
        session.run_id = information.partition(b"run_id:")[2].split(None, 1)[0]

    def require_known(self, found: bytes | None) -> None:
        """Return if the state bears a number, or none, that this release knows.

        :raises ConfigurationError: if a newer release has written the state.
        :raises StoreUnavailableError: if it is no number.
        """
        if found is not None and not is_known(found):
            raise unknown_format(found, self.state_id, f"{self.label} at {self.address()}")

    def _refuse_eviction(self, session: Session) -> None:
        """Raise `StoreUnavailableError` if the server may remove any key when its memory is full."""
        try:
            information = session.ask("INFO", "memory")
        except self.redis.ResponseError:
            information = b""
        lines = (line.partition(b":")[::2] for line in information.split(b"\r\n"))
        found = {name: value.decode(errors="replace") for name, value in lines}
        policy, most = found.get(b"maxmemory_policy"), found.get(b"maxmemory", "")
        if policy is None or not most.isdecimal():
            self._warn_of_eviction()
        elif policy.startswith("allkeys-") and int(most) > 0:
            raise StoreUnavailableError(
                f"{self.label} at {self.address()} can't be used: when its memory is full, the "
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
                self.label,
                self.address(),
            )

    # --- errors ---------------------------------------------------------------------------------

    @contextmanager
    def errors(self, keep_connection_errors: bool = False) -> Iterator[None]:
        """Translate redis-py's errors into this package's.

        :param keep_connection_errors: leave those of the connection, which may be tried again.
        """
        try:
            yield
        except GlobalStateError:
            raise
        except (self.redis.ConnectionError, self.redis.TimeoutError) as error:
            if keep_connection_errors and not isinstance(error, self.redis.AuthenticationError):
                raise
            raise self.unavailable(error) from error
        except self.redis.RedisError as error:
            raise self.unavailable(error) from error

    def unavailable(self, error: Exception) -> StoreUnavailableError:
        """The error that says where the server is, since when it can't be used, and what to do."""
        now = time.time()
        self._down_since = self._down_since or now
        if user := self._settings.get("username"):
            # A server says who may not do it.
            error.args = (str(error).replace(f"User {user} ", "User *** "),)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._down_since))
        return StoreUnavailableError(
            f"{self.label} at {self.address()} can't be used since {since} "
            f"({type(error).__name__}: {error}); {self.advice()}"
        )

    def advice(self) -> str:
        """The advice that an error ends with."""
        return "check that the server runs there and accepts writes from this host"

    def address(self) -> str:
        """The address of the server, without user name and password."""
        connection = self.make_connection()
        if hasattr(connection, "path"):
            return shown(f"unix://{connection.path}")
        scheme = "rediss" if isinstance(connection, self.redis.SSLConnection) else "redis"
        host = f"[{connection.host}]" if ":" in connection.host else connection.host
        return shown(f"{scheme}://{host}:{connection.port}/{connection.db}")
