"""Leases in one shard: what they keep alive, and how they and their keys end."""

from __future__ import annotations

from typing import Any

import pytest

from krita.errors import BadRequest, Busy, LeaseUnknown
from krita.operations import LeaseChange, Op
from krita.ring import token
from kritad.state import leases as module
from kritad.state.leases import Leases
from kritad.state.notes import Notes
from kritad.state.user_keys import ENDED_MAX
from tests.state.shard import Shard, error

ARC = [0, 1 << 32]
GRANT, KEEPALIVE, REVOKE = LeaseChange.GRANT, LeaseChange.KEEPALIVE, LeaseChange.REVOKE


def lease_a_key(shard: Shard, key: bytes = b"k", lease: int = 1) -> None:
    assert shard.do(Op.PUT, key, value=b"v", lease=lease).ok


def test_a_key_ends_with_its_lease(shard: Shard) -> None:
    assert shard.lease(1, GRANT, 100).body == [100, 0, *ARC]
    lease_a_key(shard)
    shard.pass_time(99)
    assert shard.value(b"k") == b"v"
    shard.pass_time(1)
    assert shard.value(b"k") is None
    assert len(shard.state.keys.leases) == 0
    assert shard.state.state_hash == 0


def test_a_lease_that_is_kept_alive_lasts_for_its_whole_time_from_then_on(shard: Shard) -> None:
    shard.lease(1, GRANT, 100)
    lease_a_key(shard)
    shard.clock_ms = 60
    assert shard.lease(1, KEEPALIVE).body == [100, 1, *ARC]
    shard.clock_ms = 159
    shard.pass_time(0)
    assert shard.value(b"k") == b"v"
    shard.pass_time(1)
    assert shard.value(b"k") is None


def test_revoking_a_lease_ends_its_keys_at_once(shard: Shard) -> None:
    shard.lease(1, GRANT, 1_000)
    lease_a_key(shard)
    lease_a_key(shard, b"l")
    shard.put(b"free", b"v")
    assert shard.lease(1, REVOKE).body == [1_000, 2, *ARC]
    assert [shard.value(key) for key in (b"k", b"l", b"free")] == [None, None, b"v"]


def test_a_lease_that_was_never_granted_or_is_over_is_unknown(shard: Shard) -> None:
    assert isinstance(error(shard.lease(1, KEEPALIVE)), LeaseUnknown)
    shard.lease(1, GRANT, 10)
    shard.clock_ms = 10
    assert isinstance(error(shard.lease(1, KEEPALIVE)), LeaseUnknown)


def test_a_lease_that_was_revoked_already_may_be_revoked_again(shard: Shard) -> None:
    shard.lease(1, GRANT, 10)
    assert shard.lease(1, REVOKE).body == [10, 0, *ARC]
    assert shard.lease(1, REVOKE).body == [None, 0, *ARC]


def test_what_all_shards_are_told_is_answered_with_the_arc_that_has_heard_it(shard: Shard) -> None:
    shard.split(5, 1 << 31)
    half = [0, 1 << 31]
    assert shard.lease(1, GRANT, 10).body == [10, 0, *half]
    assert shard.lease(1, KEEPALIVE).body == [10, 0, *half]
    assert shard.lease(1, REVOKE).body == [10, 0, *half]
    assert shard.retain(b"a", 10).body == half


def test_a_write_with_a_lease_that_is_not_alive_is_refused_and_does_nothing(shard: Shard) -> None:
    shard.put(b"k", b"before")
    refused = error(shard.do(Op.PUT, b"k", value=b"v", lease=9))
    assert isinstance(refused, LeaseUnknown)
    assert shard.value(b"k") == b"before"


def end_partly(shard: Shard, count: int = 2 * ENDED_MAX + 1) -> None:
    """Lease 1 is over, and not all of its keys have ended."""
    shard.lease(1, GRANT, 10)
    for number in range(count):
        lease_a_key(shard, b"k%04d" % number)
    shard.pass_time(10)


def test_keys_of_a_lease_that_is_over_do_not_come_back_when_its_number_is_granted_again(
    shard: Shard,
) -> None:
    end_partly(shard)
    last = b"k%04d" % (2 * ENDED_MAX)
    assert shard.value(last) is None, "over, though its row waits"
    refused = error(shard.lease(1, GRANT, 1_000))  # this ends another thousand
    assert isinstance(refused, Busy)
    assert shard.value(last) is None, "it came back from the dead"
    shard.pass_time(0)
    assert shard.lease(1, GRANT, 1_000).body == [1_000, 0, *ARC]


def test_one_entry_ends_only_so_many_keys_of_a_lease(shard: Shard) -> None:
    end_partly(shard)
    assert shard.state.extent.keys == ENDED_MAX + 1
    assert shard.pass_time(0).body == [True]
    assert shard.state.extent.keys == 1
    assert shard.pass_time(0).body == [False]
    assert len(shard.state.keys.leases) == 0


def test_one_entry_ends_only_so_many_leases_that_have_no_keys(shard: Shard) -> None:
    for lease in range(1, ENDED_MAX + 11):
        shard.lease(lease, GRANT, 10)
    shard.pass_time(10)
    assert len(shard.state.keys.leases) == 10
    shard.pass_time(0)
    assert len(shard.state.keys.leases) == 0


def test_an_entry_ends_fewer_keys_where_their_values_are_large(shard: Shard) -> None:
    for number in range(20):
        shard.do(Op.PUT, b"k%02d" % number, value=b"x" * (1 << 20), ttl_ms=10)
    shard.pass_time(10)
    assert 5 < shard.state.extent.keys < 15
    assert shard.value(b"k19") is None
    while shard.pass_time(0).body == [True]:
        pass
    assert shard.state.extent.keys == 0


def test_a_key_moves_from_one_lease_to_another(shard: Shard) -> None:
    shard.lease(1, GRANT, 10)
    shard.lease(2, GRANT, 20)
    lease_a_key(shard, b"k", 1)
    shard.do(Op.TOUCH, b"k", lease=2)
    shard.pass_time(10)
    assert shard.value(b"k") == b"v"
    shard.pass_time(10)
    assert shard.value(b"k") is None


def test_a_key_with_a_deadline_and_a_lease_ends_at_the_first_of_the_two(shard: Shard) -> None:
    shard.lease(1, GRANT, 20)
    shard.do(Op.PUT, b"deadline", value=b"v", ttl_ms=10, lease=1)
    shard.do(Op.PUT, b"lease", value=b"v", ttl_ms=30, lease=1)
    shard.pass_time(10)
    assert (shard.value(b"deadline"), shard.value(b"lease")) == (None, b"v")
    shard.pass_time(10)
    assert shard.value(b"lease") is None


def test_keeping_the_time_to_live_keeps_the_lease_as_well(shard: Shard) -> None:
    shard.lease(1, GRANT, 20)
    lease_a_key(shard)
    shard.do(Op.PUT, b"k", value=b"w", ttl_ms=-1)
    shard.pass_time(20)
    assert shard.value(b"k") is None


def test_leases_are_the_same_after_a_flush_and_a_crash(shard: Shard) -> None:
    shard.lease(1, GRANT, 100)
    lease_a_key(shard)
    shard.flush()
    shard.clock_ms = 50
    shard.lease(1, KEEPALIVE)
    shard.lease(2, GRANT, 10)
    before = shard.state.state_hash
    shard.crash()
    assert shard.state.state_hash == before
    assert shard.state.keys.due_ms == 60
    shard.pass_time(100)
    shard.flush()
    assert shard.scanned_hash() == shard.state.state_hash == 0
    shard.crash()
    assert len(shard.state.keys.leases) == 0


def test_both_halves_of_a_split_shard_know_every_lease(shard: Shard) -> None:
    shard.lease(1, GRANT, 10)
    keys = [b"k%d" % number for number in range(20)]
    for key in keys:
        lease_a_key(shard, key)
    total = shard.state.state_hash
    notes = shard.state._notes.hash
    shard.split(5, 1 << 31)
    offspring = shard.state.take_offspring()
    assert offspring is not None
    halves = [shard.state, offspring.state]
    assert sum(half.state_hash for half in halves) % (1 << 64) == (total + notes) % (1 << 64)
    for half, is_behind in zip(halves, (False, True), strict=True):
        assert half.keys.leases.is_alive(1, 9)
        assert not half.keys.leases.is_alive(1, 10)
        own = sorted(key for key in keys if (token(key) >= 1 << 31) is is_behind)
        assert half.leased(1, 99) == own


@pytest.mark.parametrize("lease", [0, -1, 1 << 60, None, "1", True])
def test_what_is_no_number_of_a_lease_is_refused(shard: Shard, lease: Any) -> None:
    assert isinstance(error(shard.lease(lease, GRANT, 10)), BadRequest)


@pytest.mark.parametrize("ttl_ms", [0, -1, None, 1 << 62, 1.5])
def test_what_is_no_time_to_live_of_a_lease_is_refused(shard: Shard, ttl_ms: Any) -> None:
    assert isinstance(error(shard.lease(1, GRANT, ttl_ms)), BadRequest)


def test_there_are_only_so_many_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASES_MAX", 2)
    leases = Leases(Notes())
    leases.put(1, 10, 10)
    leases.put(2, 10, 10)
    with pytest.raises(Busy):
        leases.put(3, 10, 10)
    leases.put(2, 10, 20)  # one that is there may be kept alive


def test_a_lease_that_is_kept_alive_for_ever_takes_no_more_memory_for_it() -> None:
    leases = Leases(Notes())
    leases.put(1, 5, 5)
    for deadline_ms in range(10, 10_000):
        leases.put(2, 10, deadline_ms)
    assert len(leases._deadlines._heap) < 2_000
    assert leases.over(20_000) == 1
    leases.end(1)
    assert (leases.over(9_998), leases.over(9_999)) == (None, 2)
