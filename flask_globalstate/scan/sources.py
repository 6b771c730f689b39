"""Files of source, read and never run."""

from __future__ import annotations

import ast
import io
import os
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .scopes import scoped_nodes

SKIPPED = ("__pycache__", "node_modules")


class Unreadable(NamedTuple):
    """A file or folder that could not be read, and why."""

    path: Path
    reason: str


class Module:
    """One file of source.

    :param path: as the user has named it.
    :param text: what it holds.
    :raises SyntaxError, ValueError, RecursionError, MemoryError: if it is not Python.
    :ivar root: the folder that must be on ``sys.path`` for it to be imported.
    :ivar name: how it is imported.
    """

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.file = Path(os.path.abspath(path))
        self.root, self.name = _import_name(self.file)
        self.lines = text.split("\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" is its author's matter.
            self.tree = ast.parse(text)
        self.nodes = scoped_nodes(self.tree)
        self.scope = self.nodes[0][1]

    def source(self, node: ast.expr, width: int) -> str | None:
        """The source of an expression, if it is on one line and no longer than ``width``."""
        end = node.end_col_offset
        if node.end_lineno != node.lineno or end is None:
            return None
        text = self.lines[node.lineno - 1].encode()[node.col_offset : end].decode()
        return text if len(text) <= width else None

    def end_of_statement(self, line: int) -> int:
        """The last line of the statement at the top of the module that a line is in."""
        ends = [stmt.end_lineno or 0 for stmt in self.tree.body if stmt.lineno <= line]
        return max([line, *ends[-1:]])


def read_modules(paths: Iterable[Path]) -> tuple[list[Module], list[Unreadable]]:
    """The modules in files and folders, sorted by path, and what could not be read."""
    unreadable: list[Unreadable] = []
    files = {os.path.abspath(path): path for path in _files(paths, unreadable)}
    modules = []
    for path in sorted(files.values(), key=lambda path: path.parts):
        try:
            modules.append(Module(path, _text_of(path)))
        except (OSError, SyntaxError, ValueError, LookupError, RecursionError, MemoryError) as error:
            unreadable.append(Unreadable(path, _reason(error)))
    return modules, unreadable


def _text_of(path: Path) -> str:
    """The text of a file in the encoding that it says, with plain ends of lines."""
    content = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    with io.TextIOWrapper(io.BytesIO(content), encoding) as text:
        return text.read()


def _reason(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f"line {error.lineno}: {error.msg}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) or f"{type(error).__name__} in Python's parser"


def _files(paths: Iterable[Path], unreadable: list[Unreadable]) -> Iterator[Path]:
    """The files of source; what is named by itself is read whatever it is called."""

    def note(error: OSError) -> None:
        unreadable.append(Unreadable(Path(error.filename), _reason(error)))

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path, onerror=note):
            folders[:] = [name for name in folders if not _is_skipped(folder, name)]
            yield from (Path(folder, name) for name in names if name.endswith((".py", ".pyw")))


def _is_skipped(folder: str, name: str) -> bool:
    """Whether a folder holds no source of the user: hidden ones, caches, virtual environments."""
    return name.startswith(".") or name in SKIPPED or os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))


def _import_name(file: Path) -> tuple[Path, str]:
    """The folder that a file is imported from, and its dotted name there."""
    parts = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while folder.name and (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)
