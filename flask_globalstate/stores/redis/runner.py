"""Runs the scripts of one state on a server: reads at once, and each write exactly once.

It begins an epoch where the data is not of this server, and repairs a name that has lost a part.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

from ...errors import GlobalStateError, StoreUnavailableError
from ...system import forks
from ...values import keys as keys_module
from ...values.revision import Revision
from ..commit_watch import CommitWatch
from .format import FORMAT, changed_by_another_program
from .scripts import EPOCH, REPAIR, RESOLVE, Script
from .session import Session, Sessions

logger = logging.getLogger("flask_globalstate")

#: how often what stands in the way of a script is seen to before it is given up
MOST_REPAIRS = 10
#: sessions whose last answers are kept
SESSIONS_KEPT = 4096

_bytes = keys_module.to_bytes


class ScriptRunner:
    """The scripts of one state.

    :param sessions: with the server.
    :param watch: counts its commits, where every client is on this host.
    """

    def __init__(self, sessions: Sessions, watch: CommitWatch | None) -> None:
        self._sessions = sessions
        self._watch = watch
        self.prefix = sessions.state_key
        self._sessions_key = self.prefix + b":sessions"
        #: the keys of each name that was used
        self._known_keys: dict[str, list[bytes]] = {}

    def name_keys(self, name: str) -> list[bytes]:
        """The four keys that a name lies under."""
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
        watch = self._watch
        in_doubt: list[Session] = []
        try:
            if watch is not None:
                watch.prepare()
            with nullcontext() if watch is None else watch.commit(names, in_doubt):
                return self._write(script, places, arguments, in_doubt)
        except StoreUnavailableError as error:
            error.may_be_written = error.may_be_written or bool(in_doubt)
            raise

    def _write(
        self, script: Script, places: Sequence[str], arguments: list[Any], in_doubt: list[Session]
    ) -> list[Any]:
        """The answer of a script; an attempt whose answer was lost is resolved before another is made.

        :param in_doubt: holds the session of an attempt of which it is not known whether it was applied.
        """
        sessions = self._sessions
        keys = [self.prefix, *itertools.chain(*map(self.name_keys, places)), self._sessions_key]
        for retry in itertools.count():
            session = sessions.take()
            try:
                self._prepare(session)
                session.sequence += 1
                in_doubt.append(session)
                answer = self._converse(
                    session, script, places, keys, [session.id, b"%d" % session.sequence, *arguments]
                )
            except (sessions.redis.ConnectionError, sessions.redis.TimeoutError) as error:
                sessions.lose(session)
                resolved = self.resolve(session, error) if in_doubt else None
                in_doubt.clear()
                if resolved is not None:
                    return resolved
                if retry >= sessions.retries:
                    raise sessions.unavailable(error) from error
                continue
            except GlobalStateError:
                in_doubt.clear()  # The server has refused it.
                sessions.give_back(session)
                raise
            except BaseException:
                session.close()
                raise
            in_doubt.clear()
            sessions.give_back(session)
            return answer
        raise AssertionError("unreachable")

    def _prepare(self, session: Session) -> None:
        """Let the server know a session before it writes."""
        if not session.is_known:
            self._enter(session)
        watch = self._watch
        if watch is None or watch.seqcount is None:
            return
        # Answered before the first commit: whoever repairs our slot finds every connection of ours.
        slot = watch.seqcount.slot
        assert slot is not None, "what is written now would be counted nowhere"
        if session.named_for != slot:
            with self._sessions.errors(keep_connection_errors=True):
                session.ask("CLIENT", "SETNAME", self.client_name(slot))
            session.named_for = slot

    def client_name(self, slot: int) -> str:
        """The name of every connection of the process that counts in a slot."""
        assert self._watch is not None
        return f"flask_globalstate:{self._watch.identity}:{slot}"

    def fence(self, slot: int) -> None:
        """End every connection of the dead owner of a slot: a commit may still lie in its socket."""
        name = self.client_name(slot).encode()

        def end(session: Session) -> list[Any]:
            for line in bytes(session.ask("CLIENT", "LIST")).splitlines():
                fields = dict(field.partition(b"=")[::2] for field in line.split(b" "))
                if fields.get(b"name") == name:
                    session.ask("CLIENT", "KILL", "ID", fields[b"id"])
            return []

        self._sessions.ask_any(end)

    def resolve(self, lost: Session, error: Exception) -> list[Any] | None:
        """The answer to the last attempt of a session that was lost, or None if it will never be applied."""
        sessions, keys = self._sessions, [self.prefix, self._sessions_key]
        try:
            answer = sessions.ask_any(
                lambda session: sessions.evaluate(session, RESOLVE, keys, [lost.id, b"%d" % lost.sequence])
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
        for _ in range(MOST_REPAIRS):
            answer = sessions.evaluate(session, script, store_keys, [session.run_id, *arguments])
            if answer[0] == b"SPENT":
                raise sessions.redis.ConnectionError("an earlier attempt was resolved")
            if answer[0] == b"HALF":
                raise self._half_written(answer[1])
            if answer[0] == b"TORN":
                self._repair(session, names[answer[1] - 1])
            elif answer[0] == b"EPOCH":
                sessions.identify(session)
                self._enter(session)
            else:
                return answer
        raise changed_by_another_program(sessions.state_id, f"{sessions.label} at {sessions.address()}")

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

    def _repair(self, session: Session, name: str) -> None:
        """Begin an epoch with what is left of a name of which the server has lost a part."""
        answer = self._sessions.evaluate(
            session,
            REPAIR,
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
        epoch = secrets.token_hex(8).encode()
        answer = self._sessions.evaluate(
            session,
            EPOCH,
            [self.prefix, self._sessions_key, self.prefix + b":never"],
            [session.run_id, epoch, session.id, b"%d" % SESSIONS_KEPT, b"%d" % FORMAT],
        )
        if answer[0] == b"FORMAT":
            self._sessions.require_known(answer[1])
        session.is_known = True
