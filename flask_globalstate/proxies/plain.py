"""Plain objects for libraries that take nothing else: `unwrap`, `json_default`, and what YAML is taught."""

from __future__ import annotations

import sys
from typing import Any

from .base import Proxy
from .collection import SharedList, SharedSet
from .counter import SharedCounter
from .mapping import SharedDict
from .value import SharedValue
from ..tracking.kinds import KINDS
from ..tracking.plain import detach

PROXIES = (SharedDict, SharedList, SharedSet, SharedCounter, SharedValue)


def unwrap(thing: Any) -> Any:
    """The plain object that something stands for, with plain objects in it at any depth.

    :param thing: a shared global, a list, dict or set that was read from one, a plain container that holds
        such things, or anything else.
    :returns: a copy with nothing shared or tracked in it, of a single revision; anything else as it is.
    :raises StoreUnavailableError: if a shared global can't be read.
    """
    return detach(thing)[0]


def json_default(thing: Any) -> Any:
    """What an encoder of JSON or msgpack calls for an object that it doesn't know.

    ::

        json.dumps(DATA, default=json_default)
        orjson.dumps(DATA, default=json_default)
        msgpack.packb(DATA, default=json_default)

    :param thing: what is to be encoded.
    :returns: the plain object that a shared global stands for.
    :raises TypeError: for anything else, as the encoder raises it.
    """
    if isinstance(thing, Proxy):
        return unwrap(thing)
    raise TypeError(f"Object of type {type(thing).__name__} is not JSON serializable")


def teach_yaml() -> None:
    """Let PyYAML, if the program has imported it, take what is shared or tracked for what it stands for."""
    yaml = sys.modules.get("yaml")
    representer = getattr(yaml, "representer", None)
    for dumper in (getattr(representer, name, None) for name in ("SafeRepresenter", "Representer")):
        if dumper is not None and SharedDict not in dumper.yaml_representers:
            for kind in (*PROXIES, *(kind.tracked for kind in KINDS.values() if kind.is_tracked)):
                dumper.add_representer(kind, _represent)


def _represent(dumper: Any, thing: Any) -> Any:
    return dumper.represent_data(unwrap(thing))
