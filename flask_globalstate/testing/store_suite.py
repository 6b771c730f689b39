"""The laws of the store contract."""

from __future__ import annotations

import pytest

from ..stores.base import DELETE, Store, Write
from .commit_laws import CommitLaws
from .excuses import needs, without
from .life_laws import LifeLaws
from .log_laws import LogLaws
from .two_stores import sample

ODD_TEXTS = [
    "",
    "a b",
    "\0",
    "new\nline",
    "naïve ☃ 🐍",
    "\ud800",
    "x" * 10_000,
    "a{b}c",
    "..",
    "a/b",
    "%s",
    "0",
]
MANY = 20_000


class StoreSuite(CommitLaws, LogLaws, LifeLaws):
    """Tests of the store contract, to be inherited by a test class; see `flask_globalstate.testing`.

    :cvar MANY_NAMES: of how many names one commit is tried, an int; less for a store that can't do as many.
    """

    # --- order, keys, names ---------------------------------------------------------------------

    def test_the_order_is_that_of_creation(self, store: Store, other: Store) -> None:
        store.commit([Write("N", key, sample(store, 1)) for key in "zyx"])
        store.commit([Write("N", "a", sample(store, 1))])
        store.commit([Write("N", "z", sample(store, 2))])
        assert other.keys("N")[1] == list(other.fetch("N").entries) == ["z", "y", "x", "a"]
        store.commit([Write("N", "z", DELETE)])
        revision = store.commit([Write("N", "z", sample(store, 3))])
        assert other.keys("N") == (revision, ["y", "x", "a", "z"])

    def test_what_is_fetched_is_what_was_asked_for(self, store: Store) -> None:
        revision = store.commit([Write("N", key, sample(store, 1)) for key in "abc"])
        entry = (sample(store, 1), revision.number)
        assert store.fetch("N", []) == (revision, {})
        assert store.fetch("N", iter(["c", "absent", "a", "a"])) == (revision, {"c": entry, "a": entry})
        assert store.fetch("never", ["a"]) == ((revision.epoch, 0), {})
        assert store.fetch("never") == ((revision.epoch, 0), {})
        assert store.keys("never") == ((revision.epoch, 0), [])
        assert store.names() == ["N"]

    def test_names_are_those_written_and_not_dropped(self, store: Store, other: Store) -> None:
        store.commit([Write(name, "a", sample(store, 1)) for name in ("N", "M", "L")])
        store.fetch("only read")
        store.commit([Write("M", "a", DELETE)])
        store.drop("L")
        assert sorted(other.names()) == ["M", "N"]
        store.commit([Write("L", "a", sample(store, 1))])
        assert sorted(other.names()) == ["L", "M", "N"]

    @pytest.mark.parametrize("text", ODD_TEXTS)
    def test_any_text_is_a_name_and_a_key(self, store: Store, other: Store, text: str) -> None:
        revision = store.commit([Write(text, text, sample(store, 1)), Write("N", "n", sample(store, 1))])
        assert other.fetch(text, [text]).entries[text].data == sample(store, 1)
        assert other.keys(text) == (revision, [text])
        assert sorted(other.names()) == sorted({text, "N"})
        store.commit([Write(text, text, DELETE)])
        assert other.changes(text, revision).removed.keys() == {text}

    @without("encoding")
    def test_objects_that_are_held_come_back_themselves(self, store: Store) -> None:
        thing = object()
        store.commit([Write("N", "a", thing)])
        assert store.fetch("N", ["a"]).entries["a"].data is thing

    @needs("encoding")
    def test_values_come_back_as_they_were(self, store: Store) -> None:
        for data in (b"", bytes(range(256)), b"\r\n" * 100, b"x" * 5_000_000):
            store.commit([Write("N", "a", data)])
            assert store.fetch("N", ["a"]).entries["a"].data == data

    def test_a_batch_of_many_keys_is_one_commit(self, store: Store, other: Store) -> None:
        before = store.commit([Write("N", "first", sample(store, 1))])
        after = store.commit([Write("N", str(n), sample(store, n)) for n in range(MANY)])
        assert after.number == before.number + 1
        assert other.keys("N")[1] == ["first", *map(str, range(MANY))]
        some = [str(n) for n in range(0, MANY, 2)]
        assert list(other.fetch("N", some).entries) == some
        assert len(other.fetch("N").entries) == MANY + 1

    # --- increment ------------------------------------------------------------------------------

    def test_an_increment_of_what_is_absent_begins_at_nought(self, store: Store, other: Store) -> None:
        revision, value = store.increment("N", "a", 5)
        assert value == 5
        assert other.revision("N") == revision
        assert other.increment("N", "a", -7)[1] == -2
        assert other.keys("N")[1] == ["a"]

    def test_increments_are_exact_far_beyond_a_float(self, store: Store) -> None:
        value = 0
        for amount in (2**52, 2**52, 1, 1, 2**53, 2**62, 2**63, 2**64, 10**40, -(10**40), 1, -(2**64), 3):
            value += amount
            assert store.increment("N", "a", amount)[1] == value

    def test_an_increment_of_something_else_is_an_error_and_writes_nothing(self, store: Store) -> None:
        others = [
            sample(store, 1),
            *([True, 1.0, "1"] if store.holds_objects else [b"i", b"x1i", b"1_0i"]),
        ]
        for key, value in zip("abcde", others, strict=False):
            revision = store.commit([Write("N", key, value)])
            with pytest.raises(TypeError, match="integer"):
                store.increment("N", key, 1)
            assert store.revision("N") == revision

    def test_an_increment_is_in_the_change_log(self, store: Store) -> None:
        first, _ = store.increment("N", "a", 1)
        second, _ = store.increment("N", "a", 1)
        assert store.changes("N", first).changed == {"a": second.number}
