"""How messages name types: with the right article, and as a user knows them."""

from __future__ import annotations

import ast
import re
import threading
from pathlib import Path
from typing import Any

import pytest

import flask_globalstate
from flask_globalstate import GlobalState
from flask_globalstate.tracking.plain import TrackedContainer
from flask_globalstate.values.wording import article, kind_of

PACKAGE = Path(flask_globalstate.__file__).parent
#: a word that is filled in, and before it an article that may not fit
GUESSED = re.compile(r"\b(a|an) (%s|\{)")


def templates(source: str) -> list[str]:
    """The texts of a source into which words are filled, with a brace for each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [str(one.value) if isinstance(one, ast.Constant) else "{" for one in node.values]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "%s" in node.value:
            found.append(node.value)
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_message_guesses_an_article(path: Path) -> None:
    assert [text for text in templates(path.read_text(encoding="utf-8")) if GUESSED.search(text)] == []


def test_a_guess_is_seen() -> None:
    guesses = ['f"it is a {kind}"', 'f"{x} is an " f"{kind}"', 'log("a %s")', 'f"a {x!r} " "b"']
    assert [bool(GUESSED.search(*templates(one))) for one in guesses] == [True] * 4
    assert not GUESSED.search(*templates('f"an area {x}"'))


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (1, "an int"),
        ([], "a list"),
        (None, "a NoneType"),
        (threading.Lock(), "a _thread.lock"),
        (PACKAGE, f"a {type(PACKAGE).__module__}.{type(PACKAGE).__qualname__}"),
    ],
)
def test_a_type_is_named_with_its_article(thing: Any, expected: str) -> None:
    assert kind_of(thing) == expected


def test_an_abbreviation_is_as_it_is_spoken() -> None:
    assert [article(word) for word in ("UUID", "OrderedDict", "SharedDict")] == [
        "a UUID",
        "an OrderedDict",
        "a SharedDict",
    ]


def test_a_container_in_a_shared_global_is_called_what_it_is_to_its_user(tmp_path: Path) -> None:
    state = GlobalState.from_config({"STORE_BACKEND": "shelve", "STORE_PATH": str(tmp_path / "store")})
    data = state.dict("DATA", {"list": [], "dict": {}, "set": set()})
    for name in list(data):
        one = data[name]
        assert isinstance(one, TrackedContainer)
        with pytest.raises(TypeError, match=rf"(?<!\w){name}(?!\w)"):
            one - 1
        with pytest.raises(AttributeError, match=f"'{name}' object has no attribute 'lost'"):
            one.lost  # noqa: B018
        with pytest.raises(TypeError, match=f"a {name} is no shared global"):
            GlobalState.name_of(one)
    state.close()
