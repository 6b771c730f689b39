"""Which replica the names of a store get: by the kind that the store says, and the sync mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..stores.base import Backend
from ..values.envelope import Codec
from .dictlike import PASS_THROUGH
from .durable import RELOADED
from .modes import MODES
from .options import ReplicaOptions
from .replica import Replica

REPLICAS: dict[str, Mapping[str, type[Any]]] = {
    "revisions": MODES,
    "passthrough": PASS_THROUGH,
    "reloaded": RELOADED,
}


def make_replica(
    mode: str, name: str, store: Backend, codec: Codec, options: ReplicaOptions | None = None
) -> Replica:
    """The replica of a name; every kind has the methods of `Replica` that proxies and states use.

    :param mode: ``request``, ``read`` or ``manual``; the others as of `Replica`.
    """
    made: Replica = REPLICAS[store.replica_kind][mode](name, store, codec, options)
    return made
