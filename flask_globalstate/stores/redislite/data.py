"""How the data of an embedded server lies in its folder, and the record of the server that wrote it.

Redis up to 6 keeps one append-only file, which may begin with a dump; later ones and Valkey keep a folder of
them with a manifest. Each ignores what the other has left where it does not look: so nothing is started where
both are, or where only one half is.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ConfigurationError
from ...system.files import read_own
from .supervisor import WRITER

FILE = "appendonly.aof"
FOLDER = "appendonlydir"
MANIFEST = FOLDER + "/appendonly.aof.manifest"
DUMP = "dump.rdb"
#: of a dump; Valkey writes its own name since its formats differ from those of Redis
MAGIC = re.compile(rb"(REDIS0|VALKEY)(\d{3})")
MAGIC_SIZE = 9
#: bytes; a server that was killed at its very first start leaves a dump of nothing, which has 90
EMPTY_DUMP = 256


class Data(NamedTuple):
    """What lies in the folder of the data.

    :ivar layout: `FILE`, `FOLDER`, or nothing if there is no data.
    :ivar format: product and number of the newest format of the dumps in it, or None if there are none.
    """

    layout: str
    format: tuple[str, int] | None


def look(folder: Path) -> Data:
    """How the data lies.

    :raises ConfigurationError: if any server would begin an empty store beside what is there.
    """
    in_folder = [file for file in _files(folder / FOLDER) if not file.name.startswith("temp-")]
    parts = [file for file in in_folder if file.suffix != ".manifest"]
    has_manifest = (folder / MANIFEST).exists()
    has_file = any(file.name == FILE and file.stat().st_size for file in _files(folder))
    has_parts = bool(parts) if has_manifest else any(map(_is_more_than_empty, parts))
    if has_file and has_parts:
        raise _two_histories(folder)
    if has_parts and not has_manifest:
        raise ConfigurationError(
            f"{folder / FOLDER} has data, but {folder / MANIFEST} is missing, and every server would begin "
            "an empty store. Nothing was started. Restore it from a backup"
        )
    if has_file or has_parts:
        bases = (
            [folder / FILE] if has_file else [part for part in parts if not part.name.endswith(".incr.aof")]
        )
        return Data(FILE if has_file else FOLDER, max(filter(None, map(_format, bases)), default=None))
    if any(file.name == DUMP for file in _files(folder)):
        raise ConfigurationError(
            f"{folder / DUMP} is there and no append-only file, and the server of this store reads only "
            "that: it would begin an empty store. Nothing was started. Move it away, or make an append-only "
            f"file of it: start a redis-server with --dir '{folder}' --appendonly no, and give it the "
            "commands CONFIG SET appendonly yes and, when INFO persistence says aof_rewrite_in_progress:0, "
            "SHUTDOWN"
        )
    return Data("", None)


def recorded_writer(folder: Path) -> dict[str, Any]:
    """What is recorded of the server that wrote the data last; empty if nothing is, or nothing readable.

    A record that is no file of ours counts as none here, and is refused before a server is started.
    """
    try:
        record = json.loads(read_own(folder / WRITER))
    except (FileNotFoundError, ConfigurationError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file())


def _is_more_than_empty(file: Path) -> bool:
    size = file.stat().st_size
    return size > (0 if file.name.endswith(".incr.aof") else EMPTY_DUMP)


def _format(file: Path) -> tuple[str, int] | None:
    """Product and number of the format of the dump with which a file begins."""
    with file.open("rb") as opened:
        found = MAGIC.fullmatch(opened.read(MAGIC_SIZE))
    if found is None:
        return None
    return "Valkey" if found[1] == b"VALKEY" else "Redis", int(found[2])


def _two_histories(folder: Path) -> ConfigurationError:
    def described(place: str) -> str:
        files = [folder / place] if place == FILE else _files(folder / place)
        last = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(f.stat().st_mtime for f in files)))
        return f"{place} ({sum(file.stat().st_size for file in files)} bytes, last written to {last})"

    return ConfigurationError(
        f"{folder} has two histories: {described(FILE)} of Redis 6, and {described(FOLDER)} of a later Redis "
        "or of Valkey. Each server would show its own and hide the other. Nothing was started. Move away the "
        f"one that is not wanted, such as: mv '{folder / FILE}' '{folder.parent}'"
    )
