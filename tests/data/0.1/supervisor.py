"""The parent of an embedded redis-server: starts it, starts it again, and ends it after its last client.

Run by path, with the standard library only, so that it starts at once and stays small::

    python -I -S supervisor.py '{"directory": ..., "server": ..., ...}'

It answers one line on standard output, ``ready`` or why not. All locks are ``flock`` locks on files of
the directory that are never removed:

``lease``        each client process holds it shared; exclusive to us means that all of them are gone
``server.lock``  held by us and, through an inherited descriptor, by the server: as long as either
                 lives, nobody starts a second one on this data
``start.lock``   held by the client that starts us and, inherited, by us until we have ``server.lock``
``stop.lock``    held by who wants us to end: shared, with the last client; exclusively, though clients
                 are there. Nobody has to know our number, and a wish ends with who has it

Clients import this file for what they have in common with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import zlib
from typing import Any

POLL = 0.25
#: how often what was written is brought to disk, and the disk is looked at; each costs well below 1 ms
SYNC_EVERY = 1.0
#: beside the space that a rewrite of the data needs
LEAST_FREE = 64 * 1024 * 1024
LOCK_TIMEOUT = 20.0
STOP_TIMEOUT = 30.0
SLOWEST_RESTART = 5.0
PR_SET_PDEATHSIG = 1
SOCKET = "redis.sock"
REQUEST = "stop.lock"
LOG = "supervisor.log"
SERVER_LOG = "redis.log"
RECORD = "server.json"
#: becomes the next record, so that a server can be started again on a disk that is full
SPARE = "server.json.spare"
SPARE_SIZE = 512
DATA = "data"
#: the name of connections that only ask how the server is, so that nobody takes them for clients
ASKING = b"flask_globalstate:asking"


def log(text: str) -> None:
    """A line in supervisor.log, which is our standard error."""
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}\n"
    # It may be on the very disk that is full.
    with contextlib.suppress(OSError):
        os.write(2, line.encode())


def record_text(content: dict[str, Any]) -> str:
    """The text of a record, with its checksum."""
    return json.dumps({**content, "crc32": zlib.crc32(json.dumps(content).encode())})


def read_record(text: str) -> dict[str, Any]:
    """The inverse of `record_text`.

    :raises ValueError: if it is damaged.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("crc32", None) is None or record_text(content) != text:
        raise ValueError("the checksum is wrong")
    return content


def open_lock(path: str) -> int:
    """A descriptor of a lock file."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take a lock, exclusive unless another kind is given, if nobody else is in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ask(command: bytes, path: str = SOCKET, timeout: float = 1.0) -> bytes:
    """What the server answers, or nothing if it doesn't."""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(b"CLIENT SETNAME " + ASKING + b"\r\n" + command + b"\r\nQUIT\r\n")
            while chunk := connection.recv(65536):
                answer += chunk
    except OSError:
        return b""
    return answer.partition(b"\r\n")[2]


def field(information: bytes, name: str) -> str:
    """A field of an answer to INFO."""
    return information.partition(b"\r\n" + name.encode() + b":")[2].partition(b"\r\n")[0].decode()


def data_files(folder: str) -> dict[str, os.stat_result]:
    """The files of the data, each with its size and the time it was last written to."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            with contextlib.suppress(FileNotFoundError):  # A rewrite has removed it.
                found[path] = os.stat(path)
    return found


def lack_of_space(folder: str, size: int, spare: int = 0) -> str:
    """What is to be said of the space that is left beside data of this size, or nothing.

    :param spare: how much more is wanted, so that what is said doesn't change every second.
    """
    try:
        system = os.statvfs(folder)
    except FileNotFoundError:
        return ""
    free = system.f_bavail * system.f_frsize
    # A rewrite writes the data a second time before it removes the first.
    wanted = LEAST_FREE + size
    if free >= wanted + spare or not system.f_blocks:
        return ""
    return f"the disk is nearly full: {free >> 20} MiB are free, and {wanted >> 20} MiB should be"


def refusal_of_writes(information: bytes) -> str:
    """What is to be said of the answer to ``INFO persistence``, or nothing."""
    if field(information, "aof_last_write_status") in ("ok", ""):
        return ""
    return "the server can't write to its disk and refuses writes, see redis.log; free some space"


class Supervisor:
    """One embedded server, from its start to the end of its last client."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import ctypes  # Here, so that clients who import this file have not to pay for it.

        self.settings = settings
        self.pid = os.getpid()
        self.grace = float(settings["grace"])
        self.lease = open_lock("lease")
        self.server_lock = open_lock("server.lock")
        self.request = open_lock(REQUEST)
        self.server: subprocess.Popen[bytes] | None = None
        self.run_id = ""
        self.recorded = False
        #: 0 while the server is up
        self.restart_delay = 0.0
        self.restart_at = 0.0
        self.libc = ctypes.CDLL(None)
        self.told_to_stop = False
        self.synced_sizes: dict[str, int] = {}
        #: what is wrong with the disk, by kind: what was said of it, and since when
        self.troubles: dict[str, str] = {}

    def run(self) -> None:
        """Start, report, watch."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not try_lock(self.server_lock):
            if time.monotonic() > deadline:
                report(f"another server holds {os.getcwd()}")
                return
            time.sleep(0.02)
        os.close(self.settings["start_lock"])
        os.makedirs(DATA, 0o700, exist_ok=True)
        if not self.start():
            report(f"{self.settings['server']} did not start: {last_lines(SERVER_LOG)}")
            return
        report("ready")
        self.watch()

    def start(self) -> bool:
        """Start a server, and record its address once it answers as the one that we started."""
        remove(SOCKET)
        self.server = subprocess.Popen(
            [self.settings["server"], *self.options()],
            cwd=DATA,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            pass_fds=(self.server_lock,),
            preexec_fn=self.prepare_server,
        )
        while self.server.poll() is None:
            information = ask(b"INFO")
            is_ours = field(information, "process_id") == str(self.server.pid)
            if is_ours and field(information, "loading") == "0":
                ask(b"SET flask_globalstate:seqcount " + self.settings["seqcount"].encode())
                self.run_id = field(information, "run_id")
                self.record()
                return True
            self.sleep(0.01)
        log(f"server {self.server.pid} ended with {self.server.returncode} while starting")
        return False

    def options(self) -> list[str]:
        """The server's command line; only what Redis 6 to 8 and Valkey all know."""
        pairs = {
            "port": "0",
            "unixsocket": f"../{SOCKET}",
            "unixsocketperm": "600",
            "dir": ".",
            "logfile": f"../{SERVER_LOG}",
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            # Each write reaches the kernel before it is answered; the disk follows once a second.
            "appendfsync": self.settings["appendfsync"],
        }
        return [word for key, value in pairs.items() for word in ("--" + key, value)]

    def prepare_server(self) -> None:
        """Runs in the server's process before it becomes redis-server."""
        # A service manager signals the whole group; workers still finish their requests.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        if sys.platform == "linux":
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self.pid:
                os._exit(1)

    def record(self) -> None:
        """Say where the server is, in one step; on a full disk that is tried again."""
        assert self.server is not None
        content = {
            "socket": SOCKET,
            "run_id": self.run_id,
            "server": self.server.pid,
            "supervisor": os.getpid(),
            "since": time.time(),
        }
        try:
            with open(SPARE, "r+" if os.path.exists(SPARE) else "w") as file:
                file.write(record_text(content))
                file.truncate()
            log(f"server {self.server.pid} is up")
            os.replace(SPARE, RECORD)
        except OSError as error:
            self.recorded = False
            self.note_trouble("record", f"the address of the server can't be written: {error}")
            return
        self.recorded = True
        self.note_trouble("record", "")
        with contextlib.suppress(OSError), open(SPARE, "w") as file:
            file.write(" " * SPARE_SIZE)

    def watch(self) -> None:
        """Until the last client is gone: restart what died, bring to disk what was written."""
        alone_since = None
        next_sync = time.monotonic()
        while True:
            self.sleep(POLL)
            if not self.is_in_place():
                log("the directory was removed or replaced; ending the server")
                self.kill()
                return
            self.keep_up()
            wish = self.wish()
            if wish == "now":
                self.stop("told to end with clients there")
                return
            now = time.monotonic()
            if now >= next_sync:
                self.sync_files()
                self.look_at_disk()
                next_sync = now + SYNC_EVERY
            if not try_lock(self.lease):
                alone_since = None
                continue
            alone_since = now if alone_since is None else alone_since
            if self.told_to_stop or wish or now - alone_since >= self.grace:
                # We hold the lease exclusively: a client that comes now waits, then starts anew.
                self.stop("the last client is gone")
                return
            fcntl.flock(self.lease, fcntl.LOCK_UN)

    def wish(self) -> str:
        """What somebody who holds the lock of wishes wants: to end ``alone``, ``now``, or nothing."""
        found = "now"
        if try_lock(self.request):
            found = ""
        elif try_lock(self.request, fcntl.LOCK_SH):
            found = "alone"
        fcntl.flock(self.request, fcntl.LOCK_UN)
        return found

    def keep_up(self) -> None:
        """Start the server again if it died, ever more slowly while it fails."""
        assert self.server is not None
        if self.server.poll() is None:
            if not self.recorded:
                self.record()
            return
        if not self.restart_delay:
            log(f"server {self.server.pid} ended with {self.server.returncode}")
        now = time.monotonic()
        if self.restart_delay and now < self.restart_at:
            return
        if self.start():
            self.restart_delay = 0.0
        else:
            self.restart_delay = min(2 * self.restart_delay or POLL, SLOWEST_RESTART)
            self.restart_at = now + self.restart_delay

    def is_in_place(self) -> bool:
        """Whether the directory is still where clients look for it."""
        try:
            here, there = os.fstat(self.lease), os.stat(os.path.join(self.settings["directory"], "lease"))
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def sync_files(self) -> None:
        """fsync what has grown, by path: a rewrite renames the file, Redis 7 has several in a folder."""
        sizes = {path: status.st_size for path, status in data_files(DATA).items()}
        grown = [path for path, size in sizes.items() if self.synced_sizes.get(path) != size]
        failure = ""
        for path in [*grown, *sorted({os.path.dirname(path) for path in grown})]:
            try:
                fsync(path)
            except FileNotFoundError:
                continue  # A rewrite has removed it.
            except OSError as error:
                failure = f"{path} can't be brought to disk: {error.strerror}"
                sizes.pop(path, None)
        self.synced_sizes = sizes
        self.note_trouble("sync", failure)

    def look_at_disk(self) -> None:
        """Notice that the disk is nearly full, or takes no writes."""
        # With some room between, or free space about there would be told of every second.
        spare = LEAST_FREE // 4 if "space" in self.troubles else 0
        self.note_trouble("space", lack_of_space(DATA, sum(self.synced_sizes.values()), spare))
        # Asked always: neither a quota nor a broken disk can be seen in the free space.
        information = ask(b"INFO persistence")
        if information:
            self.note_trouble("writes", refusal_of_writes(information))

    def note_trouble(self, kind: str, text: str) -> None:
        """Say it once when it begins, and once when it is over."""
        if text and kind not in self.troubles:
            log(f"warning: {text}")
            self.troubles[kind] = f"{text} (since {time.strftime('%Y-%m-%d %H:%M:%S')})"
        elif not text and kind in self.troubles:
            log(f"over: {self.troubles.pop(kind)}")

    def stop(self, reason: str) -> None:
        """Shut the server down with its data saved."""
        log(reason)
        remove(RECORD)
        assert self.server is not None
        ask(b"SHUTDOWN")
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.server.poll() is None and time.monotonic() < deadline:
            self.sleep(0.01)
        self.kill()
        self.sync_files()
        remove(SOCKET)
        remove(SPARE)

    def kill(self) -> None:
        """End the server at once, if it is there."""
        assert self.server is not None
        if self.server.poll() is None:
            log(f"killing server {self.server.pid}")
            self.server.kill()
        self.server.wait()

    def sleep(self, seconds: float) -> None:
        """Sleep until a signal comes or the time is over."""
        if select.select([self.wakeup], [], [], seconds)[0]:
            os.read(self.wakeup, 4096)

    def listen_to_signals(self) -> None:
        """Be woken by the end of the server; note a wish to stop; ignore what the terminal sends."""
        self.wakeup, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self.note_wish_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def note_wish_to_stop(self, *_: object) -> None:
        """End without a time of grace, but not while clients are there."""
        self.told_to_stop = True


def fsync(path: str) -> None:
    """Bring a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def last_lines(path: str) -> str:
    """The end of a log, for an error message."""
    try:
        with open(path, errors="replace") as file:
            return " / ".join(line.strip() for line in file.readlines()[-3:])
    except OSError:
        return "no log"


def report(line: str) -> None:
    """Answer the client that started us, and let go of its pipe."""
    log(line)
    with contextlib.suppress(BrokenPipeError):  # It was killed meanwhile; others may have come.
        os.write(1, line.encode() + b"\n")
    os.dup2(2, 1)


def main() -> None:
    """Become a daemon of the directory and look after its server."""
    settings = json.loads(sys.argv[1])
    os.umask(0o077)
    os.chdir(settings["directory"])
    if os.fork():
        os._exit(0)
    errors = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(errors, 2)
    os.close(errors)
    supervisor = Supervisor(settings)
    supervisor.listen_to_signals()
    supervisor.run()


if __name__ == "__main__":
    main()
