"""What others may have put into a store is not unpickled by way of a link or a strange folder."""

from __future__ import annotations

import contextlib
import dbm.dumb
import os
import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from flask_globalstate import ConfigurationError
from flask_globalstate.stores.shelve.schema import DICT
from tests.support.strange_files import NOBODY, by_root, open_state


class Bomb:
    """Runs something when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self._trace), 0o700, True)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Is there when the upload was unpickled."""
    return tmp_path / "trace"


@pytest.fixture
def upload(tmp_path: Path, trace: Path) -> Path:
    """A shelf that somebody has sent us, and that the application keeps among its own files."""
    uploads = tmp_path / "uploads"
    uploads.mkdir(0o700)
    with contextlib.closing(sqlite3.connect(uploads / "DATA", isolation_level=None)) as file:
        file.execute(DICT)
        file.execute("INSERT INTO Dict VALUES (?, ?)", (b"a", pickle.dumps(Bomb(trace))))
    return uploads / "DATA"


def read_upload(path: Path) -> None:
    """Read whatever is in there."""
    state = open_state("shelve", path)
    try:
        state.dict("DATA").get("a")
    finally:
        state.close()


def test_an_upload_that_is_moved_in_by_its_owner_is_taken_over(upload: Path, trace: Path) -> None:
    """That is promised, and shows that the next tests could fail."""
    read_upload(upload.parent)
    assert trace.exists()


def test_an_upload_is_not_unpickled_by_way_of_a_link(upload: Path, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(0o700)
    (tmp_path / "store" / "DATA").symlink_to(upload)
    with pytest.raises(ConfigurationError, match="is a link"):
        read_upload(tmp_path / "store")
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_an_upload_is_not_unpickled_by_way_of_a_parent_that_others_may_write_to(
    upload: Path, trace: Path, tmp_path: Path, kind: str
) -> None:
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o777)
    if kind == "link":
        (public / "store").symlink_to(upload.parent)
    else:
        upload.parent.rename(public / "store")
    with pytest.raises(ConfigurationError, match="may be written to by every user"):
        read_upload(public / "store")
    assert not trace.exists()


@by_root
@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_a_shelf_or_its_log_of_another_user_is_not_opened(
    upload: Path, trace: Path, tmp_path: Path, suffix: str
) -> None:
    file = Path(f"{upload}{suffix}")
    file.touch()
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match=f"{file} belongs to user {NOBODY}"):
        read_upload(upload.parent)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".dat", ".dir"])
def test_a_shelf_of_an_older_kind_is_not_imported_through_a_link(
    tmp_path: Path, trace: Path, suffix: str
) -> None:
    with contextlib.closing(dbm.dumb.open(str(tmp_path / "OTHER"), "c")) as file:
        file[b"a"] = pickle.dumps(Bomb(trace))
    store = tmp_path / "store"
    store.mkdir(0o700)
    for end in (".dat", ".dir"):
        if end == suffix:
            (store / f"DATA{end}").symlink_to(tmp_path / f"OTHER{end}")
        else:
            shutil.copy(tmp_path / f"OTHER{end}", store / f"DATA{end}")
            (store / f"DATA{end}").chmod(0o600)
    with pytest.raises(ConfigurationError, match="is a link"):
        read_upload(store)
    assert not trace.exists()
