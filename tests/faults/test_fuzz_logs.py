"""Whatever a store answers of its changes, a replica gives what is there or one of our errors."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flask_globalstate.replicas.replica import Replica
from flask_globalstate.stores.base import Changes, Entry, Write
from flask_globalstate.stores.memory import MemoryStore
from flask_globalstate.values.envelope import PlainCodec
from flask_globalstate.values.revision import Revision
from tests.support.fuzzing import attempt, fuzzed

odd_keys = st.one_of(st.sampled_from("abc"), st.text(max_size=5), st.text(max_size=5).map("\0".__add__))


odd_numbers = st.dictionaries(odd_keys, st.integers(-5, 1 << 60), max_size=4)


class OddStore(MemoryStore):
    """A store whose change log says more than is true."""

    odd = Changes(Revision("", 0), {}, {})

    def changes(self, name: str, since: Revision) -> Changes:
        """What is true, and what is not."""
        true = super().changes(name, since)
        return Changes(
            true.revision,
            {**self.odd.changed, **true.changed},
            {**self.odd.removed, **true.removed},
            true.reset or self.odd.reset,
            true.entries,
        )


class LyingStore(MemoryStore):
    """A store whose change log says what it likes."""

    odd = Changes(Revision("", 0), {}, {})

    def changes(self, name: str, since: Revision) -> Changes:
        """Nothing that is true."""
        return self.odd


odd_changes = st.builds(
    Changes,
    revision=st.builds(Revision, st.text(max_size=3), st.integers(-5, 1 << 60)),
    changed=odd_numbers,
    removed=odd_numbers,
    reset=st.booleans(),
    entries=st.dictionaries(odd_keys, st.builds(Entry, st.just("odd"), st.integers(-5, 1 << 60)), max_size=4),
)


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers() | st.none(), odd_changes), max_size=12)


@fuzzed
@given(steps)
def test_more_changes_than_there_were_make_no_answer_wrong(script: list[tuple[str, Any, Changes]]) -> None:
    store = OddStore()
    replica = Replica("DATA", store, PlainCodec())
    expected: dict[str, Any] = {}
    for key, value, store.odd in script:
        store.commit([Write("DATA", key, value)])
        expected[key] = value
        replica.sync()
        assert replica.snapshot() == expected
        assert list(replica.order()) == list(expected)
        assert {
            key: replica.values[key] if key in replica.values else replica.read(key) for key in expected
        } == (expected)


@fuzzed
@given(steps)
def test_no_answer_of_the_change_log_leads_to_another_error(script: list[tuple[str, Any, Changes]]) -> None:
    store = LyingStore()
    replica = Replica("DATA", store, PlainCodec())
    for key, value, store.odd in script:
        store.commit([Write("DATA", key, value)])
        attempt(replica.sync)
        attempt(replica.snapshot)
        attempt(replica.order)
        assert attempt(replica.read, key) == value
