"""What a store may lack, and the laws that are then not asked of it.

A law that needs something is marked, and pytest deselects it for a class of tests that declares that its
store lacks this (`flask_globalstate.pytest_plugin` does so, and pytest tells how many were deselected).
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import ClassVar, TypeGuard

import pytest

from ..stores.base import Backend, Store

#: Marks a law that is not asked of a store that lacks one of these.
needs = pytest.mark.globalstate_needs
#: Marks a law that is asked only of a store that lacks all of these.
without = pytest.mark.globalstate_without


def has_revisions(store: Backend) -> TypeGuard[Store]:
    """Whether a store tells of revisions; one that is made from another contract has none."""
    return isinstance(store, Store)


def lacking(store: Backend) -> set[str]:
    """What a store says that it lacks."""
    has = {
        "atomic": store.atomic,
        "encoding": not store.holds_objects,
        "revisions": has_revisions(store),
    }
    return {feature for feature, is_there in has.items() if not is_there}


class Declared:
    """A class of laws whose author declares what the store lacks.

    :cvar lacks: ``"atomic"`` if changes that depend on what is there are refused, ``"encoding"`` if the
        store holds the objects themselves, ``"revisions"`` if it is made from a contract without any.
    """

    lacks: ClassVar[Set[str]] = frozenset()

    def test_the_store_lacks_what_its_tests_declare(self, open_store: Callable[[], Backend]) -> None:
        store = open_store()
        assert self.lacks == lacking(store), "declare it: lacks = {...}"
        store.close()
