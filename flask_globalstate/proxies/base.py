"""`Proxy`: what all shared globals have in common, a name and the replica behind it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from ..errors import EncodingError
from ..replicas.base import Access
from ..replicas.factory import make_replica
from ..replicas.modes import Mode, find_mode
from ..replicas.options import Initial, ReplicaOptions
from ..replicas.replica import Replica
from ..replicas.requests import current_transactions
from ..stores.base import Backend, SealsForeign
from ..tracking.kinds import KINDS, TRACKED_KINDS
from ..tracking.plain import StandIn, TrackedContainer
from ..tracking.representers import refuse_untaught_yaml, teach_yaml
from ..tracking.types import wrap
from ..values.encodings import Encoding, find_encoding
from ..values.envelope import Codec, Envelope, PlainCodec, Secrets
from ..values.revision import Revision
from ..values.wording import article

#: the one key of a name that holds one object
KEY = ""

_short = reprlib.Repr()
_short.maxdict = _short.maxlist = _short.maxtuple = _short.maxset = 10
_short.maxstring = _short.maxother = 60


class Unbound:
    """Stands in for the replica of a proxy without a store; any use of it raises `RuntimeError`."""

    def __init__(self, reason: str) -> None:
        object.__setattr__(self, "_reason", reason)

    def __getattr__(self, attribute: str) -> Any:
        raise RuntimeError(self._reason)


class Proxy(StandIn):
    """A shared global. It stays the same object when its store is configured or changed, and in a fork.

    It comes from a state (`GlobalState.dict` and the like), or is made alone, without Flask::

        settings = SharedDict("settings", RedisStore(url), sync="manual", encoding=JSONEncoding())

    Every method may be called from any thread, and after a fork in the child too.

    :param name: what it is called in the store, a str.
    :param store: the `Store` where it lives; None for one that a state will bind.
    :param sync: when reads see what other workers have written: ``request``, ``read`` (the default) or
        ``manual``; see `GlobalState.dict`.
    :param autosync: durabledict's word for it: True is ``read``, False is ``manual``.
    :param initial: the first content, or a callable that gives it; committed at the first use, if the
        name has never existed.
    :param encoding: ``pickle`` (the default), ``json``, ``noop``, or an object with ``encode`` and
        ``decode``.
    :param old_encoding: another encoding, tried where decoding fails: for moving from one to another.
    :param secret: bytes that sign what is stored, if the store keeps no secret of its own.
    :raises ConfigurationError: for a bad parameter.
    :raises TypeError: for an ``initial`` of a wrong type.
    """

    # No others can be set, as on a dict.
    __slots__ = ("_gate", "_name", "_replica")

    #: what a proxy of this class looks like, if that is a container
    _plain: ClassVar[type[Any] | None] = None

    def __new__(cls, name: Any = None, *args: Any, **named: Any) -> Any:
        """Make a proxy; or a plain object of ``type(DATA)(items)``, as `dataclasses.asdict` calls it."""
        if isinstance(name, str):
            return super().__new__(cls)
        if cls._plain is None or not isinstance(name, Iterable) or args or named:
            raise TypeError(f"the name of {article(cls.__name__)} is a str, and not {name!r}")
        return cls._plain(name)

    def __init__(
        self,
        name: str,
        store: Backend | None = None,
        *,
        sync: Mode | None = None,
        autosync: bool | None = None,
        initial: Any = None,
        encoding: str | Encoding = "pickle",
        old_encoding: str | Encoding | None = None,
        secret: bytes | None = None,
    ) -> None:
        teach_yaml()
        self._name = name
        #: every write enters it
        self._gate: AbstractContextManager[None] = nullcontext()
        self._bind(None)
        if store is None:
            return

        def secrets() -> Sequence[bytes]:
            own = store.secret() if secret is None else secret
            return () if own is None else (own,)

        self._bind(
            make_replica(
                find_mode(name, sync, autosync) or "read",
                name,
                store,
                make_codec(store, encoding, old_encoding, secrets),
                ReplicaOptions(self._first_content(initial), wrap=self._wrap),
            )
        )

    def _bind(self, replica: Replica | Unbound | None) -> None:
        """Use another replica from now on; None makes every use an error."""
        self._replica: Replica = replica or Unbound(  # type: ignore[assignment]
            f"the shared global {self._name!r} was used before its store is configured: call "
            "init_app(app) first. To give it content at import time, say "
            "state.dict(name, initial={...}) instead of writing to it"
        )

    def _here(self) -> Access:
        """Return what this context reads and writes: the replica, or the view of a transaction."""
        for transaction in current_transactions.get():
            transaction.check(self._name, self._gate, self._replica.store)
        return self._replica.here()

    def _wrap(self, key: Any, value: Any, revision: Revision, view: Access | None) -> tuple[Any, bool]:
        """Wrap a value that was read, to be handed out; see `flask_globalstate.tracking.types.wrap`."""
        if self._replica.store.holds_objects:
            return value, False
        return wrap(self, key, value, revision, view)

    @classmethod
    def _check_initial(cls, name: str, initial: Any) -> None:
        """Raise `TypeError` if ``initial`` can't be the first content of such a global."""

    @staticmethod
    def _as_items(content: Any) -> Mapping[Any, Any]:
        """Return the items that the first content is stored as."""
        return {KEY: content}

    def _first_content(self, initial: Any) -> Initial | None:
        """Return a function that returns the first content of the name, as items."""
        self._check_initial(self._name, initial)
        if initial is None:
            return None
        return lambda: self._as_items(self._called(initial) if callable(initial) else _fresh(initial))

    def _called(self, initial: Callable[[], Any]) -> Any:
        """Call a callable ``initial`` for the first content."""
        return initial()

    def sync(self, **ignored: Any) -> None:
        """Bring this worker's copy up to date; needed in ``manual`` mode only.

        Later reads in this process see at least what was committed before the call.

        :param ignored: accepted and ignored, so that this can be connected to a signal.
        :raises RuntimeError: if no store is configured yet.
        :raises StoreUnavailableError: if the store can't be reached.
        """
        self._replica.sync()

    def __reduce_ex__(self, protocol: Any) -> Any:
        refuse_untaught_yaml()
        return self.__reduce__()

    def _contents(self) -> str:
        """Return what a repr shows; it never raises, since a repr is often read while debugging."""
        if isinstance(self._replica, Unbound):
            return "no store yet"
        try:
            return _short.repr(self._unwrap())
        except Exception as error:
            return f"not readable: {type(error).__name__}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self._contents()}>"


def as_array(proxy: Proxy, dtype: Any = None, copy: bool | None = None) -> Any:
    """Return what NumPy makes of the plain object; a list needs none, since NumPy takes any sequence."""
    import numpy

    if copy is False:
        raise ValueError(f"{article(type(proxy).__name__)} can't be an array without a copy")
    return numpy.array(proxy._unwrap(), dtype)


def plain_type_of(thing: Any) -> type[Any] | None:
    """Return the type of the plain container that a proxy or a tracked container stands for, or None."""
    if isinstance(thing, Proxy):
        return thing._plain
    return TRACKED_KINDS[type(thing)].plain if isinstance(thing, TrackedContainer) else None


def look_of(plain: type[Any], name: str) -> Any:
    """Return the ``__class__`` of a proxy: ``isinstance`` takes the proxy for a ``plain`` one.

    It is a subclass that nothing is of, so that an error which names the class names that of the proxy.
    """

    def make(cls: type[Any], *args: Any, **named: Any) -> Any:
        return plain(*args, **named)

    members = {"__slots__": (), "__new__": make, "__module__": "flask_globalstate", "__doc__": plain.__doc__}
    look = type(name, (plain,), members)
    return property(lambda self: look)


def make_codec(
    store: Backend,
    encoding: str | Encoding,
    old_encoding: str | Encoding | None,
    secrets: Secrets,
    check: Callable[[str, str, Any], None] | None = None,
) -> Codec:
    """Make the codec that seals and opens the values of a store.

    :param secrets: called at first use; returns the secrets, the newest first.
    :param check: called with the name, key and value of each write to a store that holds objects.
    """
    if store.holds_objects:
        return PlainCodec(check)
    envelope = Envelope(
        find_encoding(encoding),
        old_encoding=None if old_encoding is None else find_encoding(old_encoding),
        state_id=store.state_id,
        secrets=secrets,
        allow_unsigned=store.unsigned_pickles,
    )
    if isinstance(store, SealsForeign):
        store.seal_foreign = envelope.seal_foreign
    return envelope


def _fresh(content: Any) -> Any:
    """Copy the containers of ``initial``, so that no two stores in memory share them, but no other objects.

    :raises EncodingError: if it is nested too deeply, or holds itself.
    """
    try:
        return _made_anew(content)
    except RecursionError as error:
        raise EncodingError("initial is nested too deeply; give a callable") from error


def _made_anew(content: Any) -> Any:
    kind = KINDS.get(type(content))
    return content if kind is None else kind.convert(content, _made_anew)
