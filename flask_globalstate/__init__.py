"""Module-level globals that are right in every worker of a Flask application."""

from .default import (
    default_state,
    shared_counter,
    shared_dict,
    shared_list,
    shared_set,
    shared_value,
    use_default_store,
    use_redis_store,
    use_shelve_store,
    use_store,
)
from .errors import (
    ConfigurationError,
    ConflictError,
    DecodingError,
    EncodingError,
    GlobalStateError,
    MissingDependencyError,
    ReentryError,
    SignatureError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from .extension import GlobalState
from .middleware import GlobalStateMiddleware
from .proxies.collection import SharedList, SharedSet
from .proxies.counter import SharedCounter
from .proxies.mapping import SharedDict
from .proxies.plain import json_default, unwrap
from .proxies.value import SharedValue
from .stores.base import ABSENT
from .stores.durable import DurableStore
from .values.encodings import JSONEncoding, NoOpEncoding, PickleEncoding

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "ConfigurationError",
    "ConflictError",
    "DecodingError",
    "DurableStore",
    "EncodingError",
    "GlobalState",
    "GlobalStateError",
    "GlobalStateMiddleware",
    "JSONEncoding",
    "MissingDependencyError",
    "NoOpEncoding",
    "PickleEncoding",
    "ReentryError",
    "SharedCounter",
    "SharedDict",
    "SharedList",
    "SharedSet",
    "SharedValue",
    "SignatureError",
    "StoreUnavailableError",
    "UnsupportedOperationError",
    "default_state",
    "json_default",
    "shared_counter",
    "shared_dict",
    "shared_list",
    "shared_set",
    "shared_value",
    "unwrap",
    "use_default_store",
    "use_redis_store",
    "use_shelve_store",
    "use_store",
]
