"""A service under test: gunicorns on one store, and whoever starts them again, as systemd does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import environment
from tests.support.processes import has_ended, processes_in, servers, supervisors, wait_for

from .client import Client
from .gunicorns import START_TIMEOUT, Gunicorn, Setup, end
from .storm import MODULE, THEMES

#: what a loaded machine may need for a storm, which takes seconds
STORM_TIMEOUT = 240.0
#: what a loaded machine may need beside the time of grace
PATIENCE = 15.0


class Service:
    """Gunicorn on a store, started again when it ends.

    :ivar store: the STORE_PATH.
    :ivar restarts: how often it was started again.
    """

    def __init__(self, folder: Path, setup: Setup, store: Path | None = None) -> None:
        self.folder = folder
        self.setup = setup
        self.store = folder / "store" if store is None else store
        self.gunicorn = Gunicorn(folder, "a", setup, self.store)
        self.restarts = 0
        self.journals = folder / "journals"
        self.journals.mkdir(exist_ok=True)
        self._began = time.monotonic_ns()
        self._clients: list[subprocess.Popen[bytes]] = []
        self._second: Gunicorn | None = None

    # --- its parts ------------------------------------------------------------------------------

    def workers(self) -> list[int]:
        """The processes of the workers."""
        return self.gunicorn.workers()

    def servers(self) -> list[int]:
        """The redis-servers of the store."""
        return servers(self.store)

    def supervisors(self) -> list[int]:
        """Their parents."""
        return supervisors(self.store)

    def second(self) -> Gunicorn:
        """Another gunicorn on the same path, which is not started yet."""
        if self._second is None:
            self._second = Gunicorn(self.folder, "b", self.setup, self.store)
        return self._second

    def sockets(self) -> list[str]:
        """Where clients may ask; nobody may be there."""
        return [str(self.folder / "a.sock"), str(self.folder / "b.sock")]

    # --- clients --------------------------------------------------------------------------------

    def start_clients(self, count: int, seed: int, *, of_both: bool = False) -> None:
        """Let clients ask until `stop_clients`.

        :param of_both: whether they ask the second gunicorn too.
        """
        for number in range(count):
            given = {
                "session": f"c{number}",
                "sockets": self.sockets() if of_both else self.sockets()[:1],
                "journal": str(self.journals / f"c{number}"),
                "seed": seed * 1000 + number,
                "began": self._began,
                "keeps": bool(number % 2) and self.setup.worker_class != "sync",
            }
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.client", json.dumps(given)],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            self._clients.append(process)

    def storm(self, sessions: int, scripts: int, requests: int, seed: int) -> None:
        """Let sessions ask all at once, and processes without requests do the same; return when all have."""
        given = {"sockets": self.sockets()[:1], "began": self._began, "requests": requests}
        asking = {**given, "journals": str(self.journals), "seed": seed, "sessions": sessions}
        self._storm("storm", {**asking, "themes": [*THEMES, *[MODULE] * self.setup.module]})
        for number in range(scripts):
            alone = {"session": f"p{number}", "journal": str(self.journals / f"p{number}")}
            self._storm("script", {**given, **alone, "seed": seed * 1000 + sessions + number})
        codes = [process.wait(STORM_TIMEOUT) for process in self._clients]
        assert not any(codes), f"clients ended with {codes}\n{self.logs()}"
        self._end_clients()

    def _storm(self, module: str, given: dict[str, Any]) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.faults.{module}", json.dumps(given)],
            cwd=self.folder,
            env=self.setup.environment(self.store),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self._clients.append(process)

    def stop_clients(self) -> None:
        """Return when all clients have had their last answer."""
        for process in self._clients:
            assert process.stdin is not None
            process.stdin.close()
        codes = [process.wait(30) for process in self._clients]
        self._clients = []
        assert not any(codes), f"clients ended with {codes}"

    def read_back(self, steps: list[list[Any]]) -> None:
        """Let a process that was never there before make steps, without any service."""
        answer = subprocess.run(
            [sys.executable, "-m", "tests.faults.reader", json.dumps(steps)],
            cwd=self.folder,
            env=self.setup.environment(self.store),
            stdout=subprocess.PIPE,
            timeout=START_TIMEOUT,
            check=True,
        )
        reader = self.client("reader")
        reader.note(steps, json.loads(answer.stdout))
        reader.close()

    def client(self, session: str) -> Client:
        """A client of our own."""
        return Client(session, self.sockets()[:1], str(self.journals / session), 0, self._began)

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Return when it answers right."""
        self.gunicorn.start()
        took = self.recovers_in(START_TIMEOUT)
        assert took is not None, f"the service does not answer:\n{self.logs()}"

    def keep_up(self) -> None:
        """Start it again if it has ended."""
        if not self.gunicorn.is_up():
            self.restarts += 1
            self.gunicorn.start()

    def recovers_in(self, limit: float, *, keep_up: bool = True) -> float | None:
        """After how many seconds every answer is right; None if that takes longer than ``limit``."""
        began = time.monotonic()
        prober = self.client("prober")
        try:
            while time.monotonic() - began < limit:
                if keep_up:
                    self.keep_up()
                so_far = time.monotonic() - began
                if all(answers_right(prober) for _ in range(2 * self.setup.workers + 2)):
                    return so_far
                time.sleep(0.02)
        finally:
            prober.close()
        return None

    def logs(self) -> str:
        """The ends of all logs, for whoever looks for a cause."""
        paths = [*self.folder.glob("*.log"), *self.store.glob("*.log")]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-4000:]}" for path in paths)

    def stop(self) -> None:
        """End everything, and see that nothing is left."""
        self._end_clients()
        try:
            for gunicorn in (self.gunicorn, self._second):
                if gunicorn is not None:
                    gunicorn.stop()
            grace = self.setup.store_options().get("grace", 0)
            wait_for(
                lambda: has_ended(self.store), f"the end of the server of {self.store}", grace + PATIENCE
            )
            wait_for(lambda: not processes_in(self.folder), "the end of every process", PATIENCE)
        except AssertionError as error:
            left = {**processes_in(self.folder), **processes_in(self.store)}
            raise AssertionError(f"{error}: {left}, {self._leases()}\n{self.logs()}") from None
        finally:
            for pid in [*processes_in(self.folder), *processes_in(self.store)]:
                end(pid)

    def _leases(self) -> list[str]:
        """Who holds locks of the store, for whoever looks for a cause."""
        inodes = {str(path.stat().st_ino): path.name for path in self.store.glob("*") if path.is_file()}
        lines = Path("/proc/locks").read_text().splitlines()
        return [f"{inodes[inode]}: {line}" for line in lines for inode in inodes if f":{inode} " in line]

    def _end_clients(self) -> None:
        while self._clients:
            process = self._clients.pop()
            process.kill()
            process.wait(10)
            assert process.stdin is not None
            process.stdin.close()


def answers_right(client: Client) -> bool:
    """Whether whoever takes a request adds to a counter, and sees it."""
    pairs = [
        [["add", mode, f"{mode}:probe"], ["count", mode, f"{mode}:probe"]] for mode in ("read", "request")
    ]
    done = client.ask([*pairs[0], *pairs[1]]).get("steps", [])
    if len(done) != 4 or any(failure for *_, failure in done):
        return False
    sums = [answer for _, _, answer, _ in done]
    return sums[1] >= sums[0] and sums[3] >= sums[2]


@contextlib.contextmanager
def running(folder: Path, setup: Setup, store: Path | None = None) -> Iterator[Service]:
    """A service that answers; in the end it is stopped, and nothing of it is left."""
    service = Service(folder, setup, store)
    try:
        service.start()
        yield service
    finally:
        service.stop()
