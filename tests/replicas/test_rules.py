"""The rules of the replica, each by an interleaving that goes wrong without it.

A store whose answers can be held back stands for a slow thread: what happens in ``meanwhile`` happens
after the store has answered and before the replica hears it.
"""

from __future__ import annotations

from typing import Any

import pytest

from flask_globalstate.replicas.replica import Replica
from flask_globalstate.stores.base import DELETE, Revision, Write
from flask_globalstate.stores.memory import REMOVALS_KEPT
from flask_globalstate.values.envelope import PlainCodec
from tests.support.slow_store import NAME, SlowStore, read, write


def test_rule_2_a_fetch_does_not_move_synced(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    assert read(replica, "a") == 1
    write(store, a=2)
    write(store, b=2)
    assert read(replica, "b") == 2  # An answer of a later revision, and a is still the old one.
    replica.sync()
    assert read(replica, "a") == 2


def test_rule_2_an_own_commit_does_not_move_synced(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    assert read(replica, "a") == 1
    write(store, a=2)
    replica.commit({"b": 2})
    replica.sync()
    assert read(replica, "a") == 2


def test_rule_2_a_late_answer_of_changes_does_not_move_synced_back(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")

    def another_thread_syncs() -> None:
        write(store, a=2, b=2)
        replica.sync()

    store.meanwhile["changes"] = another_thread_syncs
    replica.sync()
    assert replica.synced_at(store.revision(NAME))


def test_rule_3_a_slow_fetch_does_not_put_back_what_a_sync_has_dropped(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    read(replica, "b")

    def another_worker_writes_and_another_thread_syncs() -> None:
        write(store, a=2)
        replica.sync()

    store.meanwhile["fetch"] = another_worker_writes_and_another_thread_syncs
    assert read(replica, "a") == 1  # That read began before the write.
    assert read(replica, "a") == 2


def test_rule_3_a_slow_fetch_does_not_remember_as_absent_what_a_sync_has_seen(
    store: SlowStore, replica: Replica
) -> None:
    write(store, b=1)
    read(replica, "b")

    def another_worker_writes_and_another_thread_syncs() -> None:
        write(store, a=2)
        replica.sync()

    store.meanwhile["fetch"] = another_worker_writes_and_another_thread_syncs
    with pytest.raises(KeyError):
        read(replica, "a")
    assert read(replica, "a") == 2


@pytest.mark.parametrize("used_before", [True, False])
def test_rule_3_a_slow_fetch_does_not_hide_a_write_of_ones_own(
    store: SlowStore, replica: Replica, used_before: bool
) -> None:
    write(store, a=1, b=1)
    if used_before:
        read(replica, "b")
    store.meanwhile["fetch"] = lambda: replica.commit({"a": 2})
    assert read(replica, "a") == 1
    assert read(replica, "a") == 2


def test_rule_3_a_slow_fetch_does_not_hide_an_increment_of_ones_own(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    store.meanwhile["fetch"] = lambda: replica.increment("a", 1) and None
    assert read(replica, "a") == 1
    assert read(replica, "a") == 2


def test_rule_3_slow_keys_do_not_bring_back_an_order_that_a_sync_has_dropped(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")

    def another_worker_writes_and_another_thread_syncs() -> None:
        write(store, b=2)
        replica.sync()

    store.meanwhile["keys"] = another_worker_writes_and_another_thread_syncs
    assert list(replica.order()) == ["a"]
    assert list(replica.order()) == ["a", "b"]


def test_rule_4_a_key_held_at_the_named_revision_is_not_dropped(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    write(store, b=2)
    assert read(replica, "b") == 2
    replica.sync()  # Names b, at the revision at which it is held.
    assert replica.values == {"a": 1, "b": 2}


def test_rule_4_a_key_found_absent_at_the_named_revision_is_not_asked_for_again(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    read(replica, "b")
    write(store, a=DELETE)
    with pytest.raises(KeyError):
        read(replica, "a")
    replica.sync()
    store.asked.clear()
    with pytest.raises(KeyError):
        read(replica, "a")
    assert store.asked == []


def test_rule_4_what_a_late_answer_names_does_not_drop_what_is_newer(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")
    write(store, a=2)

    def another_thread_is_ahead() -> None:
        write(store, a=3)
        replica.sync()
        assert read(replica, "a") == 3

    store.meanwhile["changes"] = another_thread_is_ahead
    replica.sync()
    assert replica.values == {"a": 3}


def test_rule_5_another_epoch_empties_the_replica(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    store.begin_epoch()
    write(store, b=2)  # The same number as before, of another history.
    replica.sync()
    with pytest.raises(KeyError):
        read(replica, "a")
    assert read(replica, "b") == 2


def test_rule_5_a_fetch_of_another_epoch_empties_the_replica(store: SlowStore, replica: Replica) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    store.begin_epoch()
    write(store, b=2)
    assert read(replica, "b") == 2
    assert "a" not in replica.values


def test_rule_5_a_log_that_reaches_back_too_little_empties_the_replica(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1, b=1)
    read(replica, "a")
    replica.commit({"a": 2})
    read(replica, "a")
    keys = {f"k{i}": i for i in range(REMOVALS_KEPT + 1)}
    other = Replica(NAME, store, PlainCodec())
    other.commit({"a": 3})
    other.commit(keys)
    other.commit(dict.fromkeys(["a", *keys], DELETE))
    replica.sync()
    with pytest.raises(KeyError):
        read(replica, "a")


def test_rule_5_an_answer_of_an_epoch_that_is_gone_does_not_reset_again(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=1)
    read(replica, "a")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=2)
        replica.sync()
        assert read(replica, "a") == 2

    store.meanwhile["fetch"] = the_server_is_replaced_and_another_thread_notices
    with pytest.raises(KeyError):
        read(replica, "b")
    assert replica.synced_at(store.revision(NAME))
    assert replica.values == {"a": 2}


def test_rule_5_an_own_commit_of_an_epoch_that_is_gone_does_not_reset_again(
    store: SlowStore, replica: Replica, monkeypatch: Any
) -> None:
    write(store, a=1)
    read(replica, "a")
    real = store.commit

    def commit(writes: Any, names: Any = None) -> Revision:
        revision = real(writes, names)
        monkeypatch.undo()
        store.begin_epoch()
        write(store, a=3)
        replica.sync()
        assert read(replica, "a") == 3
        return revision

    monkeypatch.setattr(store, "commit", commit)
    replica.commit({"b": 2})
    assert replica.synced_at(store.revision(NAME))
    assert replica.values == {"a": 3}


def test_a_late_value_of_an_epoch_that_is_gone_is_not_shown_after_a_newer_one(
    store: SlowStore, replica: Replica
) -> None:
    write(store, a=0, b=1)
    write(store, a=1)
    read(replica, "b")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=2)
        replica.sync()
        assert read(replica, "a") == 2

    store.meanwhile["fetch"] = the_server_is_replaced_and_another_thread_notices
    assert replica.read("a") == 2


def test_a_late_sync_of_an_epoch_that_is_gone_asks_again(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    read(replica, "a")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=2)
        replica.sync()
        read(replica, "a")

    store.meanwhile["changes"] = the_server_is_replaced_and_another_thread_notices
    replica.sync()
    assert replica.values == {"a": 2}


def test_rule_2_a_late_answer_of_an_epoch_that_is_gone_does_not_move_synced(
    store: SlowStore, replica: Replica
) -> None:
    for n in range(5):
        write(store, a=n)
    read(replica, "a")

    def the_server_is_replaced_and_another_thread_notices() -> None:
        store.begin_epoch()
        write(store, a=10)
        replica.sync()
        assert read(replica, "a") == 10
        write(store, a=11)  # Its number is below that of the answer that is late.

    store.meanwhile["changes"] = the_server_is_replaced_and_another_thread_notices
    replica.sync()
    assert read(replica, "a") == 11


def test_rule_1_the_row_is_read_before_changes_are_asked(store: SlowStore, replica: Replica) -> None:
    write(store, a=1)
    read(replica, "a")
    store.meanwhile["changes"] = lambda: write(store, a=2)  # Too late for that answer.
    replica.refresh()
    replica.refresh()
    assert read(replica, "a") == 2


def test_rule_1_a_row_that_is_not_idle_is_not_remembered(
    store: SlowStore, replica: Replica, monkeypatch: Any
) -> None:
    write(store, a=1)
    read(replica, "a")
    monkeypatch.setattr(store, "is_idle", lambda name, row: False)
    replica.refresh()
    assert not replica.freshness.is_unchanged(replica)
    monkeypatch.undo()
    replica.refresh()
    assert replica.freshness.is_unchanged(replica)


def test_rule_1_what_is_remembered_is_remembered_for_one_name_only(store: SlowStore) -> None:
    replicas = [Replica(name, store, PlainCodec()) for name in ("one", "two")]
    for name in ("one", "two"):
        store.commit([Write(name, "a", 1)])
    for replica in replicas:
        read(replica, "a")
    for name in ("one", "two"):
        store.commit([Write(name, "a", 2)])
    replicas[0].refresh()
    for replica in replicas:
        replica.refresh()
        assert read(replica, "a") == 2


def test_rule_3_what_comes_along_late_does_not_put_back_what_another_sync_has_dropped(
    store: SlowStore, replica: Replica
) -> None:
    store.along = True
    for reads_again in (True, False):
        write(store, a=1)
        read(replica, "a")
        write(store, a=2)

        def another_thread_syncs(reads_again: bool = reads_again) -> None:
            write(store, a=3)
            replica.sync()
            if reads_again:
                assert read(replica, "a") == 3

        store.meanwhile["changes"] = another_thread_syncs
        replica.sync()
        assert read(replica, "a") == 3


def test_rule_3_what_comes_along_late_does_not_hide_a_write_of_ones_own(
    store: SlowStore, replica: Replica
) -> None:
    store.along = True
    write(store, a=1)
    read(replica, "a")
    write(store, a=2)
    store.meanwhile["changes"] = lambda: replica.commit({"a": 3}) and None
    replica.sync()
    assert read(replica, "a") == 3


def test_rule_5_what_comes_along_of_an_epoch_that_is_gone_is_not_kept(
    store: SlowStore, replica: Replica
) -> None:
    store.along = True
    write(store, a=1)
    read(replica, "a")
    write(store, a=2)

    def begin_again() -> None:
        store.begin_epoch()
        write(store, a=3)
        replica.sync()

    store.meanwhile["changes"] = begin_again
    replica.sync()
    assert read(replica, "a") == 3
