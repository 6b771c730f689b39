"""Runs the scripts of one state on a server: reads at once, and each write exactly once.

It begins an epoch where the data is not of this server, and repairs a name that has lost a part.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ...errors import GlobalStateError, StoreUnavailableError
from ...system import forks
from ...values import keys as keys_module
from ...values.revision import Revision
from .scripts import EPOCH, MEND, SETTLE, Script
from .session import Session, Sessions

logger = logging.getLogger("flask_globalstate")

#: how often what stands in the way of a script is seen to before it is given up
MENDINGS = 10
#: sessions whose last answers are kept
SESSIONS_KEPT = 4096

_bytes = keys_module.to_bytes


class ScriptRunner:
    """The scripts of one state.

    :param sessions: with the server.
    :param state_id: which state.
    :param counted: called before a write, with the names that it may change and a list: gives what to hold
        while it is under way. Where there is a session in the list at its end, it is not known whether the
        write was applied; `settle` finds it out.
    """

    def __init__(
        self,
        sessions: Sessions,
        state_id: str,
        counted: Callable[[Iterable[str], Sequence[Session]], AbstractContextManager[None]],
    ) -> None:
        self._sessions = sessions
        self._state_id = state_id
        self._counted = counted
        self.prefix = keys_module.to_bytes(f"flask_globalstate:{{{state_id}}}")
        self._sessions_key = self.prefix + b":sessions"
        #: the keys of each name that was used
        self._known_keys: dict[str, list[bytes]] = {}

    def name_keys(self, name: str) -> list[bytes]:
        """Where what is held of a name lies."""
        found = self._known_keys.get(name)
        if found is None:
            tail = _bytes(name)
            found = [self.prefix + kind + tail for kind in (b":data:", b":log:", b":gone:", b":order:")]
            self._known_keys[name] = found
        return found

    # --- reading --------------------------------------------------------------------------------

    def read(self, script: Script, name: str, *arguments: bytes) -> tuple[Any, ...]:
        """The revision of a name, and the rest of the answer of a script that reads of it."""
        answer = self.run(script, (name,), self.name_keys(name), [_bytes(name), *arguments])
        return Revision(answer[1].decode(), int(answer[2])), *answer[3:]

    def run(
        self, script: Script, names: Sequence[str], name_keys: list[bytes], arguments: list[Any]
    ) -> list[Any]:
        """The answer of a script that only reads."""
        store_keys = [self.prefix, *name_keys]
        return self._sessions.ask_any(
            lambda session: self._converse(session, script, names, store_keys, arguments)
        )

    # --- writing --------------------------------------------------------------------------------

    def write(
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
        sessions = self._sessions
        keys = [self.prefix, *itertools.chain(*map(self.name_keys, places)), self._sessions_key]
        for retry in itertools.count():
            session = sessions.take()
            try:
                if not session.is_known:
                    self._enter(session)
                sessions.prepare_to_write(session)
                session.sequence += 1
                unsettled.append(session)
                answer = self._converse(
                    session, script, places, keys, [session.id, b"%d" % session.sequence, *arguments]
                )
            except (sessions.redis.ConnectionError, sessions.redis.TimeoutError) as error:
                sessions.lose(session)
                settled = self.settle(session, error) if unsettled else None
                unsettled.clear()
                if settled is not None:
                    return settled
                if retry >= sessions.retries:
                    raise sessions.unavailable(error) from error
                continue
            except GlobalStateError:
                unsettled.clear()  # The server has refused it.
                sessions.give_back(session)
                raise
            except BaseException:
                session.close()
                raise
            unsettled.clear()
            sessions.give_back(session)
            return answer
        raise AssertionError("unreachable")

    def settle(self, lost: Session, error: Exception) -> list[Any] | None:
        """The answer to the last attempt of a session that was lost, or None if it will never be applied."""
        sessions, keys = self._sessions, [self.prefix, self._sessions_key]
        try:
            answer = sessions.ask_any(
                lambda session: sessions.evaluate(session, SETTLE, keys, [lost.id, b"%d" % lost.sequence])
            )
        except StoreUnavailableError as unavailable:
            raise StoreUnavailableError(
                f"{unavailable}. Whether the last write was applied is not known"
            ) from error
        if answer[0] == b"UNKNOWN":
            raise StoreUnavailableError(
                f"{sessions.unavailable(error)}. Whether the last write was applied is not known"
            ) from error
        return answer if answer[0] == b"DONE" else None

    # --- epochs ---------------------------------------------------------------------------------

    def _converse(
        self,
        session: Session,
        script: Script,
        names: Sequence[str],
        store_keys: list[bytes],
        arguments: list[Any],
    ) -> list[Any]:
        """The answer of a script that knows of epochs; begins one where the data has none, or has a gap."""
        sessions = self._sessions
        for _ in range(MENDINGS):
            answer = sessions.evaluate(session, script, store_keys, [session.run_id, *arguments])
            if answer[0] == b"SPENT":
                raise sessions.redis.ConnectionError("an earlier attempt was settled")
            if answer[0] == b"HALF":
                raise self._half_written(answer[1])
            if answer[0] == b"TORN":
                self._mend(session, names[answer[1] - 1])
            elif answer[0] == b"EPOCH":
                sessions.identify(session)
                self._enter(session)
            else:
                return answer
        raise StoreUnavailableError(
            f"{sessions.label} at {sessions.address()} can't be used: what is stored of the state "
            f"{self._state_id!r} is changed by another program; leave its keys to this package"
        )

    def _half_written(self, problem: bytes) -> StoreUnavailableError:
        error = self._sessions.unavailable(
            self._sessions.redis.ResponseError(problem.decode(errors="replace"))
        )
        error = StoreUnavailableError(
            f"{error}. The server has refused a write in the middle of it: a part of it was made, and every "
            "worker reads anew"
        )
        error.may_be_written = True
        return error

    def _mend(self, session: Session, name: str) -> None:
        """Begin an epoch with what is left of a name of which the server has lost a part."""
        answer = self._sessions.evaluate(
            session,
            MEND,
            [self.prefix, *self.name_keys(name)],
            [session.run_id, _bytes(name), secrets.token_hex(8).encode()],
        )
        if answer[0] == b"DONE":
            logger.warning(
                "%s at %s has lost a part of %r, by eviction or by hand; what is left counts, and every "
                "worker reads it anew",
                self._sessions.label,
                self._sessions.address(),
                name,
            )

    def _enter(self, session: Session) -> None:
        """Let the store know the session, and begin an epoch if the data is not of this server.

        Not before the first write: on a full disk who only reads goes on.
        """
        self._sessions.evaluate(
            session,
            EPOCH,
            [self.prefix, self._sessions_key, self.prefix + b":never"],
            [session.run_id, secrets.token_hex(8).encode(), session.id, b"%d" % SESSIONS_KEPT],
        )
        session.is_known = True
