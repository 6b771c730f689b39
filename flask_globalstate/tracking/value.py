"""`TrackedValue`: the value of a key with its tracked containers, and how a change of one is committed."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from ..errors import ConflictError, GlobalStateError
from ..replicas.base import Access, Global, alike
from ..replicas.requests import MOST_NOTES, keep_last
from ..stores.base import ABSENT
from ..system import forks
from ..system.locks import entered_again
from ..values import keys
from ..values.revision import Revision
from .containers import WHOLE
from .kinds import TRACKED_KINDS
from .mutations import Operation
from .plain import TrackedContainer, can_be_tracked, detach, unwrap_all
from .reconcile import are_alike, pairs, path_to, show, tracked_containers


class _Objects:
    """The lock of all tracked containers: nobody copies them while another thread changes them.

    It is never held during I/O.
    """

    #: see `forks.Holder`
    waits = False

    def __init__(self) -> None:
        # Reentrant, since comparing calls methods of users' classes.
        self._lock = threading.RLock()
        #: whether the calling thread is in the middle of copying or showing
        self.is_entered = self._lock._is_owned  # type: ignore[attr-defined]
        forks.hold_while_forking(self)

    def __call__(self) -> Any:
        """The lock itself, to be used in ``with``: no signal handler can raise while it is taken."""
        return self._lock

    def hold(self) -> None:
        """Keep other threads out before a fork."""
        self._lock.acquire()

    def release(self) -> None:
        """Let other threads in again after a fork."""
        self._lock.release()


_objects = _Objects()


class TrackedValue:
    """The value of a key with its tracked containers.

    :param proxy: the shared global that has the key.
    :param revision: the revision of the commit that wrote the value.
    :param view: the transaction view in which it was read, or None.
    """

    __slots__ = ("_changed", "_view", "base", "has_untracked", "key", "proxy", "revision", "value")

    def __init__(self, proxy: Global, key: Any, revision: Revision, view: Access | None = None) -> None:
        self.proxy = proxy
        self.key = key
        self.revision = revision
        #: the revision at which it was read
        self.base = revision
        self.value: Any = None
        #: whether it holds something mutable that is not tracked, and so can change without a commit
        self.has_untracked = False
        self._view = view
        #: by the id of a container: its items that these objects have seen change, with the last number
        self._changed: dict[int, dict[Any, int]] = {}

    def change(self, container: Any, operation: Operation) -> tuple[Any, Any]:
        """Commit what an operation does to a plain copy of a container.

        :returns: the container that was changed (in a transaction it may be another object than the one
            that was called), and the operation's answer.
        :raises ConflictError: if the container is nowhere in the newest value, or if the operation is by
            position and another worker has changed the list.
        """
        if _objects.is_entered():
            raise entered_again(f"{self.proxy._name!r}")
        with self.proxy._gate:
            here = self.proxy._here()
            if here.store.holds_objects:
                return container, self._change_object(here, container, operation)
            if here.is_private and self._view is not here:
                inside = self._inside(here, container, operation)
                tracked: TrackedValue = inside._tracked_value
                return tracked._change(here, inside, operation)
            return self._change(here, container, operation)

    def _change(self, here: Access, container: Any, operation: Operation) -> tuple[Any, Any]:
        text = keys.to_string(self.key)
        seen: Any = None
        self._check_what_was_read(here, container, operation)
        while True:
            with _objects():
                expected = self.revision
                value, copies = unwrap_all(self.value)
                target = copies.get(id(container))
            if target is None:
                raise self._lost(container, "nothing that is certainly the same")
            before, seen = seen, operation.what_it_sees(target)
            if before is not None and not alike(before, seen):
                self._met_change(here, container, operation)
            try:
                answer = operation(target)
            except Exception:
                # The error counts only if the newest value causes it.
                if here.revision_of(text) == expected:
                    raise
            else:
                if answer is NotImplemented:
                    return container, answer
                with suppress(ConflictError):
                    revision = here.commit({self.key: value}, {self.key: expected})
                    break
            self._catch_up(here, text, container)
        self._take_over(here, container, target, copies, (expected, revision), operation)
        return container, answer

    def _check_what_was_read(self, here: Access, container: Any, operation: Operation) -> None:
        """Raise or log if another request has changed what this one has read in these objects.

        The requests of a worker share the objects, so each sees the changes of the others.
        """
        noted = here.noted_before_assignment(self.key)
        if noted is None or noted >= self.revision.number:
            return
        with _objects():
            changed = self._changed.get(id(container), {})
            last = max((changed.get(item, 0) for item in operation.items_it_sees()), default=0)
        if last > noted:
            self._met_change(here, container, operation)

    def _met_change(self, here: Access, container: Any, operation: Operation) -> None:
        """Raise or log that somebody has changed what the operation depends on."""
        error = self._lost(container, "a different value", operation.item)
        if operation.by_position:
            raise error
        here.overwrites(self.key, self.revision, error)

    def _take_over(
        self,
        here: Access,
        container: Any,
        target: Any,
        copies: dict[int, Any],
        revisions: tuple[Revision, Revision],
        operation: Operation,
    ) -> None:
        """Show what was committed in the objects that this worker has handed out."""
        expected, revision = revisions
        if operation.has_untracked or not here.codec.is_exact:
            # What others read is not what was given here, or is an object of their own.
            with suppress(GlobalStateError, RecursionError):
                self._catch_up(here, keys.to_string(self.key), container)
        with _objects(), suppress(RecursionError):
            if self.revision == expected and not operation.has_untracked and here.codec.is_exact:
                self._note_changes(container, target, revision.number)
                self._show_container(container, target, copies)
                self.revision = revision
        with _objects():
            if self.revision != revision:
                return  # Another thread has shown something newer, or will.
            shown = self.value, self.has_untracked
        here.show_own(self.key, revision, *shown)

    def _show_container(self, container: Any, target: Any, copies: dict[int, Any]) -> None:
        """Show a container's new content; a container that stays in it stays the same object."""
        kind = TRACKED_KINDS[type(container)]
        before = kind.steps(container)
        originals: dict[int, Any] = {id(target): container}
        for _, child in before:
            originals |= {id(copies[id(c)]): c for _, c in tracked_containers(child) if id(c) in copies}
        show(self, target, originals)
        kept = {id(child) for _, child in kind.steps(container)}
        gone = [(step, child) for step, child in before if id(child) not in kept]
        path = path_to(self.value, container) if gone else None
        for step, child in gone:
            for steps, lost in tracked_containers(child, (*(path or ()), step)):
                self._lose(lost, steps)

    def _catch_up(self, here: Access, text: str, container: Any) -> None:
        """Show the newest value in the objects that this worker has handed out.

        :raises ConflictError: if there is none, or it can't be tracked.
        """
        newest, at = here.newest(self.key, text)
        if not isinstance(at, Revision):
            raise self._lost(container, "nothing")
        if not can_be_tracked(newest):
            raise self._lost(container, "a value that holds itself; change it with edit")
        with _objects():
            if at.epoch != self.revision.epoch or at.number > self.revision.number:
                for old, new in pairs(self.value, newest):
                    self._note_changes(old, new, at.number)
                self._show(newest)
                self.revision = at

    def _note_changes(self, container: Any, newer: Any, number: int) -> None:
        """Note which items differ between a container and its newer content."""
        changed = TRACKED_KINDS[type(container)].changes(container, newer, are_alike)
        if changed:
            noted = self._changed.setdefault(id(container), {})
            for item in (*changed, WHOLE):
                noted.pop(item, None)  # So that it goes to the end; the first is the oldest.
                noted[item] = number
            keep_last(noted, len(newer) + MOST_NOTES)

    def _lose(self, container: Any, path: tuple[Any, ...]) -> None:
        """Note that a container is no longer in the value, and where it was."""
        container._path = path
        self._changed.pop(id(container), None)  # Another object may get the id.

    def _show(self, newest: Any) -> None:
        originals = {id(new): old for old, new in pairs(self.value, newest)}
        found = set(map(id, originals.values()))
        for path, container in tracked_containers(self.value):
            if id(container) not in found:
                self._lose(container, path)
        self.value = show(self, newest, originals)

    # --- in transactions, and after a move to a store that holds objects ----------------------------

    def _inside(self, here: Access, container: Any, operation: Operation) -> Any:
        """Find the transaction's own object for a container that was read outside of it."""
        inside = self._counterpart(container, self._item(here, container))
        if not isinstance(inside, TrackedContainer):
            raise self._lost(container, "nothing that is certainly the same")
        if operation.by_position and inside._tracked_value.base != self.revision:
            self._check_same(container, unwrap_container(inside))
        return inside

    def _change_object(self, here: Access, container: Any, operation: Operation) -> Any:
        """Change the object itself, after the state was moved to a store that holds objects."""
        here.refresh()
        value = self._item(here, container)
        target = self._counterpart(container, value)
        if target is None:
            raise self._lost(container, "nothing that is certainly the same")
        if operation.by_position:
            self._check_same(container, target)
        answer = operation(target)
        with _objects():
            self._show(detach(value)[0])
        return answer

    def _check_same(self, container: Any, found: Any) -> None:
        """Raise `ConflictError` if a list differs from what was found for it, so that positions may too."""
        if not alike(unwrap_container(container), found):
            raise self._lost(container, "a different list")

    def _item(self, here: Access, container: Any) -> Any:
        try:
            return here.item(self.key)
        except KeyError:
            raise self._lost(container, "nothing") from None

    def _counterpart(self, container: Any, value: Any) -> Any:
        with _objects():
            return next((new for old, new in pairs(self.value, value) if old is container), None)

    # --- assigned to its own place --------------------------------------------------------------------

    def is_newest(self) -> bool:
        """Tell whether the value is what is now read here."""
        here = self.proxy._here()
        if here.store.holds_objects or not here.store.atomic:
            return False
        if here.is_private and self._view is not here:
            inside = here.values.get(self.key)
            if isinstance(inside, TrackedContainer):
                return bool(inside._tracked_value.base == self.revision)
        return here.revision_of(keys.to_string(self.key)) == self.revision

    def holds(self, container: Any) -> bool:
        """Tell whether a container is still in the value."""
        with _objects():
            return path_to(self.value, container) is not None

    def _lost(self, container: Any, found: str, item: Any = ABSENT) -> ConflictError:
        """Make the error that says where a container was, and what was found instead."""
        with _objects():
            path = path_to(self.value, container)
        if path is None:
            path = getattr(container, "_path", ())
        steps = path if item is ABSENT else (*path, item)
        text = "".join(f"[{step!r}]" for step in steps)
        return ConflictError(
            self.proxy._name, self.key, f"what it was at {self.revision.number}", found, text
        )


def unwrap_container(value: Any) -> Any:
    """Return a plain copy of a tracked container."""
    with _objects():
        return unwrap_all(value)[0]
